"""``sluice bench`` as a person meets it: real servers, real workers, figures that fit together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from handlers.producer import AsyncProducer
from tasks.settings import Settings
from tasks.stores.connect import connect


def bench(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "handlers.cli.main", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, **env},
        check=False,
    )


async def _waiting(settings: Settings) -> dict[str, int]:
    async with connect(settings) as stores:
        depths = await stores.broker.depths(settings.pools)
        return {pool: depth.total for pool, depth in depths.items() if depth.total}


async def _submit(settings: Settings) -> None:
    async with AsyncProducer(settings) as producer:
        await producer.submit("What is a webhook?")


def _check(figures: dict[str, Any], requests: int) -> None:
    assert sum(figures["statuses"].values()) == figures["requests"] == requests
    assert set(figures["statuses"]) <= {"succeeded", "escalated"}
    assert figures["requests_per_s"] == pytest.approx(requests / figures["seconds"], rel=0.01)
    assert figures["cpu_s"] == pytest.approx(sum(figures["cpu_s_by_process"].values()), rel=0.01)
    assert figures["cpu_s_per_request"] * requests == pytest.approx(figures["cpu_s"], rel=0.01)
    assert figures["cores_at_500"] == pytest.approx(500 * figures["cpu_s_per_request"])
    assert figures["cores_at_800"] == pytest.approx(800 * figures["cpu_s_per_request"])
    assert figures["memory_mb"]["total"] <= sum(figures["memory_mb"]["by_process"].values()) + 1
    assert set(figures["cpu_s_by_process"]) == set(figures["counted"])
    loop = figures["open_loop"]
    assert sum(loop["statuses"].values()) == loop["requests"]
    assert 0.2 < loop["latency_p50_s"] <= loop["latency_p99_s"] <= loop["latency_max_s"]


def test_a_run_on_servers_of_its_own_disturbs_nobody(settings: Settings, tmp_path: Path) -> None:
    asyncio.run(_submit(settings))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = bench("--requests", "60", "--open-seconds", "2", "--latency", "0.2", "--json", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    _check(figures, 60)
    workers = {"worker-bench-1", "worker-bench-2"}
    assert set(figures["counted"]) == {"redis", "s3", "scheduler", "submitter"} | workers
    # The servers that the settings name still have what waited there, and nothing of the bench's is left.
    assert asyncio.run(_waiting(settings)) == {"intent": 1}
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(settings: Settings, tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "handlers.cli.main", "bench", "--requests", "20000"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    ) as running:
        assert running.stderr
        assert any("starting 2 workers" in line for line in running.stderr)
        # A moment later its workers are there, and it waits for them.
        end = time.monotonic() + 20
        while len(started := _processes_in(temporary)) < 5:
            assert time.monotonic() < end
            time.sleep(0.05)
        running.send_signal(number)
        assert running.wait(30) == 130
    assert list(temporary.iterdir()) == []
    assert not [pid for pid in started if psutil.pid_exists(pid)]


def _processes_in(folder: Path) -> list[int]:
    """Return the processes that a bench in ``folder`` has started: two servers, a scheduler, two workers."""
    return [json.loads(file.read_bytes())["pid"] for file in folder.glob("sluice-bench-*/pids/[!.]*.json")]


@pytest.mark.slow
def test_on_the_servers_of_the_settings_only_while_they_are_idle(settings: Settings) -> None:
    done = bench("--here", "--depths", "30", "--workers", "1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert [depth["waiting"] for depth in figures["depths"]] == [30]
    assert set(figures["counted"]) == {"scheduler", "submitter", "worker-bench-1"}
    assert asyncio.run(_waiting(settings)) == {}

    asyncio.run(_submit(settings))
    refused = bench("--here")
    assert refused.returncode == 2
    assert "requests wait or run on these servers (intent 1)" in refused.stderr
    assert asyncio.run(_waiting(settings)) == {"intent": 1}
