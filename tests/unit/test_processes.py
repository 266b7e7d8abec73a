"""Processes in the background, found again by pid and stopped."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.processes import Processes

SLEEP = ["sleep", "60"]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.stop(processes.all(), grace=0)


def until_logged(processes: Processes, name: str, word: str) -> None:
    end = time.monotonic() + 20
    while word not in processes.log(name).read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_is_found_by_name_also_by_another_command(processes: Processes, tmp_path: Path) -> None:
    spawned = processes.start("one", SLEEP)
    assert spawned.is_alive()
    assert processes.find("one") == Processes(tmp_path).find("one") == spawned
    assert processes.find("two") is None
    assert spawned.rss_bytes() > 0


def test_its_output_and_its_environment(processes: Processes) -> None:
    processes.start("echo", ["sh", "-c", "echo out-$WORD; echo err-$WORD >&2"], env={"WORD": "sluice"})
    until_logged(processes, "echo", "err-sluice")
    assert "out-sluice" in processes.log("echo").read_text()


def test_what_ended_by_itself_is_forgotten(processes: Processes) -> None:
    spawned = processes.start("short", ["true"])
    end = time.monotonic() + 20
    while spawned.is_alive():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert processes.all() == []
    assert spawned.rss_bytes() == 0
    spawned.send(signal.SIGTERM)


def test_stopping_asks_first(processes: Processes) -> None:
    spawned = processes.start("one", SLEEP)
    other = processes.start("two", SLEEP)
    processes.stop([spawned], grace=20)
    assert not spawned.is_alive()
    assert processes.all() == [other]


def test_who_does_not_listen_is_ended(processes: Processes) -> None:
    spawned = processes.start("deaf", [sys.executable, "-c", STUBBORN])
    until_logged(processes, "deaf", "deaf")
    processes.stop([spawned], grace=0.1)
    assert not spawned.is_alive()
    assert processes.all() == []


def test_a_later_process_of_the_same_pid_is_another_one(processes: Processes) -> None:
    spawned = processes.start("one", SLEEP)
    earlier = replace(spawned, created=spawned.created - 100)
    assert not earlier.is_alive()
    earlier.send(signal.SIGKILL)
    assert spawned.is_alive()


def test_no_folder_yet_is_no_process(tmp_path: Path) -> None:
    assert Processes(tmp_path / "none").all() == []


def test_only_the_newest_logs_of_the_dead_are_kept(processes: Processes) -> None:
    processes.start("worker-alive", SLEEP)
    for number in range(5):
        log = processes.log(f"worker-{number}")
        log.write_text("")
        os.utime(log, (number, number))
    os.utime(processes.log("worker-alive"), (0, 0))
    processes.prune_logs("worker-", keep=2)
    left = {log.name for log in processes.log("x").parent.glob("*.log")}
    assert left == {"worker-3.log", "worker-4.log", "worker-alive.log"}
