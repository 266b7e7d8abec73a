"""The broker on SQS: two queues for each pool, made beforehand, with their own visibility and redrive.

Messages travel as they are, JSON, and none is packed twice. SQS itself returns what a dead worker had in hand, and
keeps what waits, so nothing is restored here. Each call is paid for, so up to ten messages go with one: what many
requests send or delete at about the same time goes together. The client is boto3's, in threads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tasks import keys
from tasks.errors import SettingsError, StoreError
from tasks.stores.broker import Delivery, Depth, Letter, Parcel, envelope
from tasks.stores.company import Company
from tasks.stores.intake import Intake

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")

BATCH: Final = 10
"""Messages in one call, at most."""
BATCH_BYTES: Final = 256 * 1024
"""Bytes of the messages in one call, at most: what a queue takes by default."""
LONG_POLL_SECONDS: Final = 20
"""How long an idle worker waits for a message with one call: the most that SQS knows."""
_SEND_SPACING_SECONDS: Final = 0.02
"""From one call that sends to a queue to the next: what comes meanwhile goes together. Somebody waits for it."""
_DELETE_PATIENCE_SECONDS: Final = 1.0
"""How long what is done waits for company before it is deleted. Nobody waits for it but a worker that drains."""
_THREADS: Final = 8
_POLL_THREADS: Final = 64
"""Long polls at a time: two for each pool of a process."""
_LOOKS: Final = 4
_SHOWN_SECONDS: Final = 60
"""For how long a letter is in the sight of who looks at it alone: SQS shows nothing that it does not hand out."""


class QueueUrls:
    """The URLs of a deployment's queues, by ``sqs://HOST/ACCOUNT/NAME`` (``sqs+http`` for a server of one's own)."""

    endpoint: str | None

    def __init__(self, url: str) -> None:
        """Read ``url``.

        Raises:
            SettingsError: it does not spell a deployment.
        """
        scheme, _, rest = url.partition("://")
        if scheme not in {"sqs", "sqs+http"} or rest.count("/") != 2 or not all(rest.split("/")):
            raise SettingsError(
                "broker_url: must be sqs://HOST/ACCOUNT/NAME, such as sqs://sqs.us-east-1.amazonaws.com/1/x"
            )
        self._base, _, self._name = f"{'https' if scheme == 'sqs' else 'http'}://{rest}".rpartition("/")
        self.endpoint = self._base.rpartition("/")[0]

    def of(self, queue: str) -> str:
        """Return the URL of ``queue``."""
        return f"{self._base}/{keys.sqs_queue(self._name, queue)}"


class GivenUrls(QueueUrls):
    """Queues that are named by their URLs, wherever they are."""

    endpoint = None

    def __init__(self) -> None:
        """There is nothing to read."""

    def of(self, queue: str) -> str:
        """Return the URL, which is the name."""
        return queue


class SqsBroker:
    """See :class:`tasks.stores.broker.Broker`. A tag is the queue and the receipt handle; it dies with its process."""

    batch = BATCH
    buries = True

    def __init__(self, urls: QueueUrls, *, region: str, loop_time: Callable[[], float]) -> None:
        """``loop_time`` gives seconds that never go back."""
        self._urls = urls
        self._region = region
        self._time = loop_time
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sluice-sqs")
        self._poll_threads = ThreadPoolExecutor(_POLL_THREADS, thread_name_prefix="sluice-sqs-poll")
        self._extended: dict[str, float] = {}
        self._bodies: dict[str, str] = {}
        self._visibility: dict[str, int] = {}
        self._intakes: dict[str, Intake] = {}
        self._wakes: dict[str, Callable[[], None]] = {}
        self._sends: dict[str, Company[str]] = {}
        self._deletes: dict[str, Company[str]] = {}

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See the port."""
        by_queue: dict[str, list[str]] = defaultdict(list)
        for parcel in parcels:
            by_queue[parcel.queue].append(envelope(parcel).decode())
        for queue in by_queue.keys() - self._sends.keys():
            send = partial(self._send, queue)
            self._sends[queue] = Company(send, batches, most=BATCH, spacing=_SEND_SPACING_SECONDS)
        await asyncio.gather(*(self._sends[queue].join(bodies) for queue, bodies in by_queue.items()))

    async def receive(self, pool: str, most: int, *, now: float) -> list[Delivery]:
        """See the port. What is not there now is waited for in the background; see :meth:`listen`."""
        taken: list[Delivery] = []
        for queue in keys.queues(pool):
            if len(taken) < most:
                try:
                    taken += await self._intake(pool, queue).take(most - len(taken))
                except StoreError:
                    if not taken:
                        raise
        return taken

    async def listen(self, pool: str, wake: Callable[[], None]) -> None:
        """See the port: ``wake`` is called when a long poll ends, which only :meth:`receive` begins."""
        self._wakes[pool] = wake

    async def acknowledge(self, pool: str, tags: Sequence[str]) -> None:
        """See the port."""
        by_queue: dict[str, list[str]] = defaultdict(list)
        for tag in tags:
            by_queue[tag.partition("\n")[0]].append(tag)
        for queue in by_queue.keys() - self._deletes.keys():
            self._deletes[queue] = Company(self._delete, _in_tens, most=BATCH, patience=_DELETE_PATIENCE_SECONDS)
        await asyncio.gather(*(self._deletes[queue].join(own) for queue, own in by_queue.items()))

    async def give_back(self, pool: str, tags: Sequence[str]) -> None:
        """See the port. It is sent anew: SQS would count it as received once more, and bury it in the end."""
        for tag in tags:
            if tag in self._bodies:
                await self._send(tag.partition("\n")[0], [self._bodies[tag]])
                await self._each([tag], "delete_message_batch", {})

    async def restore(self, pool: str, *, before: float, limit: int) -> int:
        """See the port. SQS does it by itself when a message's visibility timeout is over."""
        return 0

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """See the port. A message is extended when half of its time is over, and not at each heartbeat."""
        due: dict[int, list[str]] = defaultdict(list)
        for tag in tags:
            seconds = await self._visible_for(tag.partition("\n")[0])
            if self._time() - self._extended.get(tag, 0.0) > seconds / 2:
                due[seconds].append(tag)
        for seconds, late in due.items():
            await self._each(late, "change_message_visibility_batch", {"VisibilityTimeout": seconds}, keep=True)

    async def oldest(self, queue: str) -> float | None:
        """See the port. SQS does not tell: while anything is in a queue, nothing of it is taken for lost."""
        return 0.0 if sum(await self._counts(queue)) else None

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """See the port. SQS's figures are approximate."""
        names = [queue for pool in pools for queue in keys.queues(pool)]
        counts = dict(zip(names, await asyncio.gather(*map(self._counts, names)), strict=True))
        return {
            pool: Depth(*(sum(counts[queue][place] for queue in keys.queues(pool)) for place in (0, 1)))
            for pool in pools
        }

    async def length(self, queue: str) -> int:
        """See the port."""
        return (await self._counts(queue))[0]

    async def letters(self, queue: str, most: int, *, skip: int = 0) -> list[Letter]:
        """See the port. What was seen is out of sight, so nothing has to be skipped."""
        found: list[Letter] = []
        patience = _LOOKS if skip == 0 else 0
        while len(found) < most:
            answer = await self._call(
                "receive_message",
                QueueUrl=self._urls.of(queue),
                MaxNumberOfMessages=min(most - len(found), BATCH),
                VisibilityTimeout=_SHOWN_SECONDS,
                MessageAttributeNames=["reason"],
                WaitTimeSeconds=1,  # without waiting SQS asks some of its servers only
            )
            messages = answer.get("Messages", [])
            found += [_letter(queue, message) for message in messages]
            if not messages:
                patience -= 1
                if found or patience <= 0 or not sum(await self._counts(queue)):
                    break  # else somebody else, such as the sweeper, looks at them just now
        return found

    async def leave(self, queue: str, tags: Sequence[str]) -> None:
        """See the port."""
        await self._each(tags, "change_message_visibility_batch", {"VisibilityTimeout": 0})

    async def remove(self, queue: str, tags: Sequence[str]) -> None:
        """See the port."""
        await self._each(tags, "delete_message_batch", {})

    async def close(self) -> None:
        """Give back what came and nobody took; end the threads. A poll that waits is not waited for.

        What SQS hands to such a poll at this very moment is seen again when its visibility ends.
        """
        await asyncio.gather(*(intake.close() for intake in self._intakes.values()))
        for threads in (self._threads, self._poll_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _intake(self, pool: str, queue: str) -> Intake:
        if queue not in self._intakes:
            self._intakes[queue] = Intake(
                partial(self._take, queue),
                partial(self.give_back, pool),
                partial(self._ring, pool),
                batch=BATCH,
                wait_seconds=LONG_POLL_SECONDS,
            )
        return self._intakes[queue]

    def _ring(self, pool: str) -> None:
        if wake := self._wakes.get(pool):
            wake()

    async def _delete(self, tags: Sequence[str]) -> None:
        await self._each(tags, "delete_message_batch", {})

    async def _send(self, queue: str, bodies: Sequence[str]) -> None:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        answer = await self._call("send_message_batch", QueueUrl=self._urls.of(queue), Entries=entries)
        _check(queue, answer)

    async def _take(self, queue: str, most: int, wait: int) -> list[Delivery]:
        answer = await self._call(
            "receive_message",
            self._poll_threads if wait else self._threads,
            QueueUrl=self._urls.of(queue),
            MaxNumberOfMessages=most,
            WaitTimeSeconds=wait,
        )
        taken = []
        for message in answer.get("Messages", []):
            tag = f"{queue}\n{message['ReceiptHandle']}"
            self._extended[tag] = self._time()
            self._bodies[tag] = message["Body"]
            taken.append(Delivery(tag, queue, message["Body"].encode()))
        return taken

    async def _each(self, tags: Sequence[str], verb: str, fields: dict[str, Any], *, keep: bool = False) -> None:
        """Call ``verb`` for the messages ``tags``, ten at a time; forget them unless they are to be kept."""
        by_queue: dict[str, list[str]] = defaultdict(list)
        for tag in tags:
            by_queue[tag.partition("\n")[0]].append(tag)
        for queue, own in by_queue.items():
            for batch in _in_tens(own):
                entries = [
                    {"Id": str(number), "ReceiptHandle": tag.partition("\n")[2], **fields}
                    for number, tag in enumerate(batch)
                ]
                answer = await self._call(verb, QueueUrl=self._urls.of(queue), Entries=entries)
                for tag in batch:
                    if keep:
                        self._extended[tag] = self._time()
                    else:
                        self._extended.pop(tag, None)
                        self._bodies.pop(tag, None)
                _check(queue, answer)

    async def _counts(self, queue: str) -> tuple[int, int]:
        """Return how many messages wait in ``queue``, and how many are delivered and not acknowledged."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "Delayed", "NotVisible")]
        answer = await self._call("get_queue_attributes", QueueUrl=self._urls.of(queue), AttributeNames=names)
        waiting, delayed, running = (int(answer["Attributes"][name]) for name in names)
        return waiting + delayed, running

    async def _visible_for(self, queue: str) -> int:
        """Return the visibility timeout of ``queue`` in seconds: the one that it really has."""
        if queue not in self._visibility:
            answer = await self._call(
                "get_queue_attributes", QueueUrl=self._urls.of(queue), AttributeNames=["VisibilityTimeout"]
            )
            self._visibility[queue] = int(answer["Attributes"]["VisibilityTimeout"])
        return self._visibility[queue]

    async def _call(self, verb: str, threads: ThreadPoolExecutor | None = None, **fields: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        call = partial(getattr(self._client, verb), **fields)
        try:
            answer: dict[str, Any] = await asyncio.get_running_loop().run_in_executor(threads or self._threads, call)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{verb} {fields['QueueUrl']}: {error}") from error
        return answer

    @cached_property
    def _client(self) -> SQSClient:
        import boto3
        from botocore.config import Config

        connections = _THREADS + _POLL_THREADS
        config = Config(max_pool_connections=connections, retries={"mode": "standard", "max_attempts": 4})
        return boto3.client("sqs", region_name=self._region, endpoint_url=self._urls.endpoint, config=config)


def batches(bodies: Iterable[str]) -> list[list[str]]:
    """Return ``bodies`` in order, in groups that one call takes: by count and by bytes."""
    groups: list[list[str]] = []
    size = 0
    for body in bodies:
        length = len(body.encode())
        if not groups or size + length > BATCH_BYTES or len(groups[-1]) == BATCH:
            groups.append([])
            size = 0
        groups[-1].append(body)
        size += length
    return groups


def _letter(queue: str, message: Mapping[str, Any]) -> Letter:
    reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "")
    return Letter(f"{queue}\n{message['ReceiptHandle']}", message["Body"].encode(), reason)


def _in_tens(items: Sequence[T]) -> list[list[T]]:
    rest = iter(items)
    return list(iter(lambda: list(islice(rest, BATCH)), []))


def _check(queue: str, answer: dict[str, Any]) -> None:
    """Raise where some of a batch failed. A receipt that is no longer valid is no fault: the message came back."""
    failed = [one for one in answer.get("Failed", []) if one.get("Code") != "ReceiptHandleIsInvalid"]
    if failed:
        raise StoreError(f"{queue}: {len(failed)} of a batch failed, the first with {failed[0].get('Code')}")
