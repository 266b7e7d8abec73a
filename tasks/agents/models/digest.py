"""Makes short of long, by rule: the telling sentences of a text, the gist of a tool's result."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Final

_SENTENCES: Final = 3
MAX_READ: Final = 16 * 1024
_MAX_SENTENCE: Final = 400

_SENTENCE: Final = re.compile(r"[^\n.!?]+(?:[.!?](?!\s|$)[^\n.!?]*)*[.!?]*")
_WORD: Final = re.compile(r"[^\W\d_]{3,}|\d+")
_COMMON: Final = frozenset(
    """
    the and for are was were has have had with that this from they their its you your our not but can
    will would should could about into over than then them there here what when where which who how why
    all any each more most some such only also very may one two please been being does did just
    """.split()  # noqa: SIM905 - eighty lines otherwise
)
_SHOWN_ROWS: Final = 10


def telling(text: str, count: int = _SENTENCES) -> str:
    """Return the ``count`` sentences of ``text`` whose words it uses most, in their own order."""
    sentences = [found.strip() for found in _SENTENCE.findall(text[:MAX_READ]) if found.strip()]
    if len(sentences) > count:
        words = [[w for w in _WORD.findall(s.lower()) if w not in _COMMON] for s in sentences]
        often = Counter(word for sentence in words for word in sentence)
        # The root of the length: a mean favours stubs, a sum favours the longest.
        scores = [sum(often[w] for w in set(ws)) / (len(ws) ** 0.5 if ws else 1) for ws in words]
        best = sorted(range(len(sentences)), key=lambda index: (-scores[index], index))[:count]
        sentences = [sentences[index] for index in sorted(best)]
    return " ".join(sentence[:_MAX_SENTENCE] for sentence in sentences)


def tell_result(name: str, content: str) -> str:
    """Return what the tool ``name`` gave, JSON or ``Error: …``, as short lines that a person can read."""
    if content.startswith("Error: "):
        return f"{name} failed: {content.removeprefix('Error: ')}"
    try:
        value = json.loads(content)
    except ValueError:
        return f"{name}: {telling(content)}"
    return f"{name}: {_told_value(value)}"


def _told_value(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)[:_MAX_SENTENCE]
    if "column_names" in value:
        return _table(value["column_names"], value.get("rows", []), more=bool(value.get("truncated")))
    parts = (
        f"{key} {inside if isinstance(inside, str) else json.dumps(inside, ensure_ascii=False)}"[:_MAX_SENTENCE]
        for key, inside in value.items()
    )
    return "; ".join(parts)


def _table(names: list[str], rows: list[list[Any]], *, more: bool) -> str:
    shown = [" | ".join("null" if cell is None else str(cell) for cell in row) for row in rows[:_SHOWN_ROWS]]
    count = f"{len(rows)}{' or more' if more else ''} row{'' if len(rows) == 1 and not more else 's'}"
    dots = ["…"] if len(rows) > _SHOWN_ROWS or more else []
    return "\n".join([count, " | ".join(names), *shown, *dots])
