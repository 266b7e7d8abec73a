"""A PostgreSQL server of a test's own, where this machine has the programs."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest


@contextmanager
def serving() -> Iterator[str]:
    """Yield the SQLAlchemy URL of an empty server with a superuser ``owner``; skip the test where there is none."""
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if not initdb or not postgres:
        pytest.skip("needs PostgreSQL's initdb and postgres on the PATH")
    # The server refuses to run as root, and pytest's own folders are closed to everybody else.
    user = "nobody" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = folder / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "owner", "--auth=trust", "-N"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        command = [postgres, "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-F", "-k", folder]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
        try:
            _wait(port, server)
            yield f"postgresql+psycopg://owner@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(20)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert server.poll() is None, "the server ended"
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="owner", dbname="postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server does not answer")
