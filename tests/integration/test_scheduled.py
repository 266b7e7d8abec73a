"""The sweeper and the sealer where what they need is away: they go on, and say so in a line."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

AWAY = {"sweep": "sweep failed, trying again", "seal": "sealing failed, trying again"}


def said(process: subprocess.Popen[bytes], seconds: float) -> Iterator[str]:
    """Yield the lines that the process writes within ``seconds``."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    end, rest = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            if selector.select(left):
                rest += process.stderr.read() or b""
                *lines, rest = rest.split(b"\n")
                yield from (line.decode() for line in lines)


@pytest.mark.parametrize("command", ["sweep", "seal"])
@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_each_failed_try_is_one_line_with_a_trace_at_debug_only(
    command: str, level: str, tmp_path: Path, unused_port: int
) -> None:
    away = f"127.0.0.1:{unused_port}"
    environment = {
        **os.environ,
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_CONFIG": "",
        "SLUICE_LOG_LEVEL": level,
        "SLUICE_REDIS_URL": f"redis://{away}/0",
        "SLUICE_S3_ENDPOINT": f"http://{away}",
        "SLUICE_LEASES__SWEEP_SECONDS": "0.1",
        "SLUICE_AUDITING__SEAL_SECONDS": "1",
        "SLUICE_GRANTS__MODE": "open",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "handlers.cli.main", command, "--every"], env=environment, stderr=subprocess.PIPE
    )
    try:
        lines = (json.loads(line) for line in said(process, 120))
        failed = next(line for line in lines if line["event"] == AWAY[command])
        assert away in failed["error"]
        assert ("exception" in failed) is (level == "DEBUG")
        assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=60)
