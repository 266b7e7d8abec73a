"""Words and limits that doors and hops share. Light: every process imports this."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, Final

import uuid_utils

from tasks.contracts.base import canonical

MAX_TEXT_BYTES: Final = 1024 * 1024
"""What is longer belongs into an attachment. A body that is too large for its message travels by object storage."""
MAX_ANSWER_BYTES: Final = 32 * 1024
"""What a person answers to an escalation."""
MAX_METADATA_BYTES: Final = 8 * 1024
MAX_ATTACHMENTS: Final = 16
MAX_KEY: Final = 1024
"""Characters of an attachment's key."""
MAX_MODEL: Final = 128
"""Characters of a model's name."""
MAX_CALLBACK: Final = 2048
"""Characters of a callback's URL."""
MAX_TRACEPARENT: Final = 128
"""Characters of a trace's parent."""


def new_id() -> str:
    """Return a fresh UUIDv7: ids sort by the time they were made."""
    return str(uuid_utils.uuid7())


class Intent(StrEnum):
    """What a request asks for: the labels of the model that comes with the package.

    A model of your own may have others; all know ``out_of_scope``.
    """

    PLAN_TASK = "plan_task"
    QUERY_DATA = "query_data"
    CALL_API = "call_api"
    ANSWER_QUESTION = "answer_question"
    SUMMARIZE_TEXT = "summarize_text"
    DRAFT_TEXT = "draft_text"
    TALK_TO_HUMAN = "talk_to_human"
    OUT_OF_SCOPE = "out_of_scope"


class Priority(StrEnum):
    """Which of the two queues of each pool a request takes."""

    NORMAL = "normal"
    HIGH = "high"


def check_text(text: str, *, most: int = MAX_TEXT_BYTES) -> str:
    """Return ``text``; raise :class:`ValueError` if it is blank, not Unicode or over ``most`` bytes."""
    if not text.strip():
        raise ValueError("must not be empty or blank")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode (lone surrogate)") from error
    if size > most:
        raise ValueError(f"is {size} bytes, the limit is {most}: send the rest as an attachment")
    return text


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raise :class:`ValueError` if ``metadata`` is over :data:`MAX_METADATA_BYTES` or holds a number that is none."""
    check_numbers(metadata)
    if len(canonical(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"is over {MAX_METADATA_BYTES} bytes")


def check_numbers(value: Any) -> None:
    """Refuse what JSON can not say, or not everybody can read: two bodies must not look the same."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            check_numbers(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("whole numbers must fit into 64 bits")
