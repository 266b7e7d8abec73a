"""What people do to a sentence on its way to a keyboard: training shows each text in such guises."""

from __future__ import annotations

import random
from typing import Final

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_SHORTEST: Final = 4
"""Characters of a word that may be mistyped: a slip in a shorter one makes another word of it."""


def disguise(text: str, chance: random.Random, *, bare_share: float, typo_share: float) -> str:
    """Return ``text`` as somebody might have typed it: the shares (0..1) are how often bare, how often with slips."""
    if chance.random() < bare_share:
        text = bare(text)
    if chance.random() < typo_share:
        text = mistyped(text, chance)
    return text


def bare(text: str) -> str:
    """Return ``text`` without capitals and closing punctuation; a text of punctuation alone stays."""
    return text.lower().rstrip(".?! ") or text


def mistyped(text: str, chance: random.Random) -> str:
    """Return ``text`` with a slip of the finger in about every eighth word, at least one if it can be."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(word) >= _SHORTEST]
    for place in chance.sample(places, min(len(places), 1 + len(words) // 8)):
        words[place] = _slip(words[place], chance)
    return " ".join(words)


def _slip(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word) - 1)
    before, here, after, rest = word[:at], word[at], word[at + 1], word[at + 2 :]
    kind = chance.randrange(4)
    if kind == 0:
        return f"{before}{after}{here}{rest}"
    if kind == 1:
        return f"{before}{after}{rest}"
    if kind == 2:
        return f"{before}{here}{here}{after}{rest}"
    return f"{before}{chance.choice(_LETTERS)}{after}{rest}"
