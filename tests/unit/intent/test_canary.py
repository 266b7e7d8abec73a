"""Who gets a canary, and how two versions compare."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent.canary import CANARY, STABLE, Tally, compare, gets_canary
from tasks.errors import StoreError

IDS = [f"r{number}" for number in range(20_000)]


class Counts:
    def __init__(self) -> None:
        self.hashes: dict[str, dict[str, int]] = {}
        self.away = False

    async def add(self, key: str, counts: dict[str, int], *, keep_seconds: int) -> None:
        if self.away:
            raise StoreError("away")
        assert keep_seconds > 0
        there = self.hashes.setdefault(key, {})
        for field, count in counts.items():
            there[field] = there.get(field, 0) + count


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_about_the_share_gets_the_canary(share: float) -> None:
    got = sum(gets_canary("v1", request_id, share) for request_id in IDS) / len(IDS)
    assert got == pytest.approx(share, abs=0.01)


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_request_stays_in_every_greater_share(request_id: str, one: float, two: float) -> None:
    small, great = sorted((one, two))
    assert gets_canary("v", request_id, small) <= gets_canary("v", request_id, great)
    assert gets_canary("v", request_id, 1.0)
    assert not gets_canary("v", request_id, 0.0)


def test_another_version_gets_other_requests() -> None:
    one = {request_id for request_id in IDS if gets_canary("v1", request_id, 0.1)}
    two = {request_id for request_id in IDS if gets_canary("v2", request_id, 0.1)}
    assert len(one & two) < len(one) / 5


async def test_both_sides_are_counted_and_compared() -> None:
    tally, counts = Tally(), Counts()
    for _ in range(98):
        tally.saw("k", STABLE, "plan_task", 0.9, 2.0, abstained=False)
    for _ in range(2):
        tally.saw("k", STABLE, "out_of_scope", 0.4, 50.0, abstained=True)
    tally.saw("k", CANARY, "plan_task", 0.5, 4.0, abstained=False)
    await tally.flush(counts)
    report = compare(counts.hashes["k"])
    stable, canary = report["stable"], report["canary"]
    assert (stable["requests"], canary["requests"]) == (100, 1)
    assert stable["confidence"] == pytest.approx(0.89)
    assert stable["abstained"] == pytest.approx(0.02)
    assert stable["labels"] == {"out_of_scope": 0.02, "plan_task": 0.98}
    assert 2.0 <= stable["p50_ms"] <= 2.2
    assert 50.0 <= stable["p99_ms"] <= 55.0
    assert report["differences"] == {"out_of_scope": pytest.approx(-0.02), "plan_task": pytest.approx(0.02)}
    assert report["distance"] == pytest.approx(0.02)


def test_without_requests_there_is_nothing_to_compare() -> None:
    report = compare({})
    assert report["canary"] == {
        "requests": 0, "confidence": None, "abstained": None, "labels": {}, "p50_ms": None, "p99_ms": None
    }  # fmt: skip
    assert report["distance"] is None


async def test_counts_that_cannot_be_passed_on_are_kept() -> None:
    tally, counts = Tally(), Counts()
    tally.saw("k", STABLE, "plan_task", 0.9, 2.0, abstained=False)
    counts.away = True
    await tally.flush(counts)
    tally.saw("k", STABLE, "plan_task", 0.9, 2.0, abstained=False)
    counts.away = False
    await tally.flush(counts)
    await tally.flush(counts)
    assert counts.hashes["k"]["stable:n"] == 2


async def test_times_of_any_size_fall_into_a_bounded_number_of_buckets() -> None:
    tally, counts = Tally(), Counts()
    for power in range(-6, 9):
        tally.saw("k", CANARY, "plan_task", 1.0, 10.0**power, abstained=False)
    await tally.flush(counts)
    assert compare(counts.hashes["k"])["canary"]["p99_ms"] < 11_000
