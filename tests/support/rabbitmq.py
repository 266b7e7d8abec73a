"""A RabbitMQ node of the tests' own, where this machine has the server."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

VARIABLE = "SLUICE_RABBITMQ"
_HOMES = "/usr/lib/rabbitmq/bin"
"""Where Debian keeps the programs: what it puts on the PATH changes to a user of its own."""
_START_SECONDS = 120


class Node:
    """A running node. ``url`` has no virtual host and no query; ``management`` is empty where it is not known."""

    def __init__(self, url: str, management: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self.management = management
        self._process = process

    def address(self, vhost: str, *, management: bool = True) -> str:
        """Return the ``broker_url`` of ``vhost``, which :meth:`made` has made."""
        return f"{self.url}/{vhost}" + (f"?management={self.management}" if management and self.management else "")

    def made(self, vhost: str) -> None:
        """Make a virtual host, for one test's queues."""
        self._http("PUT", f"vhosts/{quote(vhost, safe='')}")

    def dropped(self, vhost: str) -> None:
        self._http("DELETE", f"vhosts/{quote(vhost, safe='')}")

    def dropped_queue(self, vhost: str, queue: str) -> None:
        self._http("DELETE", f"queues/{quote(vhost, safe='')}/{quote(queue, safe='')}")

    def paused(self) -> None:
        """Stop the server where it stands: it takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resumed(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            pytest.skip(f"{VARIABLE} names a server that is not this test's to stop")
        os.kill(self._process.pid, number)

    def _http(self, verb: str, path: str) -> None:
        parts = urlsplit(self.url)
        pair = base64.b64encode(f"{parts.username or 'guest'}:{parts.password or 'guest'}".encode()).decode()
        request = urllib.request.Request(
            f"{self.management}/api/{path}", method=verb, headers={"Authorization": f"Basic {pair}"}
        )
        with urllib.request.urlopen(request, timeout=20):
            pass


@contextmanager
def serving() -> Iterator[Node]:
    """Yield a node; skip the test where there is none.

    ``SLUICE_RABBITMQ`` is the path of a server, or ``amqp://HOST:PORT?management=http://HOST:PORT`` of one that runs.
    """
    named = os.environ.get(VARIABLE, "")
    if named.startswith("amqp"):
        url, _, query = named.partition("?")
        management = query.removeprefix("management=")
        if not management:
            pytest.skip(f"{VARIABLE}: the tests make virtual hosts, add ?management=http://HOST:15672")
        yield Node(url.rstrip("/"), management.rstrip("/"))
        return
    server = named or shutil.which("rabbitmq-server", path=f"{_HOMES}:{os.environ.get('PATH', '')}")
    epmd = shutil.which("epmd")
    if not server or not epmd:
        pytest.skip(f"needs rabbitmq-server and epmd on the PATH (Debian: rabbitmq-server), or {VARIABLE}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        epmd_port, dist, amqp, management = _free(4)
        environment = _environment(folder, epmd_port, dist, amqp, management)
        command = [epmd, "-port", str(epmd_port), "-address", "127.0.0.1"]
        stack.enter_context(_process(command, folder / "epmd.log", environment))
        process = stack.enter_context(_process([server], folder / "server.log", environment))
        node = Node(f"amqp://guest:guest@127.0.0.1:{amqp}", f"http://127.0.0.1:{management}", process)
        _wait(node, process, folder / "server.log")
        yield node


def _environment(folder: Path, epmd: int, dist: int, amqp: int, management: int) -> dict[str, str]:
    config = folder / "rabbitmq.conf"
    config.write_text(
        f"listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
        "collect_statistics_interval = 500\nlog.console = true\n"
    )
    plugins = folder / "enabled_plugins"
    plugins.write_text("[rabbitmq_management].\n")
    return {
        **os.environ,
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd),
        "RABBITMQ_NODENAME": "sluice@localhost",
        "RABBITMQ_DIST_PORT": str(dist),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        # The plugin's figures are as old as this and the statistics' interval: five seconds each by default.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-rabbit quorum_tick_interval 500",
        # Then the script becomes the server, so that its pid is the server's, and a signal ends it.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


@contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _free(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]


def _wait(node: Node, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"rabbitmq-server ended: {log.read_text(errors='replace')[-2000:]}"
        try:
            node._http("GET", "overview")
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"rabbitmq-server does not answer: {log.read_text(errors='replace')[-2000:]}")
