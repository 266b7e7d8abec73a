"""Requests in the messages of SQS queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from handlers.aws.container import Doors, container
from handlers.aws.letters import SqsDeadLetters
from handlers.door import Outcome
from handlers.events.batch import Taken, messages_of, records_of
from handlers.events.intake import Delivery, take_messages
from handlers.events.sources import tenant_of_queue
from tasks.contracts.request import Request
from tasks.errors import InvalidInput

DOOR: Final = "sqs"


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Accept the requests of a batch; return the messages to be delivered again."""
    here = container()
    records = records_of(event)
    if not records:
        raise InvalidInput("event: has no Records: it is not a batch of SQS messages")
    return here.run(take(here, messages_of(records)))


async def take(here: Doors, messages: Sequence[Taken]) -> dict[str, Any]:
    """Take a batch, which Lambda fills from one queue; see :func:`handlers.events.intake.take_messages`."""

    async def accept(requests: Sequence[Request]) -> list[Outcome]:
        return await here.accept(DOOR, requests)

    letters = SqsDeadLetters(here.settings)
    again: list[str] = []
    for arn, batch in groupby(messages, key=attrgetter("arn")):
        tenant = tenant_of_queue(here.settings, arn)
        deliveries = [Delivery(message.message_id, message.body) for message in batch]
        again += await take_messages(deliveries, tenant=tenant, accept=accept, dead_letters=letters)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in again]}
