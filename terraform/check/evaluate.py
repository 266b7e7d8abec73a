"""Computes the few expressions that rules ask about: literals, arithmetic, given names. All else is UNKNOWN."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from lark import Token, Tree

from terraform.check.hcl import Node, only, references, word

UNKNOWN: Final = object()
"""Not to be told from the text alone."""

_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "&&": lambda one, two: one and two,
    "||": lambda one, two: one or two,
}
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "tostring": str,
}


def evaluate(node: Node, names: Mapping[str, Any] | None = None) -> Any:  # noqa: C901, PLR0911  a case each
    """Return the value of an expression; ``names`` are references with dots, as ``each.value``. Or :data:`UNKNOWN`."""
    known = names or {}
    node = only(node)
    inner = [child for child in node.children if isinstance(child, Tree) and child.data != "new_line_or_comment"]
    match node.data:
        case "expr_term" if len(inner) == 1:  # in parentheses
            return evaluate(inner[0], known)
        case "int_lit" | "float_lit":
            return float(word(node)) if "." in word(node) else int(word(node))
        case "literal_value":
            return {"true": True, "false": False, "null": None}[word(node)]
        case "string":
            return UNKNOWN if any(True for _ in node.find_data("interpolation")) else word(node)
        case "tuple":
            items = [evaluate(child, known) for child in inner]
            return UNKNOWN if UNKNOWN in items else items
        case "get_attr_expr_term":
            found = list(references(node))
            return known.get(".".join(found[0].path), UNKNOWN) if len(found) == 1 else UNKNOWN
        case "conditional":
            condition, yes, no = (evaluate(child, known) for child in inner)
            return UNKNOWN if condition is UNKNOWN else yes if condition else no
        case "unary_op":
            value = evaluate(inner[0], known)
            return UNKNOWN if value is UNKNOWN else not value if str(node.children[0]) == "!" else -value
        case "binary_op":
            return _binary(inner, known)
        case "function_call":
            return _call(inner, known)
        case _:
            return UNKNOWN


def _binary(inner: list[Node], known: Mapping[str, Any]) -> Any:
    left = evaluate(inner[0], known)
    sign, operand = [
        child for child in inner[1].children if isinstance(child, Tree) and child.data != "new_line_or_comment"
    ]
    right = evaluate(operand, known)
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    try:
        return _OPERATORS[word(sign)](left, right)
    except (TypeError, ZeroDivisionError):
        return UNKNOWN


def _call(inner: list[Node], known: Mapping[str, Any]) -> Any:
    function = _FUNCTIONS.get(word(inner[0]))
    given = [child for child in inner[-1].children if isinstance(child, Tree) and child.data != "new_line_or_comment"]
    values = [evaluate(child, known) for child in given] if len(inner) > 1 else []
    spread = any(isinstance(child, Token) and child.type == "ELLIPSIS" for child in inner[-1].children)
    if function is None or UNKNOWN in values or not values or spread:
        return UNKNOWN
    return function(*values)
