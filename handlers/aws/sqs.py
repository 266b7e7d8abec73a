"""Requests in the messages of SQS queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from handlers.aws.container import Doors, container
from handlers.aws.letters import SqsDeadLetters
from handlers.door import Outcome
from handlers.events.intake import Delivery, take_messages
from handlers.events.sources import tenant_of_queue
from tasks.contracts.request import Request
from tasks.errors import InvalidInput

DOOR: Final = "sqs"


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Accept the requests of a batch; return the messages to be delivered again."""
    here = container()
    records = event.get("Records")
    if not isinstance(records, list):
        raise InvalidInput("event: has no Records: it is not a batch of SQS messages")
    return here.run(take(here, records))


async def take(here: Doors, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Take a batch, which Lambda fills from one queue; see :func:`handlers.events.intake.take_messages`."""

    async def accept(requests: Sequence[Request]) -> list[Outcome]:
        return await here.accept(DOOR, requests)

    letters = SqsDeadLetters(here.settings)
    again: list[str] = []
    for arn, batch in groupby(records, key=itemgetter("eventSourceARN")):
        tenant = tenant_of_queue(here.settings, arn)
        deliveries = [Delivery(record["messageId"], record["body"]) for record in batch]
        again += await take_messages(deliveries, tenant=tenant, accept=accept, dead_letters=letters)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in again]}
