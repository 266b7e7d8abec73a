"""The autoscaler over workers in memory: what it starts, whom it stops, and what it does when nobody answers."""

import signal
from collections.abc import Iterable, Mapping
from dataclasses import replace

from scaling.local import Autoscaler, pool_of
from scaling.objects import Watch
from scaling.processes import Spawned
from scaling.rules import Change, Direction, Fallback, Rules
from tasks.errors import StoreError
from tasks.stores.broker import MemoryBroker, Parcel

COOLDOWN = 10.0
GRACE = 100.0
AT_ONCE = Direction(0, (Change("Percent", 1000, 15),))


def watch(maximum: int, target: float = 1, *, in_flight: bool = True, **rules: object) -> Watch:
    own = Rules(maximum=maximum, target=target, polling=1, sync=1, cooldown=COOLDOWN, up=AT_ONCE, down=AT_ONCE)
    return Watch(replace(own, **rules), in_flight, GRACE)  # type: ignore[arg-type]


class Fleet:
    """Workers in memory, and the autoscaler over them."""

    def __init__(self, stopping: Iterable[str] = (), there: int = 0, **pools: Watch) -> None:
        self.broker = MemoryBroker()
        self.now = 0.0
        self.watches = pools
        self.alive: dict[str, list[Spawned]] = {pool: [] for pool in pools}
        self.sent: list[tuple[int, signal.Signals]] = []
        self.running: dict[int, int] = {}
        self._pids = 0
        for pool in pools:
            for _ in range(there):
                self._start(pool)
        self.scaler = self.restarted(stopping)

    def restarted(self, stopping: Iterable[str] = ()) -> Autoscaler:
        """Return an autoscaler that knows nothing of what was before."""

        async def running() -> Mapping[int, int]:
            return self.running

        self.scaler = Autoscaler(
            self.watches,
            broker=self.broker,
            start=self._start,
            send=lambda worker, number: self.sent.append((worker.pid, number)),
            workers=lambda: {pool: list(workers) for pool, workers in self.alive.items() if workers},
            running=running,
            now=lambda: self.now,
            stopping=frozenset(stopping),
        )
        return self.scaler

    @property
    def stopped(self) -> list[int]:
        return [pid for pid, number in self.sent if number is signal.SIGTERM]

    def _start(self, pool: str) -> None:
        self._pids += 1
        self.alive[pool].append(Spawned(f"worker-{pool}-{self._pids}", self._pids, float(self._pids)))

    async def load(self, queue: str, count: int) -> None:
        self.broker.queues[queue].clear()
        await self.broker.publish([Parcel(queue, "r", "{}", 0)] * count)

    async def at(self, now: float) -> dict[str, dict[str, object]]:
        self.now = now
        return await self.scaler.run_once()

    def end(self, pid: int) -> None:
        for workers in self.alive.values():
            workers[:] = [worker for worker in workers if worker.pid != pid]


async def test_each_pool_by_its_own_load() -> None:
    fleet = Fleet(intent=watch(2, 10), **{"agents.planner": watch(9)})
    await fleet.load("requests.high", 11)
    await fleet.load("agents.planner", 3)
    assert len(await fleet.broker.receive("agents.planner", 3, now=0)) == 3
    seen = await fleet.scaler.run_once()
    assert {pool: len(workers) for pool, workers in fleet.alive.items()} == {"intent": 2, "agents.planner": 3}
    assert seen["intent"] == {"workers": 0, "desired": 2, "peak": 2, "waiting": 11, "running": 0, "stopping": []}
    assert seen["agents.planner"]["running"] == 3


async def test_what_was_started_is_not_started_again() -> None:
    fleet = Fleet(intent=watch(4))
    await fleet.load("requests", 3)
    for now in range(3):
        await fleet.at(now)
    assert len(fleet.alive["intent"]) == 3


async def test_who_rings_wakes_a_pool_before_its_next_look() -> None:
    fleet = Fleet(intent=watch(4, polling=30, sync=30))
    await fleet.at(0)
    await fleet.load("requests", 3)
    await fleet.at(1)
    assert fleet.alive["intent"] == []
    await fleet.scaler.run_once(pushed=True)
    assert len(fleet.alive["intent"]) == 3


async def test_a_worker_that_died_is_replaced_as_a_deployment_does() -> None:
    fleet = Fleet(intent=watch(2))
    await fleet.load("requests", 2)
    await fleet.at(0)
    fleet.end(1)
    await fleet.at(0.1)  # between two looks of KEDA's
    assert [worker.pid for worker in fleet.alive["intent"]] == [2, 3]


async def test_workers_that_die_at_once_are_not_started_at_every_look() -> None:
    fleet = Fleet(intent=watch(1))
    await fleet.load("requests", 1)
    for look in range(100):
        await fleet.at(look / 2)
        fleet.end(fleet._pids)
    assert fleet._pids == 10
    await fleet.at(110)
    assert fleet._pids == 11


async def test_to_zero_after_the_cooldown_each_told_once() -> None:
    fleet = Fleet(intent=watch(3))
    await fleet.load("requests", 3)
    await fleet.at(0)
    await fleet.load("requests", 0)
    await fleet.at(COOLDOWN)
    assert sorted(fleet.stopped) == [2, 3]  # the last one is KEDA's to take
    await fleet.at(COOLDOWN + 1)
    assert sorted(fleet.stopped) == [1, 2, 3]
    await fleet.at(COOLDOWN + 2)  # they drain and are not asked twice
    assert len(fleet.stopped) == 3


async def test_the_idle_ones_go_first_then_the_youngest() -> None:
    fleet = Fleet(intent=watch(4))
    await fleet.load("requests", 4)
    await fleet.at(0)
    fleet.running = {1: 0, 2: 3, 3: 0, 4: 3}
    await fleet.load("requests", 1)
    await fleet.at(1)
    assert fleet.stopped == [3, 1, 4]


async def test_a_draining_worker_does_not_count_when_work_comes() -> None:
    fleet = Fleet(intent=watch(1))
    await fleet.load("requests", 1)
    await fleet.at(0)
    await fleet.load("requests", 0)
    await fleet.at(COOLDOWN + 1)
    assert fleet.stopped == [1]
    await fleet.load("requests", 1)
    seen = await fleet.at(COOLDOWN + 2)
    assert [worker.pid for worker in fleet.alive["intent"]] == [1, 2]
    assert seen["intent"]["stopping"] == ["worker-intent-1"]


async def test_what_does_not_end_in_its_grace_period_is_killed() -> None:
    fleet = Fleet(intent=watch(1))
    await fleet.load("requests", 1)
    await fleet.at(0)
    await fleet.load("requests", 0)
    await fleet.at(COOLDOWN + 1)
    await fleet.at(COOLDOWN + 1 + GRACE)
    assert (1, signal.SIGKILL) not in fleet.sent
    await fleet.at(COOLDOWN + 2 + GRACE)
    assert fleet.sent == [(1, signal.SIGTERM), (1, signal.SIGKILL)]


async def test_one_that_was_killed_finds_its_workers_again() -> None:
    fleet = Fleet(intent=watch(4))
    await fleet.load("requests", 3)
    await fleet.at(0)
    fleet.restarted()
    await fleet.at(1)
    assert len(fleet.alive["intent"]) == 3
    await fleet.load("requests", 0)
    fleet.restarted()
    await fleet.at(2)
    assert sorted(fleet.stopped) == [2, 3], "that a worker is there counts as activity: its cooldown begins now"
    await fleet.at(2 + COOLDOWN + 1)
    assert sorted(fleet.stopped) == [1, 2, 3]


async def test_those_that_drain_already_are_not_taken_for_workers_that_serve() -> None:
    fleet = Fleet(intent=watch(4), there=2, stopping=["worker-intent-1"])
    await fleet.load("requests", 2)
    seen = await fleet.at(0)
    assert [worker.pid for worker in fleet.alive["intent"]] == [1, 2, 3]
    assert seen["intent"]["stopping"] == ["worker-intent-1"]
    assert fleet.sent == []


async def test_while_nobody_answers_nothing_changes_until_the_fallback() -> None:
    fleet = Fleet(intent=watch(4, fallback=Fallback(2, 1, "currentReplicasIfHigher")), **{"agents.planner": watch(4)})
    await fleet.load("requests", 2)
    await fleet.at(0)

    async def refuse(pools: object) -> dict[str, object]:
        raise StoreError("redis: away")

    fleet.broker.depths = refuse  # type: ignore[assignment,method-assign]
    for now in range(1, 6):
        seen = await fleet.at(now)
    assert (seen["intent"]["desired"], seen["agents.planner"]["desired"]) == (2, 0)
    fleet.restarted()
    fleet.alive["intent"].clear()
    for now in range(6, 10):
        seen = await fleet.at(now)
    assert (seen["intent"]["desired"], seen["agents.planner"]["desired"]) == (1, 0)


async def test_what_a_killed_worker_had_wakes_its_pool_and_by_queue_length_alone_it_never_does() -> None:
    for in_flight, workers in ((True, 1), (False, 0)):
        fleet = Fleet(intent=watch(1, in_flight=in_flight))
        await fleet.load("requests", 1)
        assert await fleet.broker.receive("intent", 1, now=0)  # by a worker that was killed
        for now in range(600):
            await fleet.at(now)
        assert len(fleet.alive["intent"]) == workers


def test_only_workers_have_a_pool() -> None:
    names = ["worker-intent-0a1b2c3d", "worker-agents.human_escalation-0a1b2c3d", "redis", "autoscaler"]
    assert [pool_of(Spawned(name, 1, 0)) for name in names] == ["intent", "agents.human_escalation", None, None]
