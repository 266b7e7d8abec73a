"""Decides as IAM does, for the parts of it that this project's policies use: whether a call is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

Statement = Mapping[str, Any]
SECURE = {"aws:SecureTransport": "true"}


def allowed(
    statements: Iterable[Statement],
    action: str,
    resource: str,
    *,
    denials: Iterable[Statement] = (),
    context: Mapping[str, str] | None = None,
) -> bool:
    """Return whether a role with ``statements`` may do ``action`` on ``resource``.

    ``denials`` are those of the resource's own policy: an explicit denial anywhere wins.
    """
    known = SECURE | dict(context or {})
    matching = [it["Effect"] for it in (*statements, *denials) if _matches(it, action, resource, known)]
    own = [it["Effect"] for it in statements if _matches(it, action, resource, known)]
    return "Deny" not in matching and "Allow" in own


def _matches(statement: Statement, action: str, resource: str, context: Mapping[str, str]) -> bool:
    if any(key in statement for key in ("NotAction", "NotResource", "NotPrincipal")):
        raise ValueError("not understood: a statement that matches what it does not name")
    return (
        any(fnmatchcase(action.lower(), each.lower()) for each in _list(statement["Action"]))
        and any(fnmatchcase(resource, each) for each in _list(statement["Resource"]))
        and all(_holds(test, wanted, context) for test, wanted in statement.get("Condition", {}).items())
    )


def _holds(test: str, wanted: Mapping[str, Sequence[str] | str], context: Mapping[str, str]) -> bool:
    for variable, values in wanted.items():
        found = context.get(variable)
        if test == "Null":
            if (found is None) is not (_list(values) == ["true"]):
                return False
        elif test in {"StringEquals", "Bool"}:
            if found not in _list(values):
                return False
        elif test in {"ArnEquals", "ArnLike"}:
            if found is None or not any(fnmatchcase(found, value) for value in _list(values)):
                return False
        else:
            raise ValueError(f"not understood: {test}")
    return True


def _list(value: Sequence[str] | str) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
