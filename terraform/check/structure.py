"""Holds each block against the provider's schema: unknown and missing arguments and blocks, nesting, types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from lark import Token, Tree

from terraform.check.evaluate import UNKNOWN, evaluate
from terraform.check.hcl import MODES, Attribute, Block, Finding, Folder, Node, near, only
from terraform.check.schema import Schema, Shape

_META: Final = {"count", "for_each", "provider", "depends_on"}
_META_BLOCKS: Final = {"lifecycle", "provisioner", "connection"}
_LIFECYCLE: Final = {"create_before_destroy", "prevent_destroy", "ignore_changes", "replace_triggered_by"}


def check(folders: Iterable[Folder], schema: Schema) -> Iterator[Finding]:
    """Yield what the schema does not allow."""
    for folder in folders:
        for block in folder.blocks:
            if block.kind in (*MODES, "provider"):
                yield from _against_schema(block, schema)


def _against_schema(block: Block, schema: Schema) -> Iterator[Finding]:
    shape = schema.shape(block.kind, block.labels[0])
    if shape is None:
        yield Finding(
            block.file,
            block.line,
            "unknown-type",
            f"{block.kind} {block.labels[0]} is not in schema.json: misspelt, or new here (make terraform-schema)",
        )
        return
    yield from _body(block, shape, block.address, _META if block.kind != "provider" else {"alias"})


def _body(block: Block, shape: Shape, where: str, meta: set[str]) -> Iterator[Finding]:
    for name, attribute in block.attributes.items():
        if name not in meta:
            yield from _argument(block, attribute, shape, where)
    for inner in block.blocks:
        if inner.kind in _META_BLOCKS and meta == _META:
            yield from (
                Finding(inner.file, it.line, "unknown-argument", f"{where}: lifecycle has no {it.name}")
                for it in inner.attributes.values()
                if it.name not in _LIFECYCLE
            )
            continue
        yield from _inner(block, inner, shape, where)
    yield from _missing(block, shape, where)


def _argument(block: Block, attribute: Attribute, shape: Shape, where: str) -> Iterator[Finding]:
    name, line = attribute.name, attribute.line
    if name in shape.blocks:
        yield Finding(block.file, line, "wrong-nesting", f"{where}: {name} is a block: write {name} {{ … }} without =")
    elif name in shape.objects and not shape.objects[name].computed:
        yield from _object(block, attribute.value, shape.objects[name], f"{where}.{name}")
    elif name not in shape.attributes or name in shape.objects:
        if name in shape.objects:
            yield Finding(block.file, line, "read-only", f"{where}: {name} is set by the provider")
        else:
            meant = near(name, (*shape.attributes, *shape.blocks, *shape.objects))
            yield Finding(block.file, line, "unknown-argument", f"{where} has no argument {name}{meant}")
    elif shape.attributes[name].startswith("="):
        yield Finding(block.file, line, "read-only", f"{where}: {name} is set by the provider")
    elif wrong := _wrong_type(shape.attributes[name].lstrip("!"), attribute.value):
        yield Finding(
            block.file, line, "wrong-type", f"{where}: {name} is a {shape.attributes[name].lstrip('!')}, not {wrong}"
        )


def _wrong_type(kind: str, node: Node) -> str:  # noqa: PLR0911  a case each
    """Return what a literal is where it cannot be what it should be."""
    value, form = evaluate(node), only(node).data
    if kind.startswith(("list", "set")):
        return "a single value" if form in {"string", "int_lit", "float_lit"} else ""
    if kind.startswith("map") or kind == "any":
        return "a list" if form == "tuple" and kind != "any" else ""
    if form in {"tuple", "for_tuple_expr"}:
        return "a list"
    if form == "object":
        return "an object"
    if kind == "number" and isinstance(value, str) and not re.fullmatch(r"-?\d+(\.\d+)?", value):
        return f'"{value}"'
    if kind == "bool" and value is not UNKNOWN and value not in {True, False, None, "true", "false"}:
        return repr(value)
    return ""


def _object(block: Block, node: Node, shape: Shape, where: str) -> Iterator[Finding]:
    """Check an object that is written as an argument, or a list of such."""
    node = only(node)
    if node.data == "tuple":
        for child in node.children:
            if isinstance(child, Tree) and child.data != "new_line_or_comment":
                yield from _object(block, child, shape, where)
        return
    if node.data != "object":
        return
    names = set()
    for element in (child for child in node.children if isinstance(child, Tree) and child.data == "object_elem"):
        key = only(element.children[0])  # type: ignore[arg-type]
        name = "".join(str(token) for token in key.scan_values(_is_text))
        names.add(name)
        if name not in shape.readable:
            meant = near(name, shape.readable)
            yield Finding(block.file, element.meta.line, "unknown-argument", f"{where} has no argument {name}{meant}")
    for name, kind in shape.attributes.items():
        if kind.startswith("!") and name not in names:
            yield Finding(block.file, node.meta.line, "missing-argument", f"{where} needs {name}")


def _is_text(token: Token | Node) -> bool:
    return isinstance(token, Token) and token.type in {"NAME", "STRING_CHARS"}


def _inner(block: Block, inner: Block, shape: Shape, where: str) -> Iterator[Finding]:
    kind = inner.labels[0] if inner.kind == "dynamic" and inner.labels else inner.kind
    if kind not in shape.blocks:
        if kind in shape.readable:
            yield Finding(inner.file, inner.line, "wrong-nesting", f"{where}: {kind} is an argument: write {kind} = …")
        else:
            yield Finding(
                inner.file, inner.line, "unknown-block", f"{where} has no block {kind}{near(kind, shape.blocks)}"
            )
        return
    if inner.kind == "dynamic":
        if "for_each" not in inner.attributes or not list(inner.of("content")):
            yield Finding(
                inner.file, inner.line, "missing-argument", f"{where}: dynamic {kind} needs for_each and content"
            )
        for content in inner.of("content"):
            yield from _body(content, shape.blocks[kind], f"{where}.{kind}", set())
        return
    yield from _body(inner, shape.blocks[kind], f"{where}.{kind}", set())
    written = [other for other in block.blocks if other.kind == kind]
    most = shape.blocks[kind].most
    if most is not None and len(written) > most and inner is written[-1]:
        yield Finding(
            inner.file, inner.line, "too-many-blocks", f"{where} has {len(written)} blocks {kind}; {most} at most"
        )


def _missing(block: Block, shape: Shape, where: str) -> Iterator[Finding]:
    for name, kind in shape.attributes.items():
        if kind.startswith("!") and name not in block.attributes:
            yield Finding(block.file, block.line, "missing-argument", f"{where} needs {name}")
    for name, inner in shape.blocks.items():
        if inner.least and not any(True for _ in block.of(name)):
            yield Finding(block.file, block.line, "missing-block", f"{where} needs a block {name}")
