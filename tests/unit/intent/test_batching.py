"""The batcher, with functions of its own instead of a model. A number is read into a row of that length."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from intent.batch_cost import CostModel
from intent.batch_policy import Limits, Policy
from intent.batching import Batcher
from tasks.errors import InvalidInput, NotReady, Overloaded


class Backend:
    """Doubles numbers; remembers its batches; can be held up, and chokes on some numbers."""

    def __init__(self, poison: frozenset[int] = frozenset()) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.free = threading.Event()
        self.free.set()
        self.poison = poison

    def __call__(self, rows: Sequence[range]) -> list[int]:
        items = [len(row) for row in rows]
        assert self.free.wait(5)
        self.batches.append(items)
        self.threads.add(threading.get_ident())
        bad = self.poison.intersection(items)
        if bad:
            raise ValueError(f"poison: {sorted(bad)}")
        return [item * 2 for item in items]


def batcher_of(backend, *, max_batch=32, max_tokens=4096, policy=None, read=range, **how) -> Batcher[int, int]:
    """Return a batcher to which a run is worth a thousand tokens: what fits runs together."""
    limits = Limits(max_batch, max_tokens, latency=1.0)
    return Batcher(read, backend, policy or Policy(limits, CostModel(1e-6, 1e-3)), **how)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    pauses=st.lists(st.booleans(), min_size=60, max_size=60),
    max_batch=st.integers(1, 9),
    max_tokens=st.integers(1, 120),
    poison=st.frozensets(st.integers(1, 40), max_size=3),
)
def test_everybody_gets_their_own_answer_in_bounded_batches(items, pauses, max_batch, max_tokens, poison) -> None:
    backend = Backend(poison)

    async def scenario() -> list[object]:
        async with batcher_of(backend, max_batch=max_batch, max_tokens=max_tokens) as batcher:
            tasks = []
            for item, pause in zip(items, pauses, strict=False):
                tasks.append(asyncio.create_task(batcher.submit(item)))
                if pause:
                    await asyncio.sleep(0)
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert batcher.stats.waiting == 0
            assert batcher.stats.texts == len(items)
            return answers

    answers = asyncio.run(scenario())
    for item, answer in zip(items, answers, strict=True):
        if item in poison:
            assert isinstance(answer, ValueError)
            assert str(answer) == f"poison: [{item}]"
        else:
            assert answer == item * 2
    for batch in backend.batches:
        assert len(batch) <= max_batch
        assert len(batch) == 1 or max(batch) * len(batch) <= max_tokens


async def test_what_waits_while_the_backend_is_busy_is_one_batch() -> None:
    backend = Backend()
    backend.free.clear()
    async with batcher_of(backend) as batcher:
        first = asyncio.create_task(batcher.submit(1))
        await until(lambda: batcher.stats.batches == 1)
        rest = [asyncio.create_task(batcher.submit(item)) for item in (2, 3, 4)]
        await until(lambda: batcher.stats.waiting == 3)
        backend.free.set()
        assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
        assert backend.batches == [[1], [2, 3, 4]]
        stats = batcher.stats
        assert (stats.batches, stats.texts, stats.largest, stats.waiting) == (2, 4, 3, 0)


async def test_an_item_is_read_once() -> None:
    read: list[int] = []

    def reader(item: int) -> range:
        read.append(item)
        return range(item)

    async with batcher_of(Backend(), read=reader) as batcher:
        assert await asyncio.gather(*map(batcher.submit, (3, 1, 2))) == [6, 2, 4]
    assert read == [3, 1, 2]


@pytest.mark.parametrize("aside", [False, True])
async def test_an_item_that_cannot_be_read_fails_alone(aside) -> None:
    threads: set[int] = set()

    def reader(item: int) -> range:
        threads.add(threading.get_ident())
        if item == 13:
            raise InvalidInput("text: 13")
        return range(item)

    async with batcher_of(Backend(), read=reader, is_long=lambda item: aside) as batcher:
        answers = await asyncio.gather(*map(batcher.submit, (12, 13, 14)), return_exceptions=True)
    assert (answers[0], answers[2]) == (24, 28)
    assert isinstance(answers[1], InvalidInput)
    assert (threads == {threading.get_ident()}) is not aside


async def test_close_waits_for_what_is_being_read() -> None:
    reading = threading.Event()

    def reader(item: int) -> range:
        assert reading.wait(5)
        return range(item)

    batcher = batcher_of(Backend(), read=reader, is_long=lambda item: True)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    reading.set()
    await closing
    assert [task.cancelled() or task.result() for task in tasks] == [2, True, 6]


async def test_a_poisonous_text_fails_alone() -> None:
    backend = Backend(frozenset({2}))
    async with batcher_of(backend) as batcher:
        answers = await asyncio.gather(*map(batcher.submit, (1, 2, 3)), return_exceptions=True)
    assert (answers[0], answers[2]) == (2, 6)
    assert isinstance(answers[1], ValueError)
    assert backend.batches == [[1, 2, 3], [1], [2], [3]]


async def test_answers_of_the_wrong_number_reach_nobody() -> None:
    def short(rows: Sequence[range]) -> list[int]:
        return [len(row) for row in rows][1:]

    async with batcher_of(short) as batcher:
        answers = await asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True)
    assert all("0 outputs for 1 inputs" in str(answer) for answer in answers)


async def test_a_waiter_that_gives_up_is_not_run_and_its_neighbours_are() -> None:
    backend = Backend()
    backend.free.clear()
    async with batcher_of(backend) as batcher:
        first, second, third = (asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3))
        await until(lambda: batcher.stats.batches == 1)
        late, gone = asyncio.create_task(batcher.submit(4)), asyncio.create_task(batcher.submit(5))
        await until(lambda: batcher.stats.waiting == 2)
        second.cancel()  # in the running batch
        gone.cancel()  # still in the queue
        await asyncio.wait({second, gone})
        backend.free.set()
        assert await asyncio.gather(first, third, late) == [2, 6, 8]
    assert second.cancelled()
    assert gone.cancelled()
    assert backend.batches == [[1, 2, 3], [4]]


async def test_the_one_that_waited_longest_is_never_passed_over() -> None:
    backend = Backend()
    backend.free.clear()
    async with batcher_of(backend, max_batch=2, policy=Policy(Limits(2), CostModel(1e-3, 1e-2))) as batcher:
        tasks = [asyncio.create_task(batcher.submit(1))]
        await until(lambda: batcher.stats.batches == 1)
        tasks += [asyncio.create_task(batcher.submit(item)) for item in (90, 1, 2, 1, 2, 91)]
        await until(lambda: batcher.stats.waiting == 6)
        backend.free.set()
        await asyncio.gather(*tasks)
    assert backend.batches[1] == [90, 91]


async def test_more_than_the_window_is_served_in_full() -> None:
    async with batcher_of(Backend(), max_batch=1) as batcher:
        assert await asyncio.gather(*map(batcher.submit, range(50))) == [2 * item for item in range(50)]
        assert batcher.stats.batches == 50


async def test_batches_run_in_one_thread_that_is_not_the_loop() -> None:
    backend = Backend()
    async with batcher_of(backend, max_batch=2) as batcher:
        await asyncio.gather(*map(batcher.submit, range(9)))
    assert len(backend.threads) == 1
    assert threading.get_ident() not in backend.threads


async def test_close_answers_what_waits_and_takes_nothing_more() -> None:
    backend = Backend()
    backend.free.clear()
    batcher = batcher_of(backend, max_batch=1)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
    await until(lambda: batcher.stats.batches == 1)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady, match="closed"):
        await batcher.submit(4)
    backend.free.set()
    await closing
    assert [task.result() for task in tasks] == [2, 4, 6]
    await batcher.close()


async def test_close_of_an_idle_batcher_returns() -> None:
    await batcher_of(Backend()).close()


async def test_a_batch_that_ends_its_thread_leaves_nobody_waiting() -> None:
    def run(rows: Sequence[range]) -> list[int]:
        raise SystemExit

    async with batcher_of(run) as batcher:
        answers = await asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True)
    assert all(isinstance(answer, NotReady) for answer in answers)


async def test_a_policy_that_fails_leaves_nobody_waiting(monkeypatch) -> None:
    policy = Policy(Limits())
    monkeypatch.setattr(policy, "plan", lambda *args, **named: 1 / 0)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with batcher_of(Backend(), policy=policy) as batcher:
        with pytest.raises(ZeroDivisionError):
            await batcher.submit(1)


class Holding(Policy):
    """Holds every batch for ``seconds`` after its oldest item came."""

    def __init__(self, seconds: float) -> None:
        super().__init__(Limits())
        self.seconds = seconds
        self.asked: list[int] = []

    def plan(self, lengths, oldest, now, *, hold=True):
        self.asked.append(len(lengths))
        plan = super().plan(lengths, oldest, now, hold=False)
        until = oldest + self.seconds
        return structs.replace(plan, until=until) if hold and now < until and len(lengths) < 3 else plan


async def test_a_held_batch_runs_when_its_time_has_come_and_nobody_polls() -> None:
    policy = Holding(0.02)
    async with batcher_of(backend := Backend(), policy=policy) as batcher:
        begun = time.perf_counter()
        assert await batcher.submit(1) == 2
        assert time.perf_counter() - begun >= 0.018
    assert policy.asked == [1, 1]
    assert backend.batches == [[1]]


async def test_an_arrival_wakes_what_is_held() -> None:
    policy = Holding(60)
    async with batcher_of(backend := Backend(), policy=policy) as batcher:
        tasks = []
        for item in (1, 2, 3):
            tasks.append(asyncio.create_task(batcher.submit(item)))
            await asyncio.sleep(0.001)
        assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [2, 4, 6]
    assert policy.asked == [1, 2, 3]
    assert backend.batches == [[1, 2, 3]]


async def test_close_does_not_wait_for_what_is_held() -> None:
    batcher = batcher_of(Backend(), policy=Holding(60))
    task = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0.005)
    async with asyncio.timeout(5):
        await batcher.close()
    assert task.result() == 2


async def test_what_cannot_meet_the_objective_is_shed_where_that_is_asked_for() -> None:
    backend = Backend()
    backend.free.clear()
    policy = Policy(Limits(max_batch=1, latency=0.015), CostModel(0.0, 0.01))
    async with batcher_of(backend, policy=policy) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
        await until(lambda: batcher.stats.batches == 1)
        with pytest.raises(Overloaded, match=r"about \d+ ms, the objective is 15 ms.*intent\.latency_ms"):
            await batcher.submit(3, shed=True)
        tasks.append(asyncio.create_task(batcher.submit(4)))
        await asyncio.sleep(0)
        assert batcher.stats.shed == 1
        backend.free.set()
        assert await asyncio.gather(*tasks) == [2, 4, 8]
        assert await batcher.submit(5, shed=True) == 10


async def test_runs_teach_the_policy() -> None:
    policy = Policy(Limits())
    async with batcher_of(Backend(frozenset({7})), policy=policy) as batcher:
        for item in (7, *range(10, 17)):
            await asyncio.gather(batcher.submit(item), return_exceptions=True)
        assert not policy.cost.known  # the one that failed taught nothing
        await batcher.submit(17)
        assert policy.cost.known
