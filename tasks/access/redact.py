"""The one redactor. It is applied where a record is born, before anything else sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

REDACTED: Final = "[redacted]"

# 14 to 16 digits that begin as cards do: clocks in milli-, micro- and nanoseconds do not look like that.
_CARD: Final = re.compile(
    r"(?<![\w-])(?:[3-6]\d{13,15}|[3-6]\d{3}([ -])\d{4}\1\d{4}\1\d{2,4}|3\d{3}([ -])\d{6}\2\d{5})(?![\w-])"
)
_TOKENS: Final = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{20,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
)
_SHORTEST: Final = 14
"""Characters that a token or a card number has at least."""


class Redactor:
    """Replaces the values of sensitive fields, and what looks like a secret or a card number, in any JSON value."""

    def __init__(self, fields: Iterable[str]) -> None:
        names = "|".join(re.escape(name).replace("_", "[ _-]?") for name in fields)
        self._field = re.compile(rf"(?:^|[^a-z]|_)(?:{names})s?(?:$|[^a-z])", re.IGNORECASE) if names else None
        self._assigned = (
            re.compile(
                rf"(\b(?:\w*[_-])?(?:{names})s?\b\\?[\"']?\s*[:=]\s*)"
                r"(\\\"(?:[^\"\\]|\\[^\"])*\\\"|\"(?:[^\"\\]|\\.)*\"|'[^']*'|(?:(?:bearer|basic|digest)\s+)?[^\s,;&]+)",
                re.IGNORECASE,
            )
            if names
            else None
        )

    def value(self, value: Any) -> Any:
        """Return ``value`` (any JSON value) with every secret replaced."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int) and not isinstance(value, bool) and _CARD.fullmatch(str(value)):
            return self.text(str(value)) if _luhn(str(value)) else value
        if isinstance(value, dict):
            return {
                self.text(str(k)): REDACTED if self._is_sensitive(str(k)) else self.value(v) for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def text(self, text: str) -> str:
        """Return ``text`` with everything that looks like a secret replaced."""
        if self._assigned and (":" in text or "=" in text):
            text = self._assigned.sub(rf"\1{REDACTED}", text)
        if len(text) < _SHORTEST:
            return text
        text = _TOKENS.sub(REDACTED, text)
        return _CARD.sub(lambda match: REDACTED if _luhn(match[0]) else match[0], text)

    def _is_sensitive(self, name: str) -> bool:
        return bool(self._field and self._field.search(name))


def _luhn(number: str) -> bool:
    digits = [int(char) for char in number if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
