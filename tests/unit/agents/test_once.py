"""Calls that must not happen twice: begun durably, made once, answered from the journal on a retry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import keys
from tasks.agents.tools.base import Effect
from tasks.agents.tools.once import Once
from tasks.contracts.journal import CallOutcome, JournalKey, Scope, spelt
from tasks.errors import AlreadyExists, CallInDoubt, StoreError, ToolError, ToolFailed, ToolUncertain
from tasks.stores.journal import JournalStore
from tasks.stores.objects import MemoryObjectStore
from tests.support.world import Died, FlakyStore

SCOPE = Scope("acme", "r1", 2, "pay")


class Receiver:
    """What is called: remembers the keys, and does what a test tells it."""

    def __init__(self, *ends: Exception | BaseException | str) -> None:
        self.keys: list[str] = []
        self._ends = list(ends)

    async def __call__(self, key: str) -> str:
        self.keys.append(key)
        end = self._ends.pop(0) if self._ends else f"done {len(self.keys)}"
        if isinstance(end, BaseException):
            raise end
        return end


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture
def attempt(store: MemoryObjectStore) -> Callable[[], Once]:
    """A new attempt at the same step, in a new process."""
    return lambda: Once(JournalStore(store), SCOPE)


async def test_a_finished_call_is_answered_from_the_journal(attempt: Callable[[], Once]) -> None:
    receiver = Receiver()
    first = await attempt().call("pay", "d", Effect.ONCE, receiver)
    again = await attempt().call("pay", "d", Effect.ONCE, receiver)
    assert (first.text, first.replayed, again.text, again.replayed) == ("done 1", False, "done 1", True)
    assert receiver.keys == [JournalKey(SCOPE, "pay", "d", 1).idempotency_key]


async def test_the_beginning_is_durable_before_the_call(store: MemoryObjectStore, attempt: Callable[[], Once]) -> None:
    async def make(key: str) -> str:
        assert list(store.objects) == ["journal/acme/r1.r2~pay/pay~d~0001.begun.json"]
        return "done"

    await attempt().call("pay", "d", Effect.ONCE, make)
    assert list(store.objects)[1] == "journal/acme/r1.r2~pay/pay~d~0001.done.json"


async def test_a_call_that_was_begun_and_not_ended_is_never_repeated(attempt: Callable[[], Once]) -> None:
    receiver = Receiver(Died("killed"))
    with pytest.raises(Died):
        await attempt().call("pay", "d", Effect.ONCE, receiver)
    for digest in ("d", "in other words"):
        with pytest.raises(CallInDoubt, match="pay"):
            await attempt().call("pay", digest, Effect.ONCE, receiver)
    assert len(receiver.keys) == 1


async def test_what_is_declared_idempotent_is_repeated_under_the_same_key(
    store: MemoryObjectStore, attempt: Callable[[], Once]
) -> None:
    receiver = Receiver(Died("killed"))
    with pytest.raises(Died):
        await attempt().call("put", "d", Effect.IDEMPOTENT, receiver)
    assert not store.objects
    assert (await attempt().call("put", "d", Effect.IDEMPOTENT, receiver)).text == "done 2"
    assert (await attempt().call("put", "d", Effect.IDEMPOTENT, receiver)).replayed
    assert len(receiver.keys) == 2
    assert len(set(receiver.keys)) == 1


async def test_what_only_reads_pays_nothing() -> None:
    store = FlakyStore()
    store.fail = StoreError("away")
    made = await Once(JournalStore(store), SCOPE).call("get", "d", Effect.READ, Receiver())
    assert made.text == "done 1"
    assert not store.writes


async def test_the_same_call_twice_on_purpose_is_two_calls_also_on_a_retry(attempt: Callable[[], Once]) -> None:
    receiver = Receiver()
    for _ in range(2):
        once = attempt()
        texts = [(await once.call("pay", "d", Effect.ONCE, receiver)).text for _ in range(2)]
        assert texts == ["done 1", "done 2"]
    assert len(set(receiver.keys)) == 2


async def test_calls_at_the_same_time_are_each_made_once(attempt: Callable[[], Once]) -> None:
    receiver, once = Receiver(), attempt()
    await asyncio.gather(*(once.call("pay", "d", Effect.ONCE, receiver) for _ in range(3)))
    assert len(set(receiver.keys)) == 3


async def test_a_call_that_did_nothing_is_made_anew_on_a_retry(attempt: Callable[[], Once]) -> None:
    receiver = Receiver(ToolError("no connection"))
    with pytest.raises(ToolError, match="no connection"):
        await attempt().call("pay", "d", Effect.ONCE, receiver)
    made = await attempt().call("pay", "d", Effect.ONCE, receiver)
    assert (made.text, made.replayed) == ("done 2", False)


async def test_a_call_that_answered_that_it_failed_is_not_made_anew(attempt: Callable[[], Once]) -> None:
    receiver = Receiver(ToolFailed("no money"))
    for _ in range(2):
        with pytest.raises(ToolFailed, match="no money"):
            await attempt().call("pay", "d", Effect.ONCE, receiver)
    assert len(receiver.keys) == 1


@pytest.mark.parametrize("end", [ToolUncertain("no answer"), ValueError("bug"), asyncio.CancelledError()])
async def test_after_an_unknown_end_nothing_that_must_not_be_repeated_is_called(
    end: BaseException, attempt: Callable[[], Once]
) -> None:
    receiver, once = Receiver(end), attempt()
    with pytest.raises(type(end)):
        await once.call("pay", "d", Effect.ONCE, receiver)
    for again in (once, attempt()):
        with pytest.raises(CallInDoubt):
            await again.call("pay", "d", Effect.ONCE, receiver)
        with pytest.raises(CallInDoubt):
            await again.call("ship", "other", Effect.ONCE, receiver)
        assert (await again.call("get", "x", Effect.READ, receiver)).text
    assert len([key for key in receiver.keys if key]) == 1


async def test_of_two_attempts_at_once_one_makes_the_call(attempt: Callable[[], Once]) -> None:
    """One was paused and came back: neither knew of the other when it began."""
    receiver, slow = Receiver(), asyncio.Event()

    async def make(key: str) -> str:
        await slow.wait()
        return await receiver(key)

    one, two = attempt(), attempt()
    await two._read(two._journal)  # type: ignore[arg-type]
    first = asyncio.ensure_future(one.call("pay", "d", Effect.ONCE, make))
    await asyncio.sleep(0.01)
    with pytest.raises(CallInDoubt):
        await two.call("pay", "d", Effect.ONCE, make)
    slow.set()
    assert (await first).text == "done 1"
    assert len(receiver.keys) == 1


async def test_a_journal_that_is_away_keeps_the_call_from_being_made() -> None:
    store, receiver = FlakyStore(), Receiver()
    store.fail = StoreError("away")
    with pytest.raises(StoreError):
        await Once(JournalStore(store), SCOPE).call("pay", "d", Effect.ONCE, receiver)
    assert not receiver.keys


async def test_an_end_that_cannot_be_written_costs_this_attempt_nothing_and_the_next_one_does_not_repeat() -> None:
    store, receiver = FlakyStore(), Receiver()

    async def make(key: str) -> str:
        store.fail = StoreError("away")
        return await receiver(key)

    once = Once(JournalStore(store), SCOPE)
    assert (await once.call("pay", "d", Effect.ONCE, make)).text == "done 1"
    store.fail = None
    with pytest.raises(CallInDoubt):
        await Once(JournalStore(store), SCOPE).call("pay", "d", Effect.ONCE, make)
    assert len(receiver.keys) == 1


class Retrying(MemoryObjectStore):
    """A write arrives, its answer does not, and the client tries again."""

    async def create(self, key: str, data: bytes) -> None:
        await super().create(key, data)
        raise AlreadyExists(key)


async def test_a_write_of_ours_that_was_retried_is_ours() -> None:
    made = await Once(JournalStore(Retrying()), SCOPE).call("pay", "d", Effect.ONCE, Receiver())
    assert made.text == "done 1"


def test_keys_differ_by_every_part() -> None:
    base = JournalKey(SCOPE, "pay", "d", 1)
    others = [
        JournalKey(Scope("acme2", "r1", 2, "pay"), "pay", "d", 1),
        JournalKey(Scope("acme", "r2", 2, "pay"), "pay", "d", 1),
        JournalKey(Scope("acme", "r1", 3, "pay"), "pay", "d", 1),
        JournalKey(Scope("acme", "r1", 2, "p"), "pay", "d", 1),
        JournalKey(SCOPE, "ay", "d", 1),
        JournalKey(SCOPE, "pay", "e", 1),
        JournalKey(SCOPE, "pay", "d", 2),
    ]
    assert len({key.idempotency_key for key in (base, *others)}) == 8
    assert len(base.idempotency_key) == 64


async def test_entries_are_read_as_they_were_written() -> None:
    journal = JournalStore(MemoryObjectStore())
    mine = [JournalKey(SCOPE, "files__write-all", "d" * 64, number) for number in (1, 2)]
    other = JournalKey(Scope("acme", "r1", 2), "pay", "d")
    for key in (*mine, other):
        assert await journal.begin(key) is None
    await journal.end(mine[0], CallOutcome(text="x"))
    assert await journal.calls(SCOPE) == {mine[0]: True, mine[1]: False}
    assert await journal.calls(other.scope) == {other: False}
    assert keys.journal_prefix("acme", "r1", 2, "").startswith("journal/acme/r1.r2~")


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(st.characters(categories=None)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_a_model_gives_has_one_spelling(value: object) -> None:
    given_ = {"b": value, "a": 1}
    assert spelt(given_) == spelt({"a": 1, "b": value})
    assert spelt({"n": 2**70, "s": "\ud800"}) != spelt({"n": 2**70, "s": "\ud801"})
