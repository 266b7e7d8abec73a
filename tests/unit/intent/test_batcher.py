"""The batcher, with functions of its own instead of a model."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intent.batcher import Batcher, _choose
from tasks.errors import InvalidInput, NotReady


class Backend:
    """Doubles numbers; remembers its batches; can be held up, and chokes on some numbers."""

    def __init__(self, poison: frozenset[int] = frozenset()) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.free = threading.Event()
        self.free.set()
        self.poison = poison

    def __call__(self, items: Sequence[int]) -> list[int]:
        assert self.free.wait(5)
        self.batches.append(list(items))
        self.threads.add(threading.get_ident())
        bad = self.poison.intersection(items)
        if bad:
            raise ValueError(f"poison: {sorted(bad)}")
        return [item * 2 for item in items]


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
        async with Batcher(backend, lengths=list, max_batch=max_batch, max_batch_tokens=max_tokens) as batcher:
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


@given(
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=50),
    max_batch=st.integers(1, 20),
    max_tokens=st.integers(1, 1000),
)
def test_a_choice_holds_the_first_and_keeps_the_bounds(lengths, max_batch, max_tokens) -> None:
    chosen = _choose(lengths, max_batch, max_tokens)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= max_batch
    if len(chosen) > 1:
        assert max(lengths[place] for place in chosen) * len(chosen) <= max_tokens


def test_a_choice_takes_everything_that_fits() -> None:
    assert _choose([5, 90, 6, 5], 32, 4096) == [0, 1, 2, 3]


def test_a_choice_prefers_similar_lengths() -> None:
    assert _choose([5, 90, 6, 91, 5], 3, 4096) == [0, 2, 4]
    assert _choose([5, 90, 6, 91, 5], 32, 100) == [0, 2, 4]


async def test_what_waits_while_the_backend_is_busy_is_one_batch() -> None:
    backend = Backend()
    backend.free.clear()
    async with Batcher(backend) as batcher:
        first = asyncio.create_task(batcher.submit(1))
        await until(lambda: batcher.stats.batches == 1)
        rest = [asyncio.create_task(batcher.submit(item)) for item in (2, 3, 4)]
        await until(lambda: batcher.stats.waiting == 3)
        backend.free.set()
        assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
        assert backend.batches == [[1], [2, 3, 4]]
        stats = batcher.stats
        assert (stats.batches, stats.texts, stats.largest, stats.waiting) == (2, 4, 3, 0)


async def test_one_text_is_not_measured() -> None:
    def lengths(items: Sequence[int]) -> list[int]:
        raise AssertionError(items)

    async with Batcher(Backend(), lengths=lengths) as batcher:
        assert await batcher.submit(4) == 8


async def test_a_text_that_cannot_be_measured_fails_alone() -> None:
    def lengths(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise InvalidInput("text: 13")
        return [1] * len(items)

    async with Batcher(Backend(), lengths=lengths) as batcher:
        answers = await asyncio.gather(*map(batcher.submit, (12, 13, 14)), return_exceptions=True)
    assert answers[0] == 24
    assert isinstance(answers[1], InvalidInput)
    assert answers[2] == 28


async def test_a_poisonous_text_fails_alone() -> None:
    backend = Backend(frozenset({2}))
    async with Batcher(backend) as batcher:
        answers = await asyncio.gather(*map(batcher.submit, (1, 2, 3)), return_exceptions=True)
    assert (answers[0], answers[2]) == (2, 6)
    assert isinstance(answers[1], ValueError)
    assert backend.batches == [[1, 2, 3], [1], [2], [3]]


async def test_answers_of_the_wrong_number_reach_nobody() -> None:
    def short(items: Sequence[int]) -> list[int]:
        return list(items)[1:]

    async with Batcher(short) as batcher:
        answers = await asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True)
    assert all("0 outputs for 1 inputs" in str(answer) for answer in answers)


async def test_a_waiter_that_gives_up_is_not_run_and_its_neighbours_are() -> None:
    backend = Backend()
    backend.free.clear()
    async with Batcher(backend) as batcher:
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
    async with Batcher(backend, lengths=list, max_batch=2) as batcher:
        tasks = [asyncio.create_task(batcher.submit(1))]
        await until(lambda: batcher.stats.batches == 1)
        tasks += [asyncio.create_task(batcher.submit(item)) for item in (90, 1, 2, 1, 2, 91)]
        await until(lambda: batcher.stats.waiting == 6)
        backend.free.set()
        await asyncio.gather(*tasks)
    assert backend.batches[1] == [90, 91]


async def test_more_than_the_window_is_served_in_full() -> None:
    async with Batcher(Backend(), max_batch=1) as batcher:
        assert await asyncio.gather(*map(batcher.submit, range(50))) == [2 * item for item in range(50)]
        assert batcher.stats.batches == 50


async def test_batches_run_in_one_thread_that_is_not_the_loop() -> None:
    backend = Backend()
    async with Batcher(backend, max_batch=2) as batcher:
        await asyncio.gather(*map(batcher.submit, range(9)))
    assert len(backend.threads) == 1
    assert threading.get_ident() not in backend.threads


async def test_close_answers_what_waits_and_takes_nothing_more() -> None:
    backend = Backend()
    backend.free.clear()
    batcher = Batcher(backend, max_batch=1)
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
    await Batcher(Backend()).close()


async def test_a_worker_that_is_cancelled_leaves_nobody_waiting() -> None:
    backend = Backend()
    backend.free.clear()
    batcher = Batcher(backend, max_batch=1)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
    await until(lambda: batcher.stats.batches == 1)
    assert batcher._worker is not None
    batcher._worker.cancel()
    await asyncio.wait(tasks, timeout=5)
    assert all(task.cancelled() for task in tasks)
    backend.free.set()
    await batcher.close()


@pytest.mark.parametrize("bounds", [{"max_batch": 0}, {"max_batch_tokens": 0}])
def test_bounds_below_one_are_refused(bounds) -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        Batcher(Backend(), **bounds)
