"""Objects that were created, straight from S3, through EventBridge, or through SQS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from handlers.aws.container import Doors, container
from handlers.door import Outcome
from handlers.events.batch import Taken, is_of_queue, messages_of, records_of
from handlers.events.intake import take_object
from handlers.events.notices import Created, created
from handlers.events.sources import tenant_of_object
from tasks.contracts.request import Request
from tasks.errors import Denied
from tasks.log import get_logger
from tasks.stores.s3 import S3ObjectStore

log = get_logger()

DOOR: Final = "s3"


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any] | None:
    """Accept what the objects ask for. An event that came by SQS is answered with the messages to deliver again."""
    here = container()
    records = records_of(event)
    if is_of_queue(records):
        return here.run(take_queued(here, messages_of(records)))
    here.run(take(here, created(event)))
    return None


async def take_queued(here: Doors, messages: Sequence[Taken]) -> dict[str, Any]:
    """Take each message's objects; return those that failed, and may succeed when they are delivered again."""
    failed = []
    for message in messages:
        try:
            await take(here, created(message.body))
        except Exception as error:  # noqa: BLE001  the queue delivers it again, and buries what is no event at last
            log.warning("to be delivered again", message_id=message.message_id, error=str(error))
            failed.append(message.message_id)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


async def take(here: Doors, objects: Sequence[Created]) -> None:
    """Take ``objects`` one after the other; one of no source is left alone."""

    async def accept(requests: Sequence[Request]) -> list[Outcome]:
        return await here.accept(DOOR, requests)

    for found in objects:
        try:
            tenant = tenant_of_object(here.settings, found)
        except Denied as denied:
            log.warning("left alone", reason=str(denied))
            continue
        opened = await here.door(DOOR)
        bucket = S3ObjectStore(found.bucket, region=here.settings.region, endpoint=here.settings.s3_endpoint)
        await take_object(found, tenant=tenant, bucket=bucket, manifests=opened.stores.data, accept=accept)
