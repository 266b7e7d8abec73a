"""Real servers, and worker processes that a test may kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import connect

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
"""The checkout under test."""

FAST = {
    "SLUICE_DEFAULT_MODEL": "extractive",
    "SLUICE_LEASES__HEARTBEAT_SECONDS": "0.5",
    "SLUICE_LEASES__SWEEP_SECONDS": "0.3",
    "SLUICE_LEASES__LOST_SECONDS": "1",
    "SLUICE_LEASES__UNPUBLISHED_SECONDS": "2",
    "SLUICE_QUEUE__VISIBILITY_SECONDS": "10",
    "SLUICE_QUEUE__RETRY_SECONDS": "0.2",
    "SLUICE_QUEUE__HAND_BACK_SECONDS": "0.3",
    "SLUICE_AUDITING__FLUSH_SECONDS": "0.1",
}


@pytest.fixture
def settings(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings for quick recovery on the real servers, with an empty Redis."""
    config = tmp_path / "pipeline.yaml"
    config.write_text("{}")
    environment = {**servers, **FAST, "SLUICE_HOME": str(tmp_path / "home"), "SLUICE_CONFIG": str(config)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load()
    asyncio.run(_empty(settings))
    return settings


async def _empty(settings: Settings) -> None:
    async with connect(settings) as stores:
        await stores.link.call("FLUSHALL")


class Fleet:
    """Worker and sweeper processes of one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, script: Path | None = None, **env: str) -> subprocess.Popen[bytes]:
        """Start ``sluice ARGUMENTS``, or ``script ARGUMENTS``."""
        command = [str(script)] if script else ["-m", "handlers.cli.main"]
        # A script has its own folder first on its path, and would import an installed copy.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        log = (self._folder / f"{len(self._started)}-{arguments[-1].replace('/', '_')}.log").open("wb")
        with log:
            environment = {**os.environ, "PYTHONPATH": path, **env}
            process = subprocess.Popen([sys.executable, *command, *arguments], stdout=log, stderr=log, env=environment)
        self._started.append(process)
        return process

    def worker(self, pool: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker of ``pool``."""
        return self.start("worker", "--pool", pool, **env)

    def sweeper(self) -> subprocess.Popen[bytes]:
        """Start a sweeper."""
        return self.start("sweep", "--every")

    def logs(self) -> str:
        """Return everything that the processes wrote."""
        return "\n".join(f"== {log.name}\n{log.read_text()}" for log in sorted(self._folder.glob("*.log")))

    def stop(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def fleet(settings: Settings, tmp_path: Path) -> Iterator[Fleet]:
    """Processes that are gone when the test is."""
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.stop()
