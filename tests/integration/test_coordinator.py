"""The coordinator on a real server: one leader, weights that only it may write, and what they say of the shards."""

import asyncio
import itertools
from typing import Any

import pytest

from handlers.cli import doctor
from tasks import keys
from tasks.contracts.weights import ShardState, ShardWeight, Weights
from tasks.coordinate import Coordinator
from tasks.settings import Settings
from tasks.settings_load import parse
from tasks.shards import Placement
from tasks.stores.broker import Parcel
from tasks.stores.connect import Stores, connect
from tasks.stores.weights import WeightStore
from tests.support.clock import Clock

EU, US = "agents.responder@eu", "agents.responder@us"
PERIOD, COLD = 5.0, 30.0
BUSY = {"cpu_free": 0.5, "memory_free": 0.0, "network_free": 0.0}
FREE = {"cpu_free": 1.0, "memory_free": 1.0, "network_free": 1.0}


def written(leader: str, token: int, value: float = 0.5) -> Weights:
    shard = ShardWeight(weight=value, state=ShardState.SERVING)
    return Weights(at=1.0, leader=leader, token=token, shards={EU: shard})


@pytest.fixture
def store(stores: Stores) -> WeightStore:
    return WeightStore(stores.link)


# Who leads -----------------------------------------------------------------------------------------


async def test_one_of_many_leads_and_keeps_its_token(store: WeightStore) -> None:
    tokens = [standing.token for standing in await asyncio.gather(*(store.lead(f"w{n}", seconds=5) for n in range(9)))]
    assert sorted(tokens) == [0] * 8 + [1]
    leader = f"w{tokens.index(1)}"
    assert (await store.lead(leader, seconds=5)).token == 1


async def test_a_leader_that_was_held_up_is_refused_when_it_comes_back(store: WeightStore) -> None:
    old = await store.lead("old", seconds=0.05)
    await asyncio.sleep(0.1)  # it stands still for longer than it leads
    new = await store.lead("new", seconds=5)
    assert new.token > old.token
    assert await store.publish(written("new", new.token, 0.75), seconds=5)
    assert not await store.publish(written("old", old.token, 0.25), seconds=5)
    kept = await store.read()
    assert kept == written("new", new.token, 0.75)
    assert (await store.lead("old", seconds=5)).token == 0


async def test_a_leader_whose_time_is_over_writes_nothing_though_nobody_followed_it(store: WeightStore) -> None:
    token = (await store.lead("old", seconds=0.05)).token
    await asyncio.sleep(0.1)
    assert not await store.publish(written("old", token), seconds=5)
    assert await store.read() is None


async def test_a_token_from_before_the_server_lost_its_data_is_refused(stores: Stores, store: WeightStore) -> None:
    old = (await store.lead("old", seconds=5)).token
    await stores.link.call("FLUSHALL")
    new = (await store.lead("new", seconds=5)).token
    assert new == old
    assert not await store.publish(written("old", old), seconds=5)
    assert await store.publish(written("new", new), seconds=5)


async def test_of_many_that_race_for_the_weights_none_overwrites_a_later_one(settings: Settings) -> None:
    """Leaders come and go quickly, and every second write comes when the time of its leader is over."""
    wrote: set[int] = set()
    refused: set[int] = set()

    async def candidate(name: str) -> list[int]:
        seen: list[int] = []
        async with connect(settings) as own, asyncio.timeout(60):
            store, turns = WeightStore(own.link), itertools.count()
            while len(wrote) < 5 or not refused:
                standing = await store.lead(name, seconds=0.1)
                if standing.token:
                    await asyncio.sleep(0.15 * (next(turns) % 2))
                    done = await store.publish(written(name, standing.token), seconds=30)
                    (wrote if done else refused).add(standing.token)
                    await asyncio.sleep(0.12)
                if found := await store.read():
                    seen.append(found.token)
                await asyncio.sleep(0.01)
        return seen

    async with connect(settings) as first:
        await first.link.call("FLUSHALL")
    for seen in await asyncio.gather(*(candidate(f"w{number}") for number in range(6))):
        assert seen == sorted(seen)


async def test_weights_end_when_nobody_renews_them(store: WeightStore) -> None:
    token = (await store.lead("me", seconds=5)).token
    assert await store.publish(written("me", token), seconds=0.05)
    assert await store.read() is not None
    await asyncio.sleep(0.1)
    assert await store.read() is None


async def test_weights_that_cannot_be_read_are_none(stores: Stores, store: WeightStore) -> None:
    await stores.link.call("SET", keys.WEIGHTS, b'{"at": "soon"}')
    assert await store.read() is None


# What it says --------------------------------------------------------------------------------------


class Lab:
    """Coordinators over one server, with a clock that a test turns."""

    def __init__(self, stores: Stores, **us: Any) -> None:
        pools = {"agents.responder": {"shards": {"eu": {}, "us": us}}}
        scaling = {"cold_start_seconds": COLD, "pools": pools}
        self.settings = parse(Settings, {"scaling": scaling, "leases": {"heartbeat_seconds": PERIOD}})
        self.stores = stores
        self.clock = Clock()
        self.placement = Placement(self.settings, lambda: 0.5)
        self.coordinator = self.process("first", self.placement)

    def process(self, name: str, placement: Placement) -> Coordinator:
        return Coordinator(
            self.settings,
            name=name,
            board=self.stores.board,
            broker=self.stores.broker,
            store=WeightStore(self.stores.link),
            placement=placement,
            now=self.clock,
        )

    async def report(self, pool: str, load: Any = None, name: str = "w") -> None:
        facts = {"pool": pool, "beat": self.clock.seconds, **({"load": load} if load else {})}
        await self.stores.board.beat(f"{pool}@{name}", facts)

    async def ask(self, shard: str) -> None:
        queue = keys.queue(shard, "high")
        await self.stores.broker.publish([Parcel(queue, "r", "{}", self.clock.seconds)])

    async def weighed(self) -> dict[str, tuple[str, float]]:
        assert await self.coordinator.run_once()
        weights = await WeightStore(self.stores.link).read()
        assert weights is not None
        return {name: (shard.state.value, round(shard.weight, 6)) for name, shard in weights.shards.items()}


async def test_the_mean_of_the_workers_that_report(stores: Stores) -> None:
    lab = Lab(stores)
    await lab.report(EU, BUSY, "a")
    await lab.report(EU, FREE, "b")
    assert await lab.weighed() == {EU: ("serving", 0.6), US: ("idle", 1.0)}
    lab.clock.advance(2 * PERIOD)
    await lab.report(EU, BUSY, "a")  # the other one is not heard any more
    assert await lab.weighed() == {EU: ("serving", 0.2), US: ("idle", 1.0)}


async def test_a_shard_whose_workers_are_gone_gets_nothing_until_one_is_heard(stores: Stores) -> None:
    lab = Lab(stores)
    await lab.report(EU, BUSY)
    await lab.report(US, FREE)
    assert await lab.weighed() == {EU: ("serving", 0.2), US: ("serving", 1.0)}
    await lab.ask(US)
    lab.clock.advance(2 * PERIOD + COLD)
    await lab.report(EU, BUSY)
    assert await lab.weighed() == {EU: ("serving", 0.2), US: ("waking", 1.0)}
    lab.clock.advance(1)
    assert await lab.weighed() == {EU: ("serving", 0.2), US: ("silent", 0.0)}
    assert lab.placement("responder") == EU
    await lab.report(US, FREE)
    assert (await lab.weighed())[US] == ("serving", 1.0)


async def test_a_shard_that_drains_gets_nothing(stores: Stores) -> None:
    lab = Lab(stores, drain=True)
    await lab.report(US, FREE)
    assert await lab.weighed() == {EU: ("idle", 1.0), US: ("draining", 0.0)}
    assert lab.placement("responder") == EU


async def test_workers_that_say_nothing_of_their_load_or_something_else_count_as_free(stores: Stores) -> None:
    lab = Lab(stores)
    await lab.report(EU)
    await lab.report(US, {"cpu_free": 7})
    assert await lab.weighed() == {EU: ("serving", 1.0), US: ("serving", 1.0)}


async def test_who_does_not_lead_goes_by_the_leader_s_weights(stores: Stores) -> None:
    lab = Lab(stores)
    await lab.report(EU, BUSY)
    await lab.ask(US)
    lab.clock.advance(2 * PERIOD + COLD + 1)
    await lab.report(EU, BUSY)
    other = Placement(lab.settings, lambda: 0.99)
    follower = lab.process("second", other)
    assert await lab.weighed() == {EU: ("serving", 0.2), US: ("silent", 0.0)}
    assert other("responder") == US
    assert not await follower.run_once()
    assert other("responder") == EU
    await stores.link.call("DEL", keys.WEIGHTS)
    assert not await follower.run_once()  # without weights all are as good
    assert other("responder") == US


async def test_a_coordinator_that_was_deposed_between_looking_and_writing_changes_nothing(stores: Stores) -> None:
    lab = Lab(stores)
    await lab.report(EU, FREE)
    looked = lab.coordinator._weighed

    async def held_up(*args: Any) -> Weights:
        found = await looked(*args)
        await stores.link.call("DEL", keys.COORDINATOR)
        assert await lab.process("second", Placement(lab.settings, lambda: 0.0)).run_once()
        return found

    lab.coordinator._weighed = held_up  # type: ignore[method-assign]
    assert not await lab.coordinator.run_once()
    weights = await WeightStore(stores.link).read()
    assert weights is not None
    assert (weights.leader, weights.token) == ("second", 2)


async def test_the_doctor_names_work_that_no_worker_serves_any_more(stores: Stores, settings: Settings) -> None:
    lab = Lab(stores)
    now = settings.changed(scaling=lab.settings.scaling)
    assert (await doctor._pools(now)).level == "ok"
    await lab.ask("agents.responder")  # from before it had shards
    await lab.ask("agents.responder@asia")
    await stores.board.post_pools({"agents.responder@asia": {}, "agents.planner": {}})
    found = await doctor._pools(now)
    assert found.level == "error"
    assert found.detail == "requests that no worker serves: agents.responder: 1, agents.responder@asia: 1"
    assert "`sluice worker --pool agents.responder`" in found.mend
    assert "put agents.responder@asia back into the settings, with `drain: true`" in found.mend


async def test_a_coordinator_whose_server_is_away_goes_on_and_forgets_old_weights(stores: Stores) -> None:
    lab = Lab(stores)
    await lab.ask(US)
    lab.clock.advance(2 * PERIOD + COLD + 1)
    assert (await lab.weighed())[US] == ("silent", 0.0)
    await stores.link.close()
    lab.coordinator._period = 0.01
    running = asyncio.create_task(lab.coordinator.run())
    await asyncio.sleep(0.1)
    assert lab.placement("responder") == EU
    lab.clock.advance(4 * PERIOD + 1)
    for _ in range(100):
        await asyncio.sleep(0.02)
        if lab.placement("responder") == US:
            break
    assert lab.placement("responder") == US
    running.cancel()
