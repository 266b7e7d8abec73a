"""``sluice demo``: the main job, from nothing to results and back to zero workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of, teller
from tasks import keys
from tasks.contracts.result import Result, Status, Step
from tasks.errors import ResultTimeout
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.stores.board import Board

REQUESTS: Final = (
    (
        "Lay out a roadmap for the customer survey and work through its steps: 1. Count whom we ask: SELECT COUNT(*) "
        "AS customers FROM customers 2. Draft one question about delivery. 3. Finally put both into a two-week plan."
    ),
    "I need a two-week schedule for onboarding three new support engineers.",
    "Put together a roadmap that takes our mobile app from beta to its public launch.",
    "Run this for me: SELECT city, COUNT(*) AS customers FROM customers GROUP BY city ORDER BY customers DESC",
    "Is this statement valid? SELECT name, price FROM products WHERE price > 20 ORDER BY price",
    "How many orders have we shipped, for how much? SELECT COUNT(*), SUM(total) FROM orders WHERE status = 'shipped'",
    "Please fetch http://{s3}/status and tell me what it answers.",
    "What is the difference between a queue and a topic in messaging systems?",
    "How does a vaccine teach the body to recognise a virus?",
    "Summarise: The committee met on Tuesday. It approved the budget of two million. Two members voted against it.",
    "Write a friendly e-mail that tells our customers about Saturday's maintenance window.",
    "I have written four times and nobody helps me. I want to speak to a real person now.",
    "Your delivery broke my door and I demand that a manager calls me back.",
    "asdf qwer zxcv 1234",
)
"""What is to be looked up names its statement or its address: the embedded model is too small to write one, and takes
longer to fail at it than for three answers."""

_WAIT_SECONDS: Final = 600.0
_IDLE_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.25


@click.command()
@click.option("--keep", is_flag=True, help="Leave the stack running afterwards.")
@json_option
@click.pass_context
def demo(ctx: click.Context, *, keep: bool, as_json: bool) -> int:
    """Start the stack, submit requests for every agent type, watch workers rise from zero and fall back to it."""
    from scaling.stack import Stack
    from tasks.settings_load import home

    begun = time.perf_counter()
    tell = teller(quiet=as_json)
    stack = Stack(home(), settings_of(ctx))
    was_running = bool(stack.running())
    tell("starting the stack" if not was_running else "the stack runs already")
    stack.up(tell, reach_s3=True)
    try:
        settings = settings_of(ctx)
        results, pools = run(_main_job(settings, tell))
    finally:
        if not (keep or was_running):
            stack.down(purge=False, tell=tell)
    good = sum(found.status in {Status.SUCCEEDED, Status.ESCALATED} for found in results)
    if as_json:
        print_json(
            {
                "requests": len(results),
                "succeeded": good,
                "results": [found.to_dict() for found in results],
                "pools": pools,
            }
        )
    else:
        _show(results, pools, settings, seconds=time.perf_counter() - begun, keep=keep or was_running)
    all_gone = all(pool["final"] == 0 for pool in pools.values())
    return 0 if good == len(results) and all_gone else 1


async def _main_job(settings: Settings, tell: Callable[[str], None]) -> tuple[list[Result], dict[str, dict[str, int]]]:
    from handlers.producer import AsyncProducer
    from tasks.stores.connect import connect

    pools = {name: {"peak": 0, "final": 0} for name in settings.pools}
    async with AsyncProducer(settings) as producer, connect(settings) as stores:
        watching = asyncio.create_task(_watch(stores.board, pools, tell))
        try:
            ids = await producer.submit_many(_texts(settings))
            tell(f"{len(ids)} requests accepted")
            found = {}
            async for result in producer.results(ids, _WAIT_SECONDS):
                found[result.request_id] = result
                agent = result.agent.type if result.agent else "nobody"
                seconds = result.timings.latency_seconds
                tell(f"{len(found):2}/{len(ids)} {result.status.value} by {agent} in {seconds:.1f} s")
            tell("all done; waiting for the workers to go away")
            await _until_idle(pools)
        finally:
            watching.cancel()
    return [found[request_id] for request_id in ids], pools


def _texts(settings: Settings) -> list[str]:
    host = (settings.s3_endpoint or "localhost").partition("://")[2]
    return [text.replace("{s3}", host) for text in REQUESTS]


async def _watch(board: Board, pools: dict[str, dict[str, int]], tell: Callable[[str], None]) -> None:
    """Follow the number of worker processes of each pool, as the autoscaler counts them."""
    before: dict[str, int] = {}
    while True:
        for name, seen in (await board.pools()).items():
            if name in pools:
                pools[name]["final"] = seen["workers"]
                pools[name]["peak"] = max(pools[name]["peak"], seen["workers"])
        now = {name: pool["final"] for name, pool in pools.items()}
        if now != before:
            tell("workers: " + ", ".join(f"{name} {count}" for name, count in now.items()))
            before = now
        await asyncio.sleep(_LOOK_SECONDS)


async def _until_idle(pools: dict[str, dict[str, int]]) -> None:
    end = time.monotonic() + _IDLE_SECONDS
    while any(pool["final"] for pool in pools.values()):
        if time.monotonic() > end:
            left = ", ".join(name for name, pool in pools.items() if pool["final"])
            raise ResultTimeout(f"workers did not go away within {_IDLE_SECONDS:g} s: {left}")
        await asyncio.sleep(_LOOK_SECONDS)


def _show(
    results: list[Result], pools: dict[str, dict[str, int]], settings: Settings, *, seconds: float, keep: bool
) -> None:
    print_table(
        "Requests",
        ("request", "intent", "confidence", "agent", "answered by", "status", "latency s", "result"),
        [
            (
                text if len(text) <= 36 else f"{text[:33]}...",
                found.intent.label if found.intent else "-",
                f"{found.intent.confidence:.2f}" if found.intent else "-",
                found.agent.type if found.agent else "-",
                found.agent.model if found.agent else "-",
                found.status.value,
                f"{found.timings.latency_seconds:.2f}",
                keys.result(found.tenant, found.request_id, found.revision),
            )
            for text, found in zip(_texts(settings), results, strict=True)
        ],
    )
    for found in results:
        if planned := [step for step in found.steps if step.agent]:
            print_table(
                f"Steps of {found.request_id} (`sluice trace` draws them while they run)",
                ("step", "agent", "status", "after", "seconds"),
                [_step_row(step) for step in planned],
            )
    print_table(
        "Workers",
        ("pool", "from", "peak", "final"),
        [(name, 0, p["peak"], p["final"]) for name, p in pools.items()],
    )
    where = f"s3://{settings.data_bucket} and s3://{settings.audit_bucket} at {settings.s3_endpoint}"
    click.echo(f"Results and audit: {where}" + ("" if keep else " (stopped; `sluice up` brings it back with its data)"))
    click.echo(f"The demo took {seconds:.1f} s")


def _step_row(step: Step) -> tuple[str, ...]:
    agent = step.agent.type if step.agent else "-"
    status = step.status.value if step.status else "-"
    took = f"{step.milliseconds / 1000:.2f}" if step.milliseconds is not None else "-"
    return step.name, agent, status, ", ".join(step.depends_on or ()), took
