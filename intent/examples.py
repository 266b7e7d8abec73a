"""Labelled texts: read strictly, split fairly."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from tasks.contracts.base import LABEL_CHARACTERS, canonical, sha256
from tasks.contracts.strict import explain
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput

_MAX_TEXT_BYTES: Final = 32 * 1024


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty or blank")
    if len(text.encode()) > _MAX_TEXT_BYTES:
        raise ValueError(f"must be at most {_MAX_TEXT_BYTES} bytes")
    return text


def _check_intent(name: str) -> str:
    if not re.fullmatch(LABEL_CHARACTERS, name):
        raise ValueError(f"{name!r} is not a label: lower-case letters, digits and _, up to 64, a letter first")
    return name


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OUT_OF_SCOPE: Final = Intent.OUT_OF_SCOPE.value
"""The label of what no agent can do. A model may do without; then only its threshold abstains."""


@validated(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class _Line:
    text: Annotated[str, AfterValidator(_check_text)]
    intent: Annotated[str, AfterValidator(_check_intent)]


_LINE: Final = TypeAdapter(_Line)


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the intent that it has."""

    text: str
    intent: str


def read_examples(path: Path, labels: Collection[str] = ()) -> list[Example]:
    """Read JSON lines of ``{"text": ..., "intent": ...}``, UTF-8; blank lines are skipped.

    With ``labels`` an intent must be one of them.

    Raises:
        InvalidInput: names the file, the line and the field; also when a text has two different labels, when
            there is no line at all, and when the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from error
    examples: list[Example] = []
    seen: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        example = _parse(f"{path}:{number}", line)
        if labels and example.intent not in labels:
            raise InvalidInput(f"{path}:{number}: intent: {example.intent!r} is none of {', '.join(labels)}")
        first, label = seen.setdefault(_key(example.text), (number, example.intent))
        if label != example.intent:
            raise InvalidInput(
                f"{path}:{number}: intent: is {example.intent}, but line {first} labels the same text {label}"
            )
        examples.append(example)
    if not examples:
        raise InvalidInput(f"{path}: holds no examples")
    return examples


def distinct(examples: Iterable[Example]) -> list[Example]:
    """Return ``examples`` without repeated texts (case and spacing aside), the first of each in its place."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(_key(example.text), example)
    return list(first.values())


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Return ``(rest, held out)``: of every intent, ``share`` (0..1, at least one example) is held out.

    The same examples and seed give the same split, in whatever order the examples come.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: (example.intent, example.text)):
        groups[example.intent].append(example)
    shuffler = random.Random(seed)  # noqa: S311  (a split, not a secret)
    rest: list[Example] = []
    held: list[Example] = []
    for intent in sorted(groups):
        group = groups[intent]
        shuffler.shuffle(group)
        count = max(1, round(share * len(group)))
        held += group[:count]
        rest += group[count:]
    return rest, held


def numbers(examples: Sequence[Example], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return each example's place in ``labels``, int64 ``[len(examples)]``."""
    import numpy as np

    places = {label: place for place, label in enumerate(labels)}
    return np.array([places[example.intent] for example in examples], dtype=np.int64)


def digest(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of ``examples``: another text, label or order gives another one."""
    return sha256(canonical([[example.text, example.intent] for example in examples]))


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _parse(where: str, line: bytes) -> Example:
    try:
        parsed = _LINE.validate_json(line)
    except ValidationError as error:
        raise InvalidInput(f"{where}: {explain(error)}") from error
    return Example(parsed.text, parsed.intent)
