"""Proposes a tool call without a language model, where the text says it outright.

A model of 135 million parameters cannot be trusted to copy a SQL statement or a URL into a tool's argument,
and the extractive responder has no model at all. So where the user's text literally holds a statement or a
URL, and a tool that takes one is offered, that call is made with exactly that text. Nothing is guessed beyond
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

Proposal = tuple[str, dict[str, Any]]
"""A tool's name and the arguments to call it with."""

_FENCE: Final = re.compile(r"```(?:sql)?\s*\n?(.+?)```|`([^`\n]+)`", re.IGNORECASE | re.DOTALL)
_UPPER_START: Final = re.compile(
    r"\b(?:SELECT\b|WITH\s+\w+\s+AS\s*\(|EXPLAIN\s+(?:QUERY\s+PLAN\s+)?SELECT\b|INSERT\s+INTO\b|UPDATE\s+\w+\s+SET\b"
    r"|DELETE\s+FROM\b|(?:DROP|ALTER|CREATE|TRUNCATE)\s+TABLE\b)"
)
# In lower case "select" is also an English word: ask for what only SQL has, a list of names and a table.
_NAME: Final = r"(?:\*|[\w.\"]+(?:\([^()]{0,60}\))?(?:\s+as\s+\w+)?)"
_LOWER_START: Final = re.compile(
    rf"(?:^|[:\n]\s*|(?:run|execute|query|validate|explain|parse|check)\s+(?:this\s+|the\s+)?(?:sql\s+|query\s+)?)"
    rf"(?P<sql>select\s+(?:distinct\s+)?{_NAME}(?:\s*,\s*{_NAME}){{0,30}}\s+from\s+\w)",
    re.IGNORECASE,
)
_IS_SQL: Final = re.compile(
    r"\s*(?:select|with|explain|insert|update|delete|drop|alter|create|truncate)\b", re.IGNORECASE
)
_END: Final = re.compile(
    r";|\n\s*\n|[.?!](?=\s+[A-Z]|\s*$)"
    r"|[,.]?\s+(?:and|then|so|but|please)\s+(?:then\s+|please\s+)?"
    r"(?:tell|show|explain|give|say|let|report|summari[sz]e|list|what|how|me|validate|check|return|send|describe)\b"
)
_URL: Final = re.compile(r"https?://[^\s<>\"'`\\^{}|]+", re.IGNORECASE)
_METHOD: Final = re.compile(r"\b(GET|HEAD|POST|PUT|PATCH|DELETE)\b")
_MODES: Final = (
    ("validate", re.compile(r"\b(?:validate|valid|check|correct)\b", re.IGNORECASE)),
    ("explain", re.compile(r"\b(?:explain|query plan)\b", re.IGNORECASE)),
    ("parse", re.compile(r"\b(?:parse|which tables|which columns)\b", re.IGNORECASE)),
)


def propose(text: str, tools: Sequence[Mapping[str, Any]]) -> Proposal | None:
    """Return the call that ``text`` asks for literally, or ``None``.

    ``tools`` are schemas with ``name`` and ``parameters``: the one with a ``sql`` argument gets a statement,
    the one with a ``url`` argument a URL.
    """
    sql_tool, url_tool = _taking("sql", tools), _taking("url", tools)
    statement = find_sql(text) if sql_tool else None
    if sql_tool and statement:
        return sql_tool["name"], {"sql": statement} | _mode(text.replace(statement, " "), sql_tool)
    url = find_url(text) if url_tool else None
    if url_tool and url:
        return url_tool["name"], {"url": url} | _method(text.replace(url, " "), url_tool)
    return None


def find_sql(text: str) -> str | None:
    """Return the first SQL statement that stands in ``text``, without what follows it."""
    for fenced in _FENCE.finditer(text):
        inside = (fenced.group(1) or fenced.group(2) or "").strip()
        if _IS_SQL.match(inside) and " " in inside:
            return inside.rstrip("; \n")
    upper, lower = _UPPER_START.search(text), _LOWER_START.search(text)
    if upper is None and lower is None:
        return None
    start = upper.start() if upper else lower.start("sql") if lower else 0
    rest = text[start:]
    end = _END.search(rest)
    return _without_closing_quote(rest[: end.start() if end else len(rest)].strip()) or None


def _without_closing_quote(statement: str) -> str:
    """Return ``statement`` without a quote at its end that was opened before it."""
    for quote in "\"'":
        if statement.endswith(quote) and statement.count(quote) % 2:
            return statement[:-1].rstrip()
    return statement


def find_url(text: str) -> str | None:
    """Return the first http or https URL in ``text``, without the punctuation of the sentence around it."""
    found = _URL.search(text)
    if found is None:
        return None
    url = found.group().rstrip(".,;:!?")
    while url.endswith(")") and url.count(")") > url.count("("):
        url = url[:-1]
    return url.rstrip(".,;:!?]")


def _taking(argument: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    for tool in tools:
        if argument in tool.get("parameters", {}).get("required", ()):
            return tool
    return None


def _mode(around: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    if "mode" not in tool["parameters"]["properties"]:
        return {}
    return next(({"mode": mode} for mode, sign in _MODES if sign.search(around)), {})


def _method(around: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    named = _METHOD.search(around)
    return {"method": named.group()} if named and "method" in tool["parameters"]["properties"] else {}
