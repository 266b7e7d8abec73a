"""Changing the intent model as a person does it: commands on one side, a worker under load on the other."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.audit.read import read
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import connect
from tasks.stores.s3 import audit_store
from tests.e2e.conftest import Fleet
from tests.e2e.test_command_line import sluice
from tests.support import models


@pytest.fixture
def family(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A family of this test's own, which every process of the test serves."""
    name = f"t-{uuid4().hex[:12]}"
    monkeypatch.setenv("SLUICE_INTENT__FAMILY", name)
    monkeypatch.setenv("SLUICE_INTENT__REFRESH_SECONDS", "0.2")
    monkeypatch.setenv("SLUICE_INTENT__CACHE_DIR", str(tmp_path / "cache"))
    return name


def told(*arguments: str) -> Any:
    done = sluice("intent", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def published(folder: Path, threshold: float) -> str:
    version = models.variant(folder, threshold)
    assert told("publish", str(folder))["version"] == version
    return version


def test_versions_are_published_promoted_compared_and_rolled_back(family: str, tmp_path: Path) -> None:
    assert told("versions") == {"family": family, "versions": [], "packaged_share": 1.0}
    one, two = published(tmp_path / "one", 0.4), published(tmp_path / "two", 0.5)
    assert told("publish", str(tmp_path / "one")) == {"family": family, "version": one, "published": False}
    said = sluice("intent", "promote", one, "--why", "a better one")
    assert said.returncode == 0
    assert f"{one} serves in {family} (entry 1); before: the packaged model" in said.stdout
    entry = told("promote", two, "--share", "10%")
    assert (entry["number"], entry["version"], entry["share"], entry["previous"]) == (2, two, 0.1, one)
    rows = {row["version"]: row for row in told("versions")["versions"]}
    assert (rows[one]["share"], rows[one]["why"], rows[two]["share"]) == (0.9, "a better one", 0.1)
    assert rows[two]["since"]
    assert "10%" in sluice("intent", "versions").stdout
    report = told("canary")
    assert (report["canary"], report["stable"], report["compared"]["canary"]["requests"]) == (two, one, 0)
    assert "fewer than 100" in sluice("intent", "canary").stdout
    assert told("rollback")["version"] == one
    assert told("canary")["canary"] is None
    assert told("rollback")["version"] == ""
    actions = Counter(
        (record.action.value, record.resource)
        for record in asyncio.run(read(audit_store(load())))
        if record.resource.startswith(f"{family}/")
    )
    assert actions == {
        ("model.published", f"{family}/{one}"): 1,
        ("model.published", f"{family}/{two}"): 1,
        ("model.promoted", f"{family}/{one}"): 1,
        ("model.promoted", f"{family}/{two}"): 1,
        ("model.rolled_back", f"{family}/{one}"): 1,
        ("model.rolled_back", f"{family}/"): 1,
    }


def test_what_cannot_be_done_is_said_with_its_exit_code(family: str, tmp_path: Path) -> None:
    assert (none := sluice("intent", "publish", str(tmp_path / "none"))).returncode == 3
    assert "Traceback" not in none.stderr
    models.variant(tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.onnx").open("ab") as graph:
        graph.write(b"!")
    assert sluice("intent", "publish", str(tmp_path / "damaged")).returncode == 5
    models.fake(tmp_path / "hollow")
    assert sluice("intent", "publish", str(tmp_path / "hollow")).returncode == 5
    unknown = sluice("intent", "promote", "minilm-000000000000")
    assert unknown.returncode == 1
    assert "not published" in unknown.stderr
    for share in ("0", "110%", "much"):
        assert sluice("intent", "promote", "m", "--share", share).returncode == 2
    assert sluice("intent", "promote", "m", "--family", "../up").returncode == 2
    empty = sluice("intent", "rollback")
    assert empty.returncode == 2
    assert "no promotion to take back" in empty.stderr


async def test_a_worker_changes_its_model_under_load_and_no_request_fails(
    family: str, fleet: Fleet, tmp_path: Path
) -> None:
    settings = load()
    first, second = (published(tmp_path / str(number), 0.4 + number / 10) for number in range(2))
    told("promote", first)
    worker = fleet.worker(keys.INTENT_POOL)
    fleet.worker(keys.agent_pool("responder"))
    fleet.worker(keys.agent_pool("human_escalation"))
    tenant = f"{family}-x"
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:

        async def submit_until(version: str) -> list[str]:
            """Ask until the worker says that it serves ``version``, and a little longer."""
            ids: list[str] = []
            give_up, end = time.monotonic() + 60, float("inf")
            while time.monotonic() < end:
                assert time.monotonic() < give_up, fleet.logs()
                ids += await producer.submit_many(f"What is {len(ids) + n}?" for n in range(3))
                beats = await stores.board.workers(since=time.time() - 60)
                if end == float("inf") and any(beat.get("model_version") == version for beat in beats):
                    end = time.monotonic() + 0.5
                await asyncio.sleep(0.05)
            return ids

        ids = await submit_until(first)
        await asyncio.to_thread(told, "promote", second)
        ids += await submit_until(second)
        results = [result async for result in producer.results(ids, 120)]
    assert {result.request_id for result in results} == set(ids)
    assert {result.status.value for result in results} <= {"succeeded", "escalated"}
    said = Counter(result.intent.model_version for result in results if result.intent)
    assert set(said) == {first, second}
    assert worker.poll() is None
    assert "attempt failed" not in fleet.logs()
