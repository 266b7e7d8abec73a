"""Dead letters on SQS: the body as it came, and why it is no request, as attributes."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from tasks.errors import StoreError
from tasks.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MOST_REASON: Final = 1024


class SqsDeadLetters:
    """Puts dead letters onto ``events.dead_letters``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def put(self, body: str, *, message_id: str, reason: str) -> None:
        """See :class:`handlers.events.intake.DeadLetters`."""
        url = self._settings.events.dead_letters
        if url is None:
            raise StoreError("events.dead_letters: is not set, so the message comes back until its queue buries it")
        await asyncio.to_thread(self._send, url, body, message_id, reason)

    def _send(self, url: str, body: str, message_id: str, reason: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        told: dict[str, Any] = {
            "reason": {"DataType": "String", "StringValue": reason[:_MOST_REASON]},
            "message_id": {"DataType": "String", "StringValue": message_id},
        }
        try:
            self._client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=told)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"send {url}: {error}") from error

    @cached_property
    def _client(self) -> SQSClient:
        import boto3

        return boto3.client("sqs", region_name=self._settings.region)
