"""The embedded stack leaves nothing behind outside its folder."""

from pathlib import Path

import pytest

from scaling.stack import S3, Stack
from tasks.settings import Settings


def left(pid: int, stack: Stack) -> list[str]:
    """Return what lies in the machine's temp folder of the S3 server."""
    names = [file.name for file in Path("/tmp").iterdir() if f".{pid}" in file.name and file.name.startswith("weed.")]
    return [*names, *(str(socket) for socket in stack._sockets() if socket.exists())]


@pytest.mark.parametrize("killed", [False, True])
def test_the_s3_server_leaves_nothing_in_the_temp_folder(tmp_path: Path, killed: bool) -> None:
    stack = Stack(tmp_path / "home", Settings())
    try:
        stack.start_servers(lambda line: None, model=False)
        server = stack.running()[S3]
        assert any("seaweedfs-s3-grpc" in name for name in left(server.pid, stack)), "its sockets lie elsewhere now"
        if killed:
            stack.processes.stop([server], grace=0)
        assert "Start Seaweed" in stack.processes.log(S3).read_text("utf-8", "replace")
    finally:
        stack.down(purge=False, tell=lambda line: None)
    assert left(server.pid, stack) == []
    stack.down(purge=True, tell=lambda line: None)
    assert not stack.folder.exists()
