"""A worker that kills itself between two steps of anything, now and then. Usage: CHANCE DEATHS POOL [POOL ...]

CHANCE is that of each step; DEATHS is a folder in which each death leaves a file.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from tasks.log import bound_fields
from tasks.runtime import Worker, run
from tasks.settings_load import load

CHANCE, DEATHS, POOLS = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]


def perhaps(step: str) -> None:
    """End this process as a power cut would, or not."""
    if random.random() < CHANCE:
        (DEATHS / f"{os.getpid()}-{step}-{bound_fields().get('step', 'whole')}").touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run(Worker(load(), POOLS, passed=perhaps))
