"""The HTTP door as a process of its own, on real stores."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scaling.stack import free_ports
from tasks.stores.connect import Stores


@pytest.fixture
def url(environment: dict[str, str]) -> Iterator[str]:
    """A running server."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "handlers.cli.main", "http", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env={**os.environ, **environment, "SLUICE_HTTP__WAIT_SECONDS": "1"}) as process:
        try:
            end = time.monotonic() + 30
            while not _answers(address):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_request_is_durable_and_can_be_cancelled(stores: Stores, url: str, tenant: str) -> None:
    accepted = httpx.post(f"{url}/v1/requests", json={"text": "What is a sluice?"})
    assert accepted.status_code == 202
    here = url + accepted.headers["location"]
    assert httpx.get(here).json()["status"] == "accepted"
    assert httpx.get(f"{here}/events", timeout=40).text.startswith("event: accepted\n")
    ended = httpx.delete(here).json()
    assert ended["result"]["status"] == "cancelled"
    assert httpx.get(f"{here}/events").text.count("event: ") == 2


def test_no_call_makes_it_fail(stores: Stores, url: str, tmp_path: Path) -> None:
    checks = ",".join(
        ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    )
    command = ["-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", checks]
    options = ["--max-examples", "20", "--exclude-path-regex", "/events$", "--request-timeout", "40"]
    whole = [sys.executable, *command, *options]
    found = subprocess.run(whole, capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
