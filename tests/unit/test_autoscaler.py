"""Up at once, down only after a cooldown, to zero, and never below what is asked."""

from hypothesis import given
from hypothesis import strategies as st

from scaling.local import Autoscaler, Trend, pool_of, wanted
from scaling.processes import Spawned
from tasks.settings import PoolSettings, ScalingSettings
from tasks.stores.broker import Depth, MemoryBroker, Parcel

COOLDOWN = 10.0


def depth(waiting: int, running: int = 0) -> Depth:
    return Depth(waiting, running)


def test_workers_by_load() -> None:
    pool = PoolSettings(max_workers=3, requests_per_worker=10)
    loads = [(0, 0), (1, 0), (0, 1), (10, 0), (5, 6), (30, 0), (1000, 0)]
    assert [wanted(depth(*load), pool) for load in loads] == [0, 1, 1, 1, 2, 3, 3]


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 500))
def test_any_load_has_a_worker_and_none_has_none(waiting: int, running: int, most: int, each: int) -> None:
    count = wanted(depth(waiting, running), PoolSettings(max_workers=most, requests_per_worker=each))
    assert (count == 0) == (waiting + running == 0)
    assert count <= most
    assert count == most or count * each >= waiting + running


def test_up_at_once_and_down_after_the_cooldown() -> None:
    trend = Trend()
    current, seen = 0, []
    for now, want in [(0, 0), (1, 3), (2, 1), (5, 0), (10.9, 0), (11, 0), (12, 0), (14.9, 0), (15, 0)]:
        current = trend.decide(want, current, now=now, cooldown=COOLDOWN)
        seen.append(current)
    assert seen == [0, 3, 3, 3, 3, 1, 0, 0, 0]
    assert trend.peak == 3


def test_a_burst_in_the_cooldown_starts_it_again() -> None:
    trend = Trend()
    trend.decide(2, 0, now=0, cooldown=COOLDOWN)
    trend.decide(2, 2, now=9, cooldown=COOLDOWN)
    assert trend.decide(0, 2, now=18.9, cooldown=COOLDOWN) == 2
    assert trend.decide(0, 2, now=19, cooldown=COOLDOWN) == 0


def test_workers_that_died_are_not_replaced_for_the_past() -> None:
    trend = Trend()
    trend.decide(5, 0, now=0, cooldown=COOLDOWN)
    assert trend.decide(1, 2, now=1, cooldown=COOLDOWN) == 2


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_never_below_what_is_asked_and_never_up_without_asking(steps: list[tuple[float, int, int]]) -> None:
    trend, now = Trend(), 0.0
    recent: list[tuple[float, int]] = []
    for pause, want, current in steps:
        now += pause
        recent.append((now, want))
        decided = trend.decide(want, current, now=now, cooldown=COOLDOWN)
        assert decided >= want
        assert decided <= max(want, current)
        asked = [count for time, count in recent if time > now - COOLDOWN]
        assert decided >= min(current, max(asked))


class Fleet:
    """Workers in memory, and the autoscaler over them."""

    def __init__(self, **pools: PoolSettings) -> None:
        self.broker = MemoryBroker()
        self.now = 0.0
        self.alive: dict[str, list[Spawned]] = {pool: [] for pool in pools}
        self.stopped: list[int] = []
        self._pids = 0
        self.scaler = Autoscaler(
            ScalingSettings(cooldown_seconds=COOLDOWN),
            pools,
            broker=self.broker,
            start=self._start,
            stop=lambda worker: self.stopped.append(worker.pid),
            workers=lambda: {pool: list(workers) for pool, workers in self.alive.items() if workers},
            now=lambda: self.now,
        )

    def _start(self, pool: str) -> None:
        self._pids += 1
        self.alive[pool].append(Spawned(f"worker-{pool}-{self._pids}", self._pids, float(self._pids)))

    async def load(self, queue: str, count: int) -> None:
        self.broker.queues[queue].clear()
        await self.broker.publish([Parcel(queue, "r", "{}", 0)] * count)

    def end(self, pid: int) -> None:
        for workers in self.alive.values():
            workers[:] = [worker for worker in workers if worker.pid != pid]


async def test_each_pool_by_its_own_load() -> None:
    fleet = Fleet(
        intent=PoolSettings(max_workers=2, requests_per_worker=10),
        **{"agents.planner": PoolSettings(max_workers=9, requests_per_worker=1)},
    )
    await fleet.load("requests.high", 11)
    await fleet.load("agents.planner", 3)
    assert len(await fleet.broker.receive("agents.planner", 3, now=0)) == 3
    seen = await fleet.scaler.run_once()
    assert {pool: len(workers) for pool, workers in fleet.alive.items()} == {"intent": 2, "agents.planner": 3}
    assert seen["intent"] == {"workers": 0, "desired": 2, "peak": 2, "waiting": 11, "running": 0}
    assert seen["agents.planner"]["running"] == 3


async def test_what_was_started_is_not_started_again() -> None:
    fleet = Fleet(intent=PoolSettings(max_workers=4, requests_per_worker=1))
    await fleet.load("requests", 3)
    for _ in range(3):
        await fleet.scaler.run_once()
    assert len(fleet.alive["intent"]) == 3


async def test_a_worker_that_died_is_replaced_while_there_is_work() -> None:
    fleet = Fleet(intent=PoolSettings(max_workers=2, requests_per_worker=1))
    await fleet.load("requests", 2)
    await fleet.scaler.run_once()
    fleet.end(1)
    await fleet.scaler.run_once()
    assert [worker.pid for worker in fleet.alive["intent"]] == [2, 3]


async def test_workers_that_die_at_once_are_not_started_at_every_look() -> None:
    fleet = Fleet(intent=PoolSettings(max_workers=1))
    await fleet.load("requests", 1)
    for _ in range(100):
        await fleet.scaler.run_once()
        fleet.end(fleet._pids)
        fleet.now += 0.5
    assert fleet._pids == 10
    fleet.now += 60
    await fleet.scaler.run_once()
    assert fleet._pids == 11


async def test_to_zero_after_the_cooldown_the_youngest_first_and_each_once() -> None:
    fleet = Fleet(intent=PoolSettings(max_workers=3, requests_per_worker=1))
    await fleet.load("requests", 3)
    await fleet.scaler.run_once()
    await fleet.load("requests", 1)
    fleet.now = 5
    await fleet.scaler.run_once()
    assert fleet.stopped == []
    fleet.now = 10
    await fleet.scaler.run_once()
    assert fleet.stopped == [2, 3]
    await fleet.scaler.run_once()  # they drain and are not asked twice
    assert fleet.stopped == [2, 3]
    fleet.end(2)
    fleet.end(3)
    await fleet.load("requests", 0)
    fleet.now = 20
    await fleet.scaler.run_once()
    assert fleet.stopped == [2, 3, 1]


async def test_a_draining_worker_does_not_count_when_work_comes() -> None:
    fleet = Fleet(intent=PoolSettings(max_workers=1, requests_per_worker=1))
    await fleet.load("requests", 1)
    await fleet.scaler.run_once()
    await fleet.load("requests", 0)
    fleet.now = 10
    await fleet.scaler.run_once()
    assert fleet.stopped == [1]
    await fleet.load("requests", 1)
    await fleet.scaler.run_once()
    assert [worker.pid for worker in fleet.alive["intent"]] == [1, 2]


def test_only_workers_have_a_pool() -> None:
    names = ["worker-intent-0a1b2c3d", "worker-agents.human_escalation-0a1b2c3d", "redis", "autoscaler"]
    assert [pool_of(Spawned(name, 1, 0)) for name in names] == ["intent", "agents.human_escalation", None, None]
