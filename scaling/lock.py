"""A process that there may be one of."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import AlreadyRunning


@contextlib.contextmanager
def sole(file: Path, what: str) -> Iterator[None]:
    """Be the only ``what`` that holds ``file`` inside the block. The system lets go of it however the process ends.

    Raises:
        AlreadyRunning: another process holds it; the message has its pid.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held.seek(0)
            raise AlreadyRunning(
                f"{what} runs already for {file.parent} (pid {held.read().strip() or 'unknown'}); stop it first, "
                "or set SLUICE_HOME to another folder"
            ) from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield
