"""Finds the steps that a text itself enumerates: "1. … 2. … 3. Then …". For models that cannot plan."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from tasks.agents.models.propose import find_sql, find_url
from tasks.contracts.plan import MAX_INSTRUCTION, PlanStep
from tasks.contracts.words import Intent
from tasks.settings import Settings

_MARK: Final = re.compile(r"(?:(?<=\s)|\A)\(?(\d{1,2})[.)]\s+(?=\S)")
_ALL_BEFORE: Final = re.compile(
    r"\A(?:finally|lastly)\b"
    r"|\b(?:(?:these|the|those) (?:results|answers|findings|figures)|all of them|the above|both|everything)\b",
    re.IGNORECASE,
)
_ONE_BEFORE: Final = re.compile(
    r"\A(?:(?:and )?then|next|after that|afterwards|with (?:that|this))\b"
    r"|\b(?:the (?:result|answer|outcome)|from that)\b",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(
    r"\b(?:steps?|points?|results? of) \(?(\d{1,2})(?:(?:,? and |, | ?& ?| ?- ?)(\d{1,2}))?", re.IGNORECASE
)


def enumerated(text: str, settings: Settings, agents: Collection[str]) -> tuple[PlanStep, ...]:
    """Return the steps that ``text`` numbers from 1 on without a gap; none where there are fewer than two.

    A step that begins with "then", or names the result, needs the one before; "finally", or "these results", needs all
    before; "step 2" needs that one. A statement or a URL goes to whom ``settings`` route such requests to, anything
    else to who answers questions; none where one of these is not in ``agents``.
    """
    items = _items(text)
    if len(items) < 2 or any(len(item) > MAX_INSTRUCTION for item in items):
        return ()
    steps = tuple(
        PlanStep(
            id=f"s{number}",
            agent=settings.agent_for(_intent(item).value),
            instruction=item,
            depends_on=tuple(f"s{need}" for need in _needs(item, number)),
        )
        for number, item in enumerate(items, 1)
    )
    return steps if all(step.agent in agents for step in steps) else ()


def _items(text: str) -> list[str]:
    """Return the numbered parts of ``text``: 1, 2, 3 and so on in this order; other numbers are part of their text."""
    marks: list[re.Match[str]] = []
    for found in _MARK.finditer(text):
        if int(found.group(1)) == len(marks) + 1:
            marks.append(found)
    if not marks:
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    items = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return items if all(items) else []


def _needs(item: str, number: int) -> list[int]:
    if _ALL_BEFORE.search(item):
        return list(range(1, number))
    named = {int(one) for found in _NAMED.finditer(item) for one in found.groups() if one}
    needs = {one for one in named if 1 <= one < number}
    if _ONE_BEFORE.search(item) and number > 1:
        needs.add(number - 1)
    return sorted(needs)


def _intent(item: str) -> Intent:
    if find_sql(item):
        return Intent.QUERY_DATA
    return Intent.CALL_API if find_url(item) else Intent.ANSWER_QUESTION
