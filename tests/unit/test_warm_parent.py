"""The protocol between autoscaler and warm parent, and what a forked worker is given of its own. Real processes."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import parent as parent_side
from scaling import warm
from scaling.parent import Forked, Order, Ready, Refused
from scaling.processes import Processes, Spawned
from scaling.warm import PARENT, WarmParent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the warm parent needs Linux")

SERVE = """
import os, random, signal, socket, sys, time
from pathlib import Path
from scaling.parent import serve
from scaling.processes import Processes
from tasks.contracts.words import new_id

def work(pool):
    if pool == "fault":
        raise ValueError("no such pool")
    if pool == "short":
        return
    signals = [signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGCHLD, signal.SIGTERM)]
    print(pool, random.random(), new_id()[-12:], sys.stdin.read() == "", *signals, flush=True)
    time.sleep(60)

serve(socket.socket(fileno=0), Processes(Path(sys.argv[1])), sys.argv[2:], work)
"""


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Nursery:
    """A folder, and warm parents in it."""

    def __init__(self, folder: Path) -> None:
        self.processes = Processes(folder)
        self.clock = Clock()
        self._made: list[WarmParent] = []

    def parent(self, *modules: str, code: str = SERVE, ready: bool = True) -> WarmParent:
        """Return a parent that imports ``modules``."""
        command = [sys.executable, "-c", code, str(self.processes.folder), *modules]
        parent = WarmParent(self.processes, command, now=self.clock)
        self._made.append(parent)
        if ready:
            self.ready(parent)
        return parent

    def ready(self, parent: WarmParent) -> None:
        assert parent._channel
        until(lambda: parent._is_ready(parent._channel) if parent._channel else True)

    def said(self, name: str) -> list[str]:
        """Return the words of a worker, once it has said any."""
        log = self.processes.log(name)
        until(lambda: log.exists() and log.read_text().endswith("\n"))
        return log.read_text().split()

    def stop(self) -> None:
        for parent in self._made:
            parent.close()
        self.processes.stop(self.processes.all(), grace=0)


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def forked(parent: WarmParent, name: str, pool: str = "intent") -> Spawned:
    spawned = parent.fork(name, pool)
    assert spawned
    return spawned


def test_a_worker_has_session_log_pid_file_signals_and_chance_of_its_own(nursery: Nursery) -> None:
    parent = nursery.parent("json")
    one, two = forked(parent, "worker-one"), forked(parent, "worker-two")
    assert nursery.processes.find("worker-one") == one
    assert {spawned.name for spawned in nursery.processes.all()} == {PARENT, "worker-one", "worker-two"}
    words = [nursery.said("worker-one"), nursery.said("worker-two")]
    assert [said[0] for said in words] == ["intent", "intent"]
    assert [said[3:] for said in words] == [["True"] * 3] * 2  # input, SIGCHLD, SIGTERM
    assert words[0][1] != words[1][1]
    assert words[0][2] != words[1][2]
    assert [os.getsid(spawned.pid) for spawned in (one, two)] == [one.pid, two.pid]
    assert psutil.Process(one.pid).ppid() == parent._process.pid
    opened = {file.readlink() for file in Path(f"/proc/{one.pid}/fd").iterdir()}
    assert opened == {Path(os.devnull), nursery.processes.log("worker-one")}


def test_workers_outlive_a_parent_that_is_killed_and_it_comes_back(nursery: Nursery) -> None:
    parent = nursery.parent()
    worker = forked(parent, "worker-one")
    os.kill(parent._process.pid, signal.SIGKILL)
    assert parent.fork("worker-two", "intent") is None
    assert worker.is_alive()
    assert nursery.processes.all() == [worker]
    nursery.clock.now = 59
    assert parent.fork("worker-two", "intent") is None
    assert nursery.processes.find(PARENT) is None
    nursery.clock.now = 60
    assert parent.fork("worker-two", "intent") is None  # it starts
    nursery.ready(parent)
    assert forked(parent, "worker-two").is_alive()


def test_until_it_is_ready_it_forks_nothing_and_holds_nobody_up(nursery: Nursery) -> None:
    parent = nursery.parent(code="import time; time.sleep(60)", ready=False)
    begun = time.monotonic()
    assert [parent.fork(f"worker-{number}", "intent") for number in range(3)] == [None] * 3
    assert time.monotonic() - begun < warm._ANSWER_SECONDS / 2
    assert parent._process.is_alive()


def test_one_that_does_not_answer_is_given_up(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_ANSWER_SECONDS", 0.2)
    parent = nursery.parent()
    stopped = parent._process
    os.kill(stopped.pid, signal.SIGSTOP)
    assert parent.fork("worker-one", "intent") is None
    assert not stopped.is_alive()
    assert nursery.processes.all() == []


def test_one_that_obeyed_and_went_has_its_worker_counted(nursery: Nursery) -> None:
    code = SERVE.replace("serve(socket", "import scaling.parent as p; p._encode = lambda _: b'nonsense'\nserve(socket")
    parent = nursery.parent(code=code, ready=False)
    parent._ready = True
    until(lambda: nursery.processes.log(PARENT).exists())
    assert parent._channel
    parent._channel.recv(100)
    spawned = forked(parent, "worker-one")
    assert nursery.processes.all() == [spawned]


def test_no_fork_beside_a_thread(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SERVE}"
    assert refusal(nursery, code, "starts_a_thread").startswith("1 threads run beside the first: python")


def test_no_fork_over_a_connection(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "connects.py").write_text("import socket\nkept = socket.socketpair()")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SERVE}"
    assert refusal(nursery, code, "connects").startswith("files are open: socket:[")


def refusal(nursery: Nursery, code: str, module: str) -> str:
    """Return why a parent that imports ``module`` does not fork; see that it is given up for it."""
    parent = nursery.parent(module, code=code)
    assert parent._channel
    parent._channel.settimeout(60)
    parent._channel.send(msgspec.json.encode(Order("worker-one", "intent")))
    answer = msgspec.json.decode(parent._channel.recv(4096), type=Refused)
    assert parent.fork("worker-one", "intent") is None
    assert nursery.processes.all() == []
    return answer.reason


def test_a_module_that_is_not_installed_is_left_to_the_workers(nursery: Nursery) -> None:
    assert forked(nursery.parent("no_such_module", "json"), "worker-one").is_alive()


def test_a_fault_of_the_worker_is_told_in_its_log_and_no_zombie_stays(nursery: Nursery) -> None:
    parent = nursery.parent()
    for name, pool in (("worker-fault", "fault"), ("worker-short", "short")):
        spawned = forked(parent, name, pool)
        until(lambda spawned=spawned: not spawned.is_alive())  # type: ignore[misc]
    assert "ValueError: no such pool" in nursery.processes.log("worker-fault").read_text()
    until(lambda: psutil.Process(parent._process.pid).children() == [])
    assert [spawned.name for spawned in nursery.processes.all()] == [PARENT]
    assert psutil.Process(parent._process.pid).num_threads() == 1


def test_it_ends_with_the_autoscaler(nursery: Nursery) -> None:
    parent = nursery.parent()
    worker, process = forked(parent, "worker-one"), parent._process
    assert parent._channel
    parent._channel.close()
    parent._channel = None
    until(lambda: not process.is_alive())
    assert worker.is_alive()


def test_at_rest_it_uses_no_processor(nursery: Nursery) -> None:
    process = psutil.Process(nursery.parent()._process.pid)
    time.sleep(0.5)  # until it has come to rest
    before = process.cpu_times(), process.num_ctx_switches()
    time.sleep(0.5)
    assert (process.cpu_times(), process.num_ctx_switches()) == before


@given(st.binary(max_size=300) | st.text().map(str.encode))
def test_what_is_no_order_is_refused(data: bytes) -> None:
    answer = obeyed(data)
    assert isinstance(answer, Refused)
    assert answer.reason.startswith("order: ")


@pytest.mark.parametrize(
    "order",
    [
        {"type": "order", "name": "../worker", "pool": "intent"},
        {"type": "order", "name": ".hidden", "pool": "intent"},
        {"type": "order", "name": "worker", "pool": "intent", "env": {}},
        {"type": "order", "name": "worker"},
        {"type": "order", "name": "worker", "pool": 1},
        {"type": "forked", "pid": 1, "created": 0.0},
    ],
)
def test_an_order_says_exactly_what_it_has_to(order: dict[str, object]) -> None:
    assert isinstance(obeyed(msgspec.json.encode(order)), Refused)


def obeyed(data: bytes) -> object:
    """Return the answer to what must not be obeyed."""

    def never(pool: str) -> None:
        raise AssertionError(pool)

    one, other = socket.socketpair()
    with one, other:
        return parent_side._obey(data, one, Processes(Path(os.devnull)), never, {})


@given(st.sampled_from([Ready(), Forked(7, 1.5), Refused("why")]))
def test_answers_arrive_as_they_were_sent(answer: object) -> None:
    assert warm._answer(parent_side._encode(answer)) == answer
