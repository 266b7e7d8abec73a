"""Texts that are too long, cut so that no half of a secret is left: no redactor would know it for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_LONGEST: Final = 4096
"""Characters of the longest secret that is looked for, a private key in PEM."""


def redacted_start(text: str, most: int, redact: Callable[[str], str]) -> str:
    """Return the first ``most`` characters of ``text`` as ``redact`` leaves them; fewer where secrets stood.

    Not more of ``text`` is searched than ``most`` characters and the longest secret that may begin within them.
    """
    searched = most + _LONGEST
    if len(text) <= searched:
        return redact(text)[:most]
    # What the end may hold of a secret stands, whole or in part, in the last characters of what was searched.
    return redact(text[:searched])[:-_LONGEST][:most]


def whole_words(text: str, most: int) -> str:
    """Return the words of ``text`` that fit into ``most`` characters, for what is redacted later. None is cut."""
    return text if len(text) <= most else text[: most + 1].rpartition(" ")[0]
