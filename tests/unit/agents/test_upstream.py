"""Rate, breaker and further tries of an endpoint, by a clock that only sleeping moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tasks.agents.models.breaker import Breaker, State
from tasks.agents.models.rate import Rate
from tasks.agents.models.upstream import TRIES, Failure, Upstream, retry_after
from tasks.errors import ModelError, ModelRefused, ModelUnavailable
from tasks.settings import BreakerSettings, ModelSettings


class Time:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


def rate(time: Time, **settings: Any) -> Rate:
    return Rate(ModelSettings(**settings), clock=time, sleep=time.sleep)


def upstream(time: Time, **settings: Any) -> Upstream:
    return Upstream("model 'm'", ModelSettings(**settings), clock=time, sleep=time.sleep, jitter=lambda: 0.5)


def scripted(*replies: str | Exception) -> Callable[[], Awaitable[str]]:
    left = list(replies)

    async def send() -> str:
        reply = left.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return send


# The rate -------------------------------------------------------------------------------------


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate_in_order(time: Time) -> None:
    limited = rate(time, requests_per_second=2, burst=3)
    passed: list[tuple[int, float]] = []

    async def ask(number: int) -> None:
        await limited.take(0)
        passed.append((number, time.now - 100))

    await asyncio.gather(*(ask(number) for number in range(6)))

    assert passed == [(0, 0), (1, 0), (2, 0), (3, 0.5), (4, 1.0), (5, 1.5)]
    assert time.slept == [0.5, 0.5, 0.5]  # nobody but the first has a timer


async def test_who_is_cancelled_leaves_the_line_and_takes_nothing(time: Time) -> None:
    limited = rate(time, requests_per_second=1)
    await limited.take(0)
    first, second = (asyncio.ensure_future(limited.take(0)) for _ in range(2))
    first.cancel()
    await second

    assert first.cancelled()
    assert time.now == 101


async def test_tokens_are_reserved_and_settled(time: Time) -> None:
    limited = rate(time, tokens_per_minute=600)
    await limited.take(600)
    limited.settle(600, 100)  # 500 come back
    await limited.take(400)
    assert time.slept == []
    await limited.take(200)
    assert time.now == pytest.approx(110)


async def test_more_tokens_than_the_bucket_holds_wait_for_a_full_one(time: Time) -> None:
    limited = rate(time, tokens_per_minute=60)
    await limited.take(10)
    await limited.take(1000)
    assert time.now == pytest.approx(110)


async def test_without_limits_nobody_waits_unless_the_endpoint_asks_for_it(time: Time) -> None:
    free = rate(time)
    await free.take(10**9)
    assert time.slept == []
    free.hold(3)
    free.hold(1)
    await free.take(0)
    assert time.now == 103


# The breaker ----------------------------------------------------------------------------------


def breaker(time: Time, failures: int = 2) -> Breaker:
    return Breaker("m", BreakerSettings(failures=failures, open_seconds=10), clock=time)


async def test_it_opens_after_failures_in_a_row_only(time: Time) -> None:
    made = breaker(time)
    for outcome in (made.failed, made.succeeded, made.failed):
        await made.enter()
        outcome()
    assert made.state is State.CLOSED
    await made.enter()
    made.failed()
    assert made.state is State.OPEN
    time.now += 4
    with pytest.raises(ModelUnavailable, match=r"failed 2 times in a row; next try in 6\.0 s") as caught:
        await made.enter()
    assert caught.value.retry_seconds == 6


async def half_open(time: Time, waiting: int) -> tuple[Breaker, list[asyncio.Future[None]]]:
    """Return a breaker with one request under way, and those that wait for its end."""
    made = breaker(time, failures=1)
    await made.enter()
    made.failed()
    time.now += 10
    assert made.state is State.HALF_OPEN
    await made.enter()
    others = [asyncio.ensure_future(made.enter()) for _ in range(waiting)]
    await asyncio.sleep(0)
    assert not any(other.done() for other in others)
    return made, others


async def test_where_the_one_that_tries_succeeds_all_go(time: Time) -> None:
    made, others = await half_open(time, 3)
    made.succeeded()
    await asyncio.gather(*others)
    assert made.state is State.CLOSED


async def test_where_it_fails_none_goes(time: Time) -> None:
    made, others = await half_open(time, 3)
    made.failed()
    ends = await asyncio.gather(*others, return_exceptions=True)
    assert [type(end) for end in ends] == [ModelUnavailable] * 3
    assert made.state is State.OPEN


async def test_where_it_is_cancelled_the_next_one_tries(time: Time) -> None:
    made, others = await half_open(time, 2)
    made.abandoned()
    await others[0]
    assert not others[1].done()
    made.succeeded()
    await others[1]


async def test_requests_from_before_it_opened_do_not_open_it_for_longer(time: Time) -> None:
    made = breaker(time, failures=1)
    await made.enter()
    made.failed()
    time.now += 9
    made.failed()
    time.now += 1
    assert made.state is State.HALF_OPEN


# All together ---------------------------------------------------------------------------------


async def test_failures_are_tried_again_with_growing_pauses(time: Time) -> None:
    send = scripted(Failure("a"), Failure("b"), Failure("c"), "fine")
    assert await upstream(time).call(send) == "fine"
    assert time.slept == [0.5, 1, 2]


async def test_every_try_counts_against_the_rate(time: Time) -> None:
    await upstream(time, requests_per_second=0.1, burst=1).call(scripted(Failure("a"), "fine"))
    assert time.now == 110


async def test_who_asks_for_a_pause_gets_it_from_everybody(time: Time) -> None:
    shared = upstream(time)
    busy = shared.refusal(429, "slow down", {"Retry-After": "4"})

    first, second = asyncio.ensure_future(shared.call(scripted(busy, "one"))), None
    await asyncio.sleep(0)
    second = asyncio.ensure_future(shared.call(scripted("two")))

    assert await asyncio.gather(first, second) == ["one", "two"]
    assert time.now >= 104
    assert shared.breaker.state is State.CLOSED


@pytest.mark.parametrize("wait", ["3600", "5"])
async def test_a_long_or_repeated_pause_is_left_to_the_queue(time: Time, wait: str) -> None:
    shared = upstream(time)
    replies = [shared.refusal(503, "", {"Retry-After": wait}) for _ in range(TRIES)]

    with pytest.raises(ModelUnavailable, match=f"it asks for {wait} s") as caught:
        await shared.call(scripted(*replies))
    assert caught.value.retry_seconds == float(wait)


async def test_an_open_breaker_fails_at_once_and_sends_nothing(time: Time) -> None:
    shared = upstream(time, breaker=BreakerSettings(failures=3, open_seconds=60))
    with pytest.raises(ModelUnavailable, match="failed 3 times in a row"):
        await shared.call(scripted(*[Failure("down")] * TRIES))
    slept = len(time.slept)
    with pytest.raises(ModelUnavailable):
        await shared.call(scripted())
    assert len(time.slept) == slept
    time.now += 60
    assert await shared.call(scripted("back")) == "back"
    assert shared.breaker.state is State.CLOSED


@pytest.mark.parametrize("error", [ModelRefused("no"), Failure("busy", wait=0.1, alive=True)])
async def test_who_refuses_or_is_busy_works(time: Time, error: Exception) -> None:
    shared = upstream(time, breaker=BreakerSettings(failures=1))
    with pytest.raises(ModelError):
        await shared.call(scripted(*[error] * TRIES))
    assert shared.breaker.state is State.CLOSED


async def test_a_cancelled_call_says_nothing_about_the_endpoint(time: Time) -> None:
    shared = upstream(time, breaker=BreakerSettings(failures=1))

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    call = asyncio.ensure_future(shared.call(hang))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert shared.breaker.state is State.CLOSED


@pytest.mark.parametrize(("value", "seconds"), [("2.5", 2.5), ("-1", 0), ("soon", None), ("", None)])
def test_retry_after_is_a_number_of_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
