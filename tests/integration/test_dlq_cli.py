"""``sluice dlq`` on a real Redis and object store: what it prints, and its exit codes."""

import asyncio
import json
from typing import Any

import click
import pytest
from click.testing import CliRunner

from handlers.cli.main import cli
from handlers.producer import AsyncProducer
from tasks import keys
from tasks.contracts.base import parse_versioned, utc_now
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo, Status
from tasks.errors import InvalidInput, NotFound
from tasks.finish import EXHAUSTED, unanswered
from tasks.settings import Settings
from tasks.stores.broker import Parcel
from tasks.stores.connect import Stores


def said(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    """What the command prints, and what it returns; errors are raised."""
    done = CliRunner().invoke(cli, ["dlq", *arguments], standalone_mode=False, input=stdin)
    if done.exception:
        raise done.exception
    return done.return_value or 0, done.output


def told(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json")[1])


async def dead(settings: Settings, stores: Stores, tenant: str, *ids: str) -> None:
    """Requests of a tenant that used up their attempts, as the tail leaves them."""
    async with AsyncProducer(settings, tenant=tenant) as producer:
        await producer.submit_many({"id": each, "text": f"What of {each}?"} for each in ids)
    for each in ids:
        ref = keys.ref(tenant, each)
        row = await stores.register.get(ref)
        assert row is not None
        message = parse_versioned(Message, row.message)
        error = ErrorInfo(code=EXHAUSTED, message="5 attempts failed, the last with model: away", attempts=5)
        await stores.results.create(unanswered(message, Status.FAILED, error, attempt="a", now=utc_now()))
        await stores.broker.publish([Parcel(keys.DEAD_LETTERS, ref, row.message, utc_now().timestamp())])
        await stores.register.clear(ref, revision=1, digest=message.digest, now=0, remember=60)


async def off_loop(work: Any, *arguments: str, **options: Any) -> Any:
    """Run a command where no loop runs, as a terminal does."""
    return await asyncio.to_thread(work, *arguments, **options)


async def test_from_the_list_to_the_next_revision(settings: Settings, stores: Stores, tenant: str) -> None:
    await dead(settings, stores, tenant, "a", "b", "c")
    listed = await off_loop(told, "list", "--tenant", tenant, "--reason", "MODEL")
    assert [(one["request_id"], one["attempts"], one["standing"]) for one in listed] == [
        (each, 5, "dead") for each in ("a", "b", "c")
    ]
    _, table = await off_loop(said, "list")
    assert "attempts_exhausted: 5 attempts failed" in table
    [shown] = await off_loop(told, "show", "b", "--tenant", tenant)
    assert (shown["text"], shown["pool"]) == ("What of b?", "intent")
    assert "What of b?" in (await off_loop(said, "show", listed[1]["id"]))[1]

    [would] = await off_loop(told, "redrive", "a", "--dry-run")
    assert (would["done"], would["revision"], await stores.broker.length(keys.DEAD_LETTERS)) == (True, 2, 3)
    code, text = await off_loop(said, "redrive", "a")
    assert (code, "a: opened revision 2" in text) == (0, True)
    row = await stores.register.get(keys.ref(tenant, "a"))
    assert row is not None
    assert (row.revision, row.queue) == (2, "requests")
    done = await off_loop(told, "redrive", "--all", "--tenant", tenant, "--pool", "intent")
    assert sorted(one["request_id"] for one in done) == ["b", "c"]
    assert await off_loop(told, "list", "--tenant", tenant) == []


async def test_what_stays_says_why_and_ends_with_one(settings: Settings, stores: Stores, tenant: str) -> None:
    await dead(settings, stores, tenant, "a")
    await stores.broker.publish([Parcel(keys.DEAD_LETTERS, "x", '{"junk": true}', 1.0)])
    code, text = await off_loop(said, "redrive", "--all")
    assert code == 1
    assert "stays" in text
    assert "no door wrote it" in text
    assert "1 done, 1 stay" in text
    [junk] = await off_loop(told, "list")
    with pytest.raises(InvalidInput, match="no door wrote it"):
        await off_loop(said, "redrive", junk["id"])
    with pytest.raises(NotFound, match="no dead letter nothing"):
        await off_loop(said, "redrive", "nothing")
    with pytest.raises(NotFound, match="no dead letter nothing"):
        await off_loop(said, "show", "nothing")


async def test_dropping_asks_and_is_on_record(settings: Settings, stores: Stores, tenant: str) -> None:
    await dead(settings, stores, tenant, "a", "b")
    with pytest.raises(click.exceptions.Abort):
        await off_loop(said, "drop", "--all", stdin="n\n")
    assert await stores.broker.length(keys.DEAD_LETTERS) == 2
    code, text = await off_loop(said, "drop", "a", stdin="y\n")
    assert (code, "Drop 1 dead letters for good?" in text, "a: dropped" in text) == (0, True, True)
    [dropped] = await off_loop(told, "drop", "--all", "--tenant", tenant, "--yes")
    assert (dropped["request_id"], len(dropped["sha256"])) == ("b", 64)
    assert await stores.broker.length(keys.DEAD_LETTERS) == 0
    assert (await stores.results.get(tenant, "a")) is not None


@pytest.mark.parametrize(
    "arguments", [["redrive"], ["redrive", "a", "--all"], ["drop"], ["drop", "--all", "--json"], ["list", "--box", "x"]]
)
def test_what_is_not_said_clearly_is_an_error_of_usage(environment: dict[str, str], arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, ["dlq", *arguments])
    assert done.exit_code == 2
