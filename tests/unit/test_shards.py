"""Which shard gets a request: by weight, never an unhealthy one while another is well, and never nobody."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import keys
from tasks.attempt import Disposition
from tasks.contracts.weights import Load, ShardState, ShardWeight, Weights
from tasks.errors import InvalidInput, SettingsError
from tasks.settings import Settings
from tasks.settings_load import parse
from tasks.shards import Placement, Sight, chances, draining, score, weigh
from tests.support.world import RESPONDER, World

PATIENCE = 40.0
EU, US, ASIA = SHARDS = tuple(f"{RESPONDER}@{name}" for name in ("eu", "us", "asia"))

fractions = st.floats(0, 1)
loads = st.builds(Load, cpu_free=fractions, memory_free=fractions, network_free=fractions)
weights = st.builds(ShardWeight, weight=fractions, state=st.sampled_from(ShardState))
known = st.dictionaries(st.sampled_from(SHARDS), weights)
points = st.floats(0, 1, exclude_max=True)


def load(cpu: float, memory: float, network: float) -> Load:
    return Load(cpu_free=cpu, memory_free=memory, network_free=network)


def weight(value: float, state: ShardState = ShardState.SERVING) -> ShardWeight:
    return ShardWeight(weight=value, state=state)


def sharded(**shards: dict[str, Any]) -> Settings:
    return parse(Settings, {"scaling": {"pools": {RESPONDER: {"max_workers": 3, "shards": shards}}}})


# The weight of a shard -----------------------------------------------------------------------------


def test_the_weight_of_a_load() -> None:
    parts = [load(1, 0, 0), load(0, 1, 0), load(0, 0, 1), load(0.5, 0.5, 0.5), load(1, 1, 1)]
    assert [score(part) for part in parts] == [0.4, 0.3, 0.3, 0.5, 1.0]


@given(loads, loads)
def test_more_that_is_free_never_weighs_less(one: Load, two: Load) -> None:
    more = load(
        max(one.cpu_free, two.cpu_free),
        max(one.memory_free, two.memory_free),
        max(one.network_free, two.network_free),
    )
    assert 0 <= score(one) <= score(more) <= 1


@given(st.lists(loads, min_size=1, max_size=6))
def test_a_shard_weighs_what_its_workers_weigh_on_average(found: list[Load]) -> None:
    weighed = weigh(Sight(found, 90.0, oldest=0.0), None, now=100.0, patience=PATIENCE)
    assert (weighed.state, weighed.workers, weighed.reported_at) == (ShardState.SERVING, len(found), 90.0)
    assert weighed.weight == pytest.approx(sum(map(score, found)) / len(found))
    assert 0 <= weighed.weight <= 1


def test_a_shard_at_zero_replicas_is_fully_free() -> None:
    before = ShardWeight(weight=0.2, state=ShardState.SERVING, reported_at=50.0)
    weighed = weigh(Sight(), before, now=1000.0, patience=PATIENCE)
    assert (weighed.weight, weighed.state, weighed.reported_at) == (1.0, ShardState.IDLE, 50.0)


def test_a_shard_that_wakes_is_free_until_it_takes_too_long() -> None:
    idle = weigh(Sight(), None, now=100.0, patience=PATIENCE)
    waking = weigh(Sight(oldest=110.0), idle, now=110.0 + PATIENCE, patience=PATIENCE)
    assert (waking.weight, waking.state) == (1.0, ShardState.WAKING)
    silent = weigh(Sight(oldest=110.0), waking, now=110.1 + PATIENCE, patience=PATIENCE)
    assert (silent.weight, silent.state) == (0.0, ShardState.SILENT)
    assert weigh(Sight(), silent, now=200.0, patience=PATIENCE).state is ShardState.IDLE
    assert weigh(Sight([load(1, 1, 1)], 200.0), silent, now=200.0, patience=PATIENCE).state is ShardState.SERVING


def test_a_deep_backlog_does_not_condemn_a_shard_whose_workers_were_just_heard() -> None:
    before = ShardWeight(weight=0.3, state=ShardState.SERVING, reported_at=1000.0)
    kept = weigh(Sight(oldest=1.0), before, now=1000.0 + PATIENCE, patience=PATIENCE)
    assert (kept.weight, kept.state, kept.reported_at) == (0.3, ShardState.WAKING, 1000.0)
    gone = weigh(Sight(oldest=1.0), kept, now=1001.0 + PATIENCE, patience=PATIENCE)
    assert gone.state is ShardState.SILENT


@given(st.none() | weights, st.none() | st.floats(0, 2e9), st.floats(0, 2e9))
def test_whatever_is_seen_a_weight_is_a_fraction_and_only_the_healthy_have_one(
    before: ShardWeight | None, oldest: float | None, now: float
) -> None:
    weighed = weigh(Sight(oldest=oldest), before, now=now, patience=PATIENCE)
    assert 0 <= weighed.weight <= 1
    assert weighed.is_healthy or weighed.weight == 0
    assert weighed.is_healthy or (oldest is not None and now - oldest > PATIENCE)


# The choice ----------------------------------------------------------------------------------------


@given(known, st.sets(st.sampled_from(SHARDS)), points)
def test_no_unhealthy_shard_while_one_is_healthy(
    found: dict[str, ShardWeight], drained: set[str], point: float
) -> None:
    odds = chances(SHARDS, found, draining=drained)
    chosen = odds.at(point)
    healthy = [name for name in SHARDS if name not in drained and (name not in found or found[name].is_healthy)]
    assert chosen in SHARDS
    if healthy:
        assert chosen in healthy
    if len(drained) < len(SHARDS):
        assert chosen not in drained
    assert sum(map(odds.share, SHARDS)) == pytest.approx(1)
    assert all(0 <= odds.share(name) <= 1 for name in SHARDS)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_shares_are_as_weights(values: list[float]) -> None:
    odds = chances(SHARDS, {name: weight(value) for name, value in zip(SHARDS, values, strict=True)})
    assert [odds.share(name) for name in SHARDS] == pytest.approx([value / sum(values) for value in values])


@given(known, fractions, fractions)
def test_a_shard_that_gets_freer_never_gets_less(found: dict[str, ShardWeight], one: float, two: float) -> None:
    less, more = ({**found, EU: weight(value)} for value in sorted((one, two)))
    assert chances(SHARDS, more).share(EU) >= chances(SHARDS, less).share(EU) - 1e-9


def test_the_points_of_the_line_are_divided_by_weight() -> None:
    odds = chances(SHARDS, {EU: weight(0.25), US: weight(0, ShardState.SILENT), ASIA: weight(0.75)})
    assert [odds.at(point) for point in (0.0, 0.2499, 0.25, 0.9999)] == [EU, EU, ASIA, ASIA]


def test_full_shards_share_alike_and_one_that_is_full_gets_nothing_beside_one_that_is_not() -> None:
    full = dict.fromkeys(SHARDS, weight(0.0))
    assert {chances(SHARDS, full).at(point) for point in (0.1, 0.5, 0.9)} == set(SHARDS)
    assert chances(SHARDS, {**full, US: weight(0.1)}).share(US) == 1


def test_all_alike_without_weights_and_where_none_is_healthy() -> None:
    for found in ({}, dict.fromkeys(SHARDS, weight(0.0, ShardState.SILENT))):
        assert [chances(SHARDS, found).share(name) for name in SHARDS] == pytest.approx([1 / 3] * 3)


def test_a_shard_that_the_leader_does_not_know_yet_is_free() -> None:
    assert chances((EU, US), {EU: weight(0.5)}).share(US) == pytest.approx(2 / 3)


def test_a_seed_gives_the_same_choices_in_the_proportion_of_the_weights() -> None:
    settings = sharded(eu={}, us={})
    placement = Placement(settings, Random(7).random)
    placement.update(Weights(at=0, leader="me", token=1, shards={EU: weight(0.9), US: weight(0.3)}))
    chosen = [placement("responder") for _ in range(4000)]
    again = Placement(settings, Random(7).random)
    again.update(Weights(at=0, leader="me", token=1, shards={EU: weight(0.9), US: weight(0.3)}))
    assert chosen == [again("responder") for _ in range(4000)]
    assert chosen.count(EU) == pytest.approx(3000, abs=100)
    placement.update(None)
    assert [placement("responder") for _ in range(4000)].count(EU) == pytest.approx(2000, abs=100)


def test_where_there_is_nothing_to_choose_nothing_is_asked() -> None:
    def asked() -> float:
        raise AssertionError("no random number is wanted")

    assert Placement(Settings(), asked)("responder") == RESPONDER
    one = Placement(sharded(eu={}), asked)
    assert [one("responder"), one("planner")] == [EU, "agents.planner"]
    assert Placement(sharded(eu={}, us={"drain": True}), asked)("responder") == EU


# The settings --------------------------------------------------------------------------------------


def test_shards_stand_in_place_of_their_pool() -> None:
    settings = sharded(eu={}, us={"max_workers": 1, "bandwidth_mbit": 100, "drain": True})
    assert settings.sharded == {RESPONDER: (EU, US)}
    agents = ("agents.planner", "agents.executor", EU, US, "agents.human_escalation")
    assert settings.pools == ("intent", *agents, "callbacks")
    assert [settings.pool(name).max_workers for name in (EU, US, RESPONDER)] == [3, 1, 3]
    assert [settings.pool(name).bandwidth_mbit for name in (EU, US)] == [1000, 100]
    assert draining(settings) == {US}
    with pytest.raises(InvalidInput, match=f"no pool '{ASIA}'; there are .*{EU}"):
        settings.pool(ASIA)


def test_the_concurrency_of_a_shard_goes_before_that_of_its_agent_type() -> None:
    pools = {RESPONDER: {"shards": {"eu": {}, "us": {"concurrency": 5}}}}
    agents = [{"type": "responder", "concurrency": 300}]
    settings = parse(Settings, {"agents": agents, "scaling": {"pools": pools}})
    assert [settings.pool(name).concurrency for name in (EU, US)] == [300, 5]


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({"pools": {"intent": {"shards": {"eu": {}}}}}, "scaling.pools.intent.shards: only agent pools have shards"),
        ({"default": {"shards": {"eu": {}}}}, "scaling.default.shards: name the pool"),
        ({"pools": {EU: {}}}, f"names no pool: {EU}"),
        ({"pools": {RESPONDER: {"shards": {"high-eu": {}}}}}, r"shards\.high-eu: `high` names the queue"),
        ({"pools": {RESPONDER: {"shards": {"Eu_1": {}}}}}, r"shards\.Eu_1: expected str matching"),
        ({"pools": {RESPONDER: {"shards": {"eu": {"weight": 1}}}}}, r"shards\.eu\.weight: there is no such key"),
    ],
)
def test_wrong_shards_are_named(scaling: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse(Settings, {"scaling": scaling})


# The hops ------------------------------------------------------------------------------------------


async def test_a_request_is_routed_to_its_shard_and_answered_there() -> None:
    world = World()
    world.settings = sharded(eu={}, us={})
    world.place = Placement(world.settings, lambda: 0.99)
    asked = await world.routed()
    routed = next(record for record in await world.records(asked) if record.action == "intent.routed")
    assert routed.resource == US
    [queue] = [name for name, waiting in world.broker.queues.items() if waiting]
    assert queue == keys.queue(US, "normal")
    assert await world.deliver(world.work(pool=US), queue) is Disposition.ACK
    assert (await world.result(asked)) is not None
    await world.close()


async def test_a_shard_refuses_what_is_for_another_agent_type() -> None:
    world = World()
    await world.routed()
    assert await world.deliver(world.work(pool="agents.planner@eu"), RESPONDER) is Disposition.ACK
    assert len(world.broker.queues[keys.QUARANTINE]) == 1
    await world.close()


async def test_the_sweeper_looks_at_the_queues_of_shards_and_of_the_pool_that_was_there_before() -> None:
    world = World()
    await world.routed()
    world.settings = sharded(eu={}, us={})
    world.broker.queues[RESPONDER].clear()
    await world.sweep_until_published(RESPONDER)
    await world.close()
