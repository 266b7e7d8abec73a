"""What Lambda does with an SQS queue, without Lambda: receive, hand to the handler, delete what is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tasks.errors import NotFound, StoreError
from tasks.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = get_logger()

BATCH: Final = 10
WAIT_SECONDS: Final = 20
_FAULT_PAUSE_SECONDS: Final = 1.0

Handle = Callable[[Sequence[Mapping[str, Any]]], Awaitable[dict[str, Any]]]
"""Takes a batch of Lambda's records; returns Lambda's partial batch response."""


class Poller:
    """Feeds ``handle`` from the queue ``name``. ``client`` is boto3's: its variables say which endpoint."""

    def __init__(self, name: str, client: SQSClient, handle: Handle) -> None:
        self._name = name
        self._client = client
        self._handle = handle
        # A thread of its own: a poll that waits must not hold up the end of the process.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sluice-poll-{name}")

    async def run(self) -> None:
        """Take batches until cancelled. What is cut off, or fails, is delivered again.

        Raises:
            NotFound: there is no such queue.
        """
        url = await self._url()
        log.info("polling", queue=self._name)
        try:
            while True:
                try:
                    await self.once(url)
                except StoreError as error:
                    log.warning("cannot poll", queue=self._name, error=str(error))
                    await asyncio.sleep(_FAULT_PAUSE_SECONDS)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def once(self, url: str, *, wait: int = WAIT_SECONDS) -> int:
        """Take one batch, waiting for it; return how many messages are done."""
        answer = await self._call("receive_message", QueueUrl=url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=wait)
        messages = answer.get("Messages", [])
        if not messages:
            return 0
        # The ARN as Lambda gives it, as far as the handlers read it: the queue's name stands last.
        arn = f"arn:aws:sqs:::{self._name}"
        records = [
            {"eventSource": "aws:sqs", "eventSourceARN": arn, "messageId": one["MessageId"], "body": one["Body"]}
            for one in messages
        ]
        failures = (await self._handle(records))["batchItemFailures"]
        again = {item["itemIdentifier"] for item in failures}
        done = [one for one in messages if one["MessageId"] not in again]
        if done:
            entries = [{"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]} for number, one in enumerate(done)]
            await self._call("delete_message_batch", QueueUrl=url, Entries=entries)
        log.info("messages taken", queue=self._name, taken=len(done), again=len(again))
        return len(done)

    async def _url(self) -> str:
        try:
            return str((await self._call("get_queue_url", QueueName=self._name))["QueueUrl"])
        except StoreError as error:
            raise NotFound(f"events.queues: {self._name!r}: {error}") from error

    async def _call(self, verb: str, **fields: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        call = partial(getattr(self._client, verb), **fields)
        try:
            answer: dict[str, Any] = await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{verb} {self._name}: {error}") from error
        return answer
