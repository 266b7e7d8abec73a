"""A file that changes while a worker runs: used where it is right, refused where it is not."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from tasks.agents.fake import FakeRunner
from tasks.contracts.audit import Action, Decision, Event
from tasks.errors import SettingsError
from tasks.reload import Reload
from tasks.settings import Settings
from tasks.settings_load import Source

RESPONDER = "agents: [{type: responder, model: %s}]\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "pipeline.yaml"
    file.write_text(RESPONDER % "one")
    return file


class Worker:
    """What a worker does with new settings, and what it reports."""

    def __init__(self, *pools: str, source: Source | None = None) -> None:
        self.source = source or Source()
        self.runner = FakeRunner()
        self.events: list[Event] = []
        self.reload = Reload(
            self.source,
            self.source.load(),
            pools=pools or ("agents.responder",),
            apply=self.runner.configure,
            report=self.events.append,
            actor="w",
        )

    @property
    def models(self) -> list[str | None]:
        return [settings.agent("responder").model for settings in self.runner.configured]


def change(file: Path, text: str) -> None:
    file.write_text(text)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))  # whatever the clock of the disk


async def test_a_changed_file_is_seen_and_used(file: Path) -> None:
    worker = Worker()
    worker.reload.look()
    await worker.reload.close()
    assert worker.models == []

    change(file, RESPONDER % "two")
    worker.reload.look()
    worker.reload.look()
    await worker.reload.close()

    assert worker.models == ["two"]
    (event,) = worker.events
    assert (event.action, event.decision) == (Action.SETTINGS_RELOADED, Decision.ALLOW)
    assert event.details == {"changed": "agents", "needs_restart": ""}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("agents: [{type: responder, modle: x}]", r"pipeline\.yaml:1: agents\.0\.modle: there is no such key"),
        ("agents: [{type: responder, fallback: nobody}]", "names 'nobody'"),
        ("agents: [{type: responder, tools: [magic]}]", "no tool 'magic'"),
        ("agents: [", "not valid YAML"),
    ],
)
async def test_a_wrong_file_is_refused_and_the_old_one_stays(file: Path, text: str, told: str) -> None:
    worker = Worker()
    change(file, text)
    await worker.reload.now()

    assert worker.models == []
    (event,) = worker.events
    assert (event.action, event.decision) == (Action.SETTINGS_REFUSED, Decision.DENY)
    assert re.search(told, event.reason)


async def test_the_agent_type_that_a_worker_serves_must_stay(file: Path) -> None:
    file.write_text("agents: [{type: lawyer}]")
    worker = Worker("agents.lawyer")
    change(file, "agents: []")
    await worker.reload.now()
    assert worker.events[0].action is Action.SETTINGS_REFUSED
    assert worker.runner.configured == []


async def test_a_tool_that_cannot_be_set_up_refuses_it(file: Path) -> None:
    worker = Worker()

    async def refuse(_settings: Settings) -> None:
        raise SettingsError("tools.sql_parser.database: cannot be opened")

    worker.reload._apply = refuse
    await worker.reload.now()
    assert worker.events[0].action is Action.SETTINGS_REFUSED


async def test_what_takes_a_restart_is_named_and_not_used(file: Path) -> None:
    worker = Worker()
    change(file, RESPONDER % "two" + "queue: {attempts: 2}\nlog_level: DEBUG\n")
    await worker.reload.now()
    assert worker.events[0].details == {"changed": "agents", "needs_restart": "log_level, queue"}
    assert worker.runner.configured[0].queue.attempts == 5


async def test_a_signal_reloads_without_a_change_for_keys_may_have_changed(file: Path) -> None:
    worker = Worker()
    worker.reload.soon()
    worker.reload.soon()
    await worker.reload.close()
    assert worker.models == ["one", "one"]


def test_a_file_that_is_away_is_no_change(file: Path, tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(file)
    source = Source(tmp_path / "config")
    assert not source.changed()
    (tmp_path / "config").unlink()
    assert not source.changed()
    (tmp_path / "new.yaml").write_text("{}")
    (tmp_path / "config").symlink_to(tmp_path / "new.yaml")  # as Kubernetes does it
    assert source.changed()
    assert not source.changed()


async def test_the_loop_goes_on_meanwhile(file: Path) -> None:
    worker = Worker()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await worker.reload.now()
    ticking.cancel()
    assert ticks > 1
