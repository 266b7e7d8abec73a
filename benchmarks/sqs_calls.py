"""What a request costs on SQS: calls of each kind, both hops, door and sweeper included; and what idling costs.

    python -m benchmarks.sqs_calls [--waiting 1,10,1000] [--seconds 0,2] [--concurrency 64] [--json FILE]

Real worker processes on moto's server, which counts (:mod:`benchmarks.sqs_server`), and a sweeper. The requests are
accepted while the workers stand still, so that they wait; then these are let go, until the queues are empty. The model
is an HTTP server that takes ``--seconds`` for each answer. Requests name their intent. Calls are counted, not timed:
moto slows down with thousands of messages, and says nothing about how fast SQS is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
from msgspec import Struct, to_builtins

from benchmarks.cold import servers
from benchmarks.sessions_at_once import AGENTS, Model, Workers, collect, configure, spawned
from handlers.bench.meter import machine
from handlers.cli.common import console, print_table
from handlers.producer import AsyncProducer
from tasks import keys
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect
from tasks.stores.sqs_broker import LONG_POLL_SECONDS

PRICE: Final = 0.40
"""US dollars for a million calls, standard queues, the first 100 thousand million of a month, us-east-1."""
PRICED: Final = "aws.amazon.com/sqs/pricing; here as third parties quoted it in March and June 2026"
FLOOR: Final = 0.6
"""Two hops, each a tenth of a call to send, to receive and to delete."""
MOST: Final = 1.5
SECONDS_A_MONTH: Final = 730 * 3600
KINDS: Final = {
    "SendMessageBatch": "send",
    "ReceiveMessage": "receive",
    "DeleteMessageBatch": "delete",
    "ChangeMessageVisibilityBatch": "extend",
    "GetQueueAttributes": "attributes",
}
REGION: Final = "us-east-1"
GIVE_UP_SECONDS: Final = 600.0


class Row(Struct, frozen=True):
    """One load: ``calls`` by kind, for all its requests."""

    waiting: int
    model_seconds: float
    calls: dict[str, int]
    per_request: float
    billed_per_request: float
    usd_per_million: float
    message_bytes: int
    wall_s: float


class Idle(Struct, frozen=True):
    """What goes on while nothing is asked."""

    what: str
    calls_a_month: int
    usd_a_month: float


class Sqs:
    """The counting server, and a deployment's queues on it."""

    def __init__(self, port: int, settings: Settings) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.broker_url = f"sqs+http://127.0.0.1:{port}/123456789012/bench"
        client = boto3.client("sqs", endpoint_url=self._url, region_name=REGION)
        pools = [queue for pool in settings.pools for queue in keys.queues(pool)]
        for queue in (*pools, keys.DEAD_LETTERS, keys.QUARANTINE):
            visible = {"VisibilityTimeout": str(settings.queue.visibility_seconds)}
            client.create_queue(QueueName=keys.sqs_queue("bench", queue), Attributes=visible)

    def counted(self) -> tuple[Counter[str], Counter[str]]:
        with urllib.request.urlopen(f"{self._url}/-/calls", timeout=10) as answer:
            found = json.load(answer)
        return Counter(found["calls"]), Counter(found["billed"])


async def emptied(stores: Stores) -> int:
    """Wait until nothing waits and nothing runs; return how many calls of this process that took."""
    looks, end = 0, time.monotonic() + GIVE_UP_SECONDS
    while True:
        depths = await stores.broker.depths([keys.INTENT_POOL, AGENTS])
        looks += 4
        if not sum(depth.total for depth in depths.values()):
            return looks
        if time.monotonic() > end:
            raise SystemExit(f"the queues are not empty after {GIVE_UP_SECONDS:g} s: {depths}")
        await asyncio.sleep(0.5)


async def row(waiting: int, seconds: float, producer: AsyncProducer, stores: Stores, sqs: Sqs, workers: Workers) -> Row:
    before, billed_before = sqs.counted()
    workers.send(signal.SIGSTOP)
    stamp = time.time_ns()
    items = [
        {"id": f"{stamp}-{n}", "text": f"What is a message queue, in {n} words?", "intent": "answer_question"}
        for n in range(waiting)
    ]
    ids = await producer.submit_many(items)
    ref = keys.ref("default", ids[0])
    message = await stores.link.call("HGET", keys.row(ref), "message")
    await asyncio.sleep(1.0)  # what is announced in the background
    begun = time.monotonic()
    workers.send(signal.SIGCONT)
    await collect(producer, ids, workers)
    wall = time.monotonic() - begun
    looks = await emptied(stores)
    after, billed = sqs.counted()
    made, paid = after - before, billed - billed_before
    made["GetQueueAttributes"] -= looks
    paid["GetQueueAttributes"] -= looks
    per_request = paid.total() / waiting
    return Row(
        waiting=waiting,
        model_seconds=seconds,
        calls={name: made[action] for action, name in KINDS.items()}
        | {action: count for action, count in made.items() if action not in KINDS},
        per_request=round(made.total() / waiting, 3),
        billed_per_request=round(per_request, 3),
        usd_per_million=round(per_request * PRICE, 2),
        message_bytes=len(message or b""),
        wall_s=round(wall, 1),
    )


async def measure(settings: Settings, sizes: Sequence[int], seconds: float, sqs: Sqs, workers: Workers) -> list[Row]:
    async with connect(settings) as stores, AsyncProducer(settings) as producer:
        await collect(producer, await producer.submit_many([{"text": "Warm up", "intent": "answer_question"}]), workers)
        await emptied(stores)
        return [await row(size, seconds, producer, stores, sqs, workers) for size in sizes]


@contextmanager
def loads(settings: Settings) -> Iterator[Workers]:
    """A worker for each hop, and the sweeper."""
    command = ("handlers.cli.main",)
    with (
        spawned(*command, "worker", "--pool", keys.INTENT_POOL) as intent,
        spawned(*command, "worker", "--pool", AGENTS) as agents,
        spawned(*command, "sweep", "--every"),
    ):
        yield Workers([*intent, *agents])


def idle(settings: Settings) -> list[Idle]:
    """What costs while nothing is asked: computed, as each of it is a clock."""
    queues = 2 * len(settings.pools)

    def every(seconds: float, calls: int, what: str) -> Idle:
        month = round(SECONDS_A_MONTH / seconds * calls)
        return Idle(what, month, round(month / 1e6 * PRICE, 2))

    return [
        every(LONG_POLL_SECONDS, 2, f"an idle worker of one pool: two long polls of {LONG_POLL_SECONDS} s"),
        every(30, 2, "KEDA at one pool at zero, each 30 s, two queues"),
        every(30, queues, f"KEDA at all {len(settings.pools)} pools at zero, each 30 s"),
        every(1, queues, f"KEDA at all {len(settings.pools)} pools at zero, each second"),
        Idle("sweeper, door, pool at zero without KEDA", 0, 0.0),
    ]


def show(rows: Sequence[Row], idling: Sequence[Idle]) -> None:
    names = list(KINDS.values())
    columns = ["waiting", "model, s", *names, "calls a request", "billed", "US$ a million"]
    table = [
        [
            f"{one.waiting:,}",
            f"{one.model_seconds:g}",
            *(f"{one.calls.get(name, 0) / one.waiting:.2f}" for name in names),
            f"{one.per_request:.2f}",
            f"{one.billed_per_request:.2f}",
            f"{one.usd_per_million:.2f}",
        ]
        for one in rows
    ]
    floor = ["floor", "", "0.20", "0.20", "0.20", "0", "0", f"{FLOOR:.2f}", f"{FLOOR:.2f}", f"{FLOOR * PRICE:.2f}"]
    print_table("Calls of SQS for one request", columns, [*table, floor])
    print_table(
        "Idle",
        ["what", "calls a month", "US$ a month"],
        [[one.what, f"{one.calls_a_month:,}", f"{one.usd_a_month:.2f}"] for one in idling],
    )
    console().print(f"US$ {PRICE:.2f} a million calls, each begun 64 KiB one; free million not taken off. {PRICED}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--waiting", default="1,10,1000")
    parser.add_argument("--seconds", default="0,2", help="How long the model takes, one run for each.")
    parser.add_argument("--concurrency", type=int, default=64, help="Requests at a time in the agents' worker.")
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    options = parser.parse_args()
    sizes = [int(size) for size in options.waiting.split(",")]
    rows: list[Row] = []
    for seconds in map(float, options.seconds.split(",")):
        asking = ("benchmarks.model_server", "--seconds", str(seconds))
        with (
            servers(),
            spawned("benchmarks.sqs_server", output=subprocess.PIPE) as (counting,),
            spawned(*asking, output=subprocess.PIPE) as (model,),
        ):
            assert counting.stdout
            assert model.stdout
            port = int(counting.stdout.readline())
            settings = configure(Model(int(model.stdout.readline())), options.concurrency, stream=False)
            sqs = Sqs(port, settings)
            os.environ["SLUICE_BROKER_URL"] = sqs.broker_url
            settings = settings.changed(broker_url=sqs.broker_url)
            with loads(settings) as workers:
                rows += asyncio.run(measure(settings, sizes, seconds, sqs, workers))
            del os.environ["SLUICE_BROKER_URL"]
    idling = idle(settings)
    show(rows, idling)
    if options.json:
        facts: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), **machine()}
        facts |= {"concurrency": options.concurrency, "usd_per_million_calls": PRICE, "price": PRICED, "floor": FLOOR}
        facts |= {"rows": to_builtins(rows), "idle": to_builtins(idling)}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
        console().print(f"written to {options.json}")
    deepest = max(rows, key=lambda one: (one.waiting, -one.model_seconds))
    if deepest.billed_per_request > MOST:
        raise SystemExit(f"{deepest.billed_per_request} calls a request with {deepest.waiting} waiting: over {MOST}")


if __name__ == "__main__":
    main()
