"""``sluice bench``: its arithmetic, its arguments, what it tells, and the canned model."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from autogen_core.models import UserMessage
from click.testing import CliRunner
from pydantic import BaseModel

from handlers.bench.clocked import arrivals
from handlers.bench.figures import (
    Burst,
    Depth,
    OpenLoop,
    Reading,
    Spent,
    cores_at,
    middle,
    percentile,
    spread,
)
from handlers.bench.lab import CANNED, Lab, _environment, bench_settings
from handlers.bench.meter import SUBMITTER, Meter
from handlers.bench.report import (
    burst_document,
    burst_rows,
    depth_rows,
    depths_document,
    notes,
    process_rows,
    title,
)
from handlers.bench.texts import TEXTS, texts
from handlers.bench.watch import Watch
from handlers.cli.bench import bench
from tasks.agents.models.canned import ANSWER, CannedClient
from tasks.agents.models.registry import ModelRegistry
from tasks.errors import InvalidInput, ModelRefused, NotReady, ResultTimeout, SettingsError, SluiceError
from tasks.settings import AgentSettings, ModelSettings, PoolSettings, ScalingSettings, Settings
from tasks.settings_load import load, parse
from tasks.stores.broker import Depth as QueueDepth

# Arithmetic -----------------------------------------------------------------------------------


def test_percentiles_are_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0], 0.5) == 1.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_cores_are_rate_times_cpu_of_a_request() -> None:
    assert cores_at(500, 0.006) == pytest.approx(3.0)
    assert cores_at(800, 0.006) == pytest.approx(4.8)


def test_the_middle_of_a_drain_leaves_out_its_ends() -> None:
    # Slow to begin, ten a second between, a straggler at the end.
    samples = [(0.0, 0), (5.0, 10), (6.0, 20), (13.0, 90), (20.0, 100)]
    assert middle(samples, 100) == (8.0, 80)


def test_the_middle_of_a_deep_drain_is_a_part_of_it() -> None:
    samples = [(n / 100, n) for n in range(0, 20_001, 10)]
    seconds, results = middle(samples, 20_000)
    assert results == 3000
    assert seconds == pytest.approx(30)


def test_where_nothing_was_seen_of_the_middle_it_is_the_whole() -> None:
    assert middle([(0.0, 0), (2.0, 10)], 10) == (2.0, 10)
    assert middle([(0.0, 0), (1.0, 5), (2.0, 10)], 10) == (2.0, 10)


def test_spread_is_a_share_of_the_largest() -> None:
    assert spread([100, 90, 95]) == pytest.approx(0.1)
    assert spread([5]) == 0


def test_what_was_spent_is_told_from_what_others_took() -> None:
    before = Reading(10.0, {"a": 1.0, "b": 2.0}, 100.0)
    spent = Spent.between(before, Reading(14.0, {"a": 3.0, "b": 3.0}, 104.0))
    assert spent == Spent(4.0, {"a": 2.0, "b": 1.0}, 1.0)
    assert spent.cpu_seconds == 3.0
    assert Spent(0, {}, 0) + spent == spent


def test_arrivals_are_as_many_as_asked_and_the_same_twice() -> None:
    times = arrivals(50, 4)
    assert len(times) == 200
    assert times == sorted(times) == arrivals(50, 4)
    assert 0 <= times[0] < times[-1] < 4
    assert len(arrivals(0.01, 1)) == 1


def test_texts_differ_and_each_has_its_number() -> None:
    made = list(texts(3 * len(TEXTS), start=5))
    assert len(set(made)) == 3 * len(TEXTS)
    assert made[0] == TEXTS[5].format(n=5)
    assert 35 <= len(TEXTS) == len(set(TEXTS)) <= 50


# Settings and arguments -----------------------------------------------------------------------


def test_every_agent_asks_the_canned_model_and_every_pool_has_the_concurrency() -> None:
    settings = Settings(
        agents=(AgentSettings(type="planner", model="gpt-4-1106-preview", tools=("sql_parser",)),),
        scaling=ScalingSettings(pools={"intent": PoolSettings(concurrency=3, max_workers=7)}),
    )
    made = bench_settings(settings, model=None, latency=0.5, concurrency=64)
    assert {agent.model for agent in made.agents} == {made.default_model} == {CANNED}
    assert made.models[CANNED] == ModelSettings(provider="canned", delay_seconds=0.5)
    assert {made.pool(pool).concurrency for pool in made.pools} == {64}
    assert made.pool("intent").max_workers == 7
    assert made.agent("planner").tools == ("sql_parser",)


def test_a_model_has_to_be_one_of_the_settings() -> None:
    settings = Settings(models={"house": ModelSettings()})
    assert bench_settings(settings, model="house", latency=0, concurrency=1).agent("planner").model == "house"
    with pytest.raises(InvalidInput, match="'hose'; there are embedded, extractive, house"):
        bench_settings(settings, model="hose", latency=0, concurrency=1)


def test_workers_get_exactly_the_settings_of_the_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_SCALING__DEFAULT", '{"concurrency": 5}')
    monkeypatch.setenv("SLUICE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another account")
    monkeypatch.setenv("HOUSE_KEY", "kept")
    before = dict(os.environ)
    wanted = bench_settings(Settings(redis_url="redis://127.0.0.1:2/0"), model=None, latency=0.25, concurrency=9)
    servers = {"SLUICE_HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "mine", "SLUICE_S3_ENDPOINT": "http://ignored"}
    with _environment(wanted, servers, tmp_path):
        assert load() == wanted
        assert "AWS_SESSION_TOKEN" not in os.environ
        assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["HOUSE_KEY"]) == ("mine", "kept")
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--requests", "0"], "--requests"),
        (["--workers", "0"], "--workers"),
        (["--rate", "0"], "--rate"),
        (["--latency", "-1"], "--latency"),
        (["--depths", "100,x"], "100,1000,20000"),
        (["--depths", "0"], "--depths"),
        (["--depths", ""], "--depths"),
        (["--depths", "10", "--rate", "5"], "--rate"),
        (["--open-seconds", "0", "--rate", "5"], "--rate"),
        (["--latency", "1", "--model", "extractive"], "--latency"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_bad_arguments_are_named_before_anything_starts(arguments: list[str], named: str) -> None:
    done = CliRunner().invoke(bench, arguments)
    assert done.exit_code == 2
    assert named in done.output


# What it tells --------------------------------------------------------------------------------


@pytest.fixture
def meter() -> Meter:
    made = Meter({"worker-bench-1": os.getpid()})
    made.weigh()
    return made


def _burst() -> Burst:
    cpu = {"worker-bench-1": 3.0, SUBMITTER: 1.0}
    return Burst(1000, {"succeeded": 900, "escalated": 100}, Spent(2.0, cpu, 0.02), observer=0.04)


def _given(document: Mapping[str, Any]) -> dict[str, Any]:
    given = {"workers": 1, "concurrency": 64, "model": "canned", "latency_s": 0.2, "servers": "embedded"}
    return {**document, "given": given}


def test_the_document_of_a_burst(meter: Meter) -> None:
    loop = OpenLoop(100, 3, {"succeeded": 3}, [0.1, 0.2, 0.4], Spent(3.2, {SUBMITTER: 0.03}, 0))
    document = _given(burst_document(_burst(), loop, meter))
    assert document["requests_per_s"] == 500
    assert document["requests_per_cpu_s"] == 250
    assert document["cpu_s_per_request"] == pytest.approx(0.004)
    assert document["cores_at_500"] == pytest.approx(500 * document["cpu_s_per_request"])
    assert document["cores_at_800"] == pytest.approx(3.2)
    assert document["observer_share"] == 0.01
    assert document["counted"] == [SUBMITTER, "worker-bench-1"]
    assert document["memory_mb"]["total"] > 0
    assert document["open_loop"]["latency_p50_s"] == 0.2
    assert document["open_loop"]["kept_up"] is True

    rows = dict(burst_rows(document))
    assert rows["requests per second"] == "500"
    assert rows["CPU for one request"] == "4.00 ms"
    assert rows["latency p99 at 100 a second"] == "400 ms"
    assert rows["cores for 500 requests per second"] == "2.0 (worker 1.5, submitter 0.5)"
    assert [row[:2] for row in process_rows(document)] == [("worker-bench-1", "3.00"), (SUBMITTER, "1.00")]
    assert "model: canned after 0.2 s" in title(document)
    told = " ".join(notes(document, here=True))
    assert "1.0% of the burst's CPU" in told
    assert "Not counted: Redis, S3" in told
    assert "Others" not in told


def test_a_loop_that_does_not_keep_up_is_said_to(meter: Meter) -> None:
    loop = OpenLoop(100, 3, {"succeeded": 1}, [9.0], Spent(20, {SUBMITTER: 0.03}, 0))
    assert any("did not keep up" in value for _, value in burst_rows(burst_document(_burst(), loop, meter)))
    assert not [row for row in burst_rows(burst_document(_burst(), None, meter)) if "latency" in row[0]]


def test_the_document_of_drains_tells_the_spread_and_the_noise(meter: Meter) -> None:
    depths = [
        Depth(100, 10, Spent(4, {SUBMITTER: 5.0}, 0), middle_rate=250),
        Depth(20_000, 1, Spent(100, {SUBMITTER: 100.0}, 400), middle_rate=200),
    ]
    document = _given(depths_document(depths, meter))
    assert [depth["requests_per_s"] for depth in document["depths"]] == [250, 200]
    assert document["spread"] == {"requests_per_s": 0.2, "requests_per_s_middle": 0.2, "cpu_s_per_request": 0}
    assert depth_rows(document) == [
        ("100 (10 times)", "250", "250", "5.00", "0.00"),
        ("20,000", "200", "200", "5.00", "4.00"),
        ("spread", "20%", "20%", "0%", ""),
    ]
    assert "Others kept 4.00" in notes(document, here=False)[-1]


def test_a_meter_counts_this_process(meter: Meter) -> None:
    before = meter.read()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    spent = Spent.between(before, meter.read())
    assert spent.cpu[SUBMITTER] >= 0.05
    assert meter.peaks[SUBMITTER] > 2**20


# Watching -------------------------------------------------------------------------------------


class _Board:
    """Stands in for the stores: ``open`` requests wait, and stay so, unless there is a number for each look."""

    def __init__(self, *waiting: int) -> None:
        self._waiting = list(waiting)
        self.broker = self.register = self

    async def depths(self, pools: tuple[str, ...]) -> dict[str, QueueDepth]:
        now = self._waiting.pop(0) if len(self._waiting) > 1 else self._waiting[0]
        return {pools[0]: QueueDepth(waiting=now, running=0)}

    async def counts(self) -> dict[str, int]:
        return {"delayed": 0}

    async def are_open(self, refs: list[str]) -> list[bool]:
        return [number < self._waiting[0] for number in range(len(refs))]


def _watch(board: Any, *, alive: bool = True, timeout: float = 5) -> Watch:
    lab = Lab(Settings(), Path("nowhere"), here=False)
    worker = SimpleNamespace(name="worker-bench-1", is_alive=lambda: alive)
    lab.workers.append(worker)  # type: ignore[arg-type]
    lab.last_words = lambda: "no model is loaded"  # type: ignore[method-assign]
    return Watch(lab, board, Meter({}), timeout=timeout)


async def test_waiting_tells_how_many_are_done_and_never_fewer_again() -> None:
    seen: list[int] = []
    await _watch(_Board(3, 1, 2, 0)).until_done(["a", "b", "c"], seen.append)
    assert seen == [0, 2, 2, 3]


async def test_results_that_do_not_come_are_an_error_with_the_workers_words() -> None:
    with pytest.raises(ResultTimeout, match=r"2 of 3 results did not come within 0\.01 s.*no model is loaded"):
        await _watch(_Board(2), timeout=0.01).until_done(["a", "b", "c"], lambda _: None)


async def test_a_worker_that_ended_is_not_waited_for() -> None:
    with pytest.raises(NotReady, match=r"worker-bench-1 ended by itself.*no model is loaded"):
        await _watch(_Board(1), alive=False).until_done(["a"], lambda _: None)


async def test_a_request_without_a_result_is_an_error() -> None:
    async def nothing(*_: str) -> None:
        return None

    stores = SimpleNamespace(results=SimpleNamespace(get=nothing))
    with pytest.raises(SluiceError, match="2 missing"):
        await _watch(stores).statuses(["a", "b"])


# The canned model -----------------------------------------------------------------------------


async def test_the_canned_model_takes_its_time_and_says_what_it_is() -> None:
    client = CannedClient(0.05)
    begun = asyncio.get_running_loop().time()
    answer = await client.create([UserMessage(content="anything", source="user")])
    assert asyncio.get_running_loop().time() - begun >= 0.045
    assert answer.content == ANSWER
    assert ANSWER.startswith("[canned, no language model]")
    assert [part async for part in client.create_stream([])] == [ANSWER, answer]


async def test_the_canned_model_has_no_json() -> None:
    with pytest.raises(ModelRefused, match="no JSON"):
        await CannedClient(0).create([], json_output=BaseModel)


async def test_the_registry_knows_the_canned_model_by_its_entry_only() -> None:
    registry = ModelRegistry(Settings(models={"slow": ModelSettings(provider="canned", delay_seconds=2)}))
    async with registry.using("slow", temperature=0) as (client, label):
        assert isinstance(client, CannedClient)
        assert label == "canned (no language model)"
    assert registry.resolve("canned").settings.provider == "openai"


def test_a_delay_is_not_negative() -> None:
    with pytest.raises(SettingsError, match="delay_seconds"):
        parse(Settings, {"models": {"slow": {"provider": "canned", "delay_seconds": -1}}})
