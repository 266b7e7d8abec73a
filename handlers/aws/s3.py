"""Objects that were created, straight from S3, through EventBridge, or through SQS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from handlers.aws.container import Doors, container
from handlers.door import Outcome
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
    records = event.get("Records")
    if (
        isinstance(records, list)
        and records
        and isinstance(records[0], dict)
        and records[0].get("eventSource") == "aws:sqs"
    ):
        return here.run(take_queued(here, records))
    here.run(take(here, created(event)))
    return None


async def take_queued(here: Doors, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Take each message's objects; return those that failed, and may succeed when they are delivered again."""
    failed = []
    for record in records:
        try:
            await take(here, created(record["body"]))
        except Exception as error:  # noqa: BLE001  the queue delivers it again, and buries what is no event at last
            log.warning("to be delivered again", message_id=record["messageId"], error=str(error))
            failed.append(record["messageId"])
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
