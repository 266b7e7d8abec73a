"""The reader of HCL, the little evaluator, and the reader of the providers' bindings."""

from __future__ import annotations

import operator
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terraform.check import hcl
from terraform.check.evaluate import UNKNOWN, evaluate
from terraform.check.extract import Source, _shape
from tests.support.iam import allowed


def value_of(text: str, tmp_path: Path) -> hcl.Attribute:
    (tmp_path / "main.tf").write_text(f"locals {{\n  it = {text}\n}}\n")
    [block] = hcl.read_folder(tmp_path, tmp_path).of("locals")
    return block.attributes["it"]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("var.a", ["var.a"]),
        ('"x-${var.a.b}-${local.c}"', ["var.a.b", "local.c"]),
        ("module.m[0].out", ["module.m.[].out"]),
        ("aws_x.y[each.key].arn", ["aws_x.y.[].arn", "each.key"]),
        ("aws_x.y[*].arn", ["aws_x.y.[].arn"]),
        ("[for k, v in var.a : v.b if k != var.c]", ["var.a", "var.c"]),
        ("{ for k, v in var.a : k => [for w in v : w.x] }", ["var.a"]),
        ("{ key = var.a, (var.b) = 1 }", ["var.a", "var.b"]),
        ("max(1, var.a...)", ["var.a"]),
        ("var.a ? local.b : null", ["var.a", "local.b"]),
    ],
)
def test_references_are_found_without_the_names_of_a_for(text: str, paths: list[str], tmp_path: Path) -> None:
    found = value_of(text, tmp_path).references
    assert sorted(".".join(reference.path) for reference in found) == sorted(paths)
    assert {reference.line for reference in found} == {2}


def test_what_is_no_hcl_is_said_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('locals {\n  a = "b"\n  c = = 1\n}\n')
    with pytest.raises(hcl.Unreadable, match=r"main\.tf:3: syntax"):
        hcl.read_folder(tmp_path, tmp_path)


numbers = st.integers(0, 999)
signs = st.sampled_from(
    [("+", operator.add), ("-", operator.sub), ("*", operator.mul), ("<", operator.lt), ("==", operator.eq)]
)


@given(numbers, signs, numbers, numbers)
def test_arithmetic_is_that_of_python(one: int, sign: tuple[str, object], two: int, three: int) -> None:
    text = f"locals {{\n it = ({one} {sign[0]} {two})\n also = {one} + {two} * {three}\n known = 6 * each.value\n}}\n"
    [block] = hcl._parse(text, Path("x.tf"))
    assert evaluate(block.attributes["it"].value) == sign[1](one, two)  # type: ignore[operator]
    assert evaluate(block.attributes["also"].value) == one + two * three
    assert evaluate(block.attributes["known"].value) is UNKNOWN
    assert evaluate(block.attributes["known"].value, {"each.value": three}) == 6 * three


DECLARATIONS = """
export interface XConfig extends cdktn.TerraformMetaArguments {
    /** {@link https://registry.terraform.io/providers/hashicorp/aws/6.62.0/docs/resources/x#full_name X#full_name} */
    readonly fullName: string;
    /** {@link https://registry.terraform.io/providers/hashicorp/aws/6.62.0/docs/resources/x#rule X#rule} */
    readonly rule?: X.RuleProperty;
}
export declare function xRulePropertyToTerraform(struct?: X.RulePropertyOutputReference | X.RuleProperty): any;
    interface RuleProperty {
        /** {@link https://registry.terraform.io/providers/hashicorp/aws/6.62.0/docs/resources/x#days X#days} */
        readonly days: number;
    }
"""
CODE = """
class X extends cdktn.TerraformResource {
    get arn() { return this.getStringAttribute('arn'); }
    synthesizeAttributes() {
    }
    synthesizeHclAttributes() {
        full_name: {
            value: cdktn.stringToHclTerraform(this._fullName),
            isBlock: false,
            type: "simple",
            storageClassType: "string",
        },
        rule: {
            value: xRulePropertyToHclTerraform(this._rule.internalValue),
            isBlock: true,
            type: "list",
            storageClassType: "RulePropertyList",
        },
    }
}
function xRulePropertyToHclTerraform(struct) {
        days: {
            value: cdktn.numberToHclTerraform(struct.days),
            isBlock: false,
            type: "simple",
            storageClassType: "number",
        },
}
"""


def test_the_bindings_say_names_types_blocks_and_what_is_required() -> None:
    rule = {"attributes": {"days": "!number"}, "nesting": "list", "min": 0, "max": 1}
    shape = _shape(Source(CODE, DECLARATIONS, nested_attributes=False))
    assert shape == {"attributes": {"full_name": "!string", "arn": "=string"}, "blocks": {"rule": rule}}
    assert "objects" in _shape(Source(CODE, DECLARATIONS, nested_attributes=True))


def test_a_mapper_that_is_not_declared_is_an_error() -> None:
    with pytest.raises(ValueError, match="xRuleProperty: not understood"):
        _shape(Source(CODE, re.sub("xRule", "yRule", DECLARATIONS), nested_attributes=False))


def test_an_explicit_denial_wins_and_what_is_not_understood_is_an_error() -> None:
    allow = {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": ["*"]}
    assert allowed([allow], "s3:GetObject", "x")
    assert not allowed([allow], "s3:PutObject", "x")
    assert not allowed([allow], "s3:GetObject", "x", denials=[{**allow, "Effect": "Deny"}])
    assert not allowed([{**allow, "Effect": "Deny"}], "s3:GetObject", "x")
    with pytest.raises(ValueError, match="not understood"):
        allowed([{"Effect": "Allow", "NotAction": ["x"], "Resource": ["*"]}], "s3:GetObject", "x")
    with pytest.raises(ValueError, match="not understood"):
        allowed([{**allow, "Condition": {"IpAddress": {"aws:SourceIp": "1"}}}], "s3:GetObject", "x")
