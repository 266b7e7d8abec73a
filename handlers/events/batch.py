"""The messages of a queue as Lambda hands them over. What is no batch of SQS is said so, before anything is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tasks.errors import InvalidInput

SQS: Final = "aws:sqs"


class Taken(NamedTuple):
    """One message: its id, the ARN of the queue that it came from, and its body."""

    message_id: str
    arn: str
    body: str


def records_of(event: Any) -> Sequence[Any]:
    """Return the records of an event, none where it has none.

    Raises:
        InvalidInput: it is no event.
    """
    if not isinstance(event, Mapping):
        raise InvalidInput("event: must be an object")
    records = event.get("Records", [])
    if not isinstance(records, list):
        raise InvalidInput("Records: must be a list")
    return records


def is_of_queue(records: Sequence[Any]) -> bool:
    """Tell whether these are messages of a queue."""
    return any(isinstance(record, Mapping) and record.get("eventSource") == SQS for record in records)


def messages_of(records: Sequence[Any]) -> list[Taken]:
    """Return the messages in ``records``.

    Raises:
        InvalidInput: one is no message of SQS; then the whole batch comes again.
    """
    return [
        Taken(*(_text(record, f"Records.{number}", name) for name in ("messageId", "eventSourceARN", "body")))
        for number, record in enumerate(records)
    ]


def _text(record: Any, where: str, name: str) -> str:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, str):
        raise InvalidInput(f"{where}.{name}: is missing: this is no batch of SQS messages")
    return value
