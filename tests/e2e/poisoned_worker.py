"""A worker whose process dies as soon as an agent reads the word POISON. Usage: POOL"""

from __future__ import annotations

import os
import signal
import sys

from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentTask
from tasks.runtime import Worker, run
from tasks.settings_load import load


def read(task: AgentTask) -> str:
    """Answer, or die of it."""
    if "POISON" in task.text:
        os.kill(os.getpid(), signal.SIGKILL)
    return "fine"


if __name__ == "__main__":
    run(Worker(load(), [sys.argv[1]], runner=FakeRunner(read)))
