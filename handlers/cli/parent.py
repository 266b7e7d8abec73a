"""What runs as the autoscaler's warm parent: ``python -m handlers.cli.parent FOLDER``. See :mod:`scaling.parent`."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Final

from intent.quiet import no_idle_threads, no_telemetry
from scaling.parent import serve
from scaling.processes import Processes
from tasks import logs
from tasks.access.redact import Redactor
from tasks.settings import AuditSettings, Settings
from tasks.settings_load import parse

MODULES: Final = (
    "handlers.cli.main",
    "handlers.cli.worker",
    "tasks.runtime",
    "intent.live",
    "onnxruntime",
    "tokenizers",
    "tasks.route",
    "tasks.work",
    "tasks.agents.team",
    "tasks.agents.planner",
    "tasks.agents.models.openai",
    "tasks.agents.models.extractive",
    "yaml",
    "uvloop",
)
"""What workers import between their start and their first result."""


def main() -> None:
    """Serve the orders that come on standard input."""
    no_telemetry()
    no_idle_threads()
    logs.configure("INFO", Redactor.of(AuditSettings()))  # a worker has the settings' own
    parse(Settings, {})  # what msgspec finds out about the settings' shape, workers need not find out again
    serve(socket.socket(fileno=0), Processes(Path(sys.argv[1])), MODULES, work)


def work(pool: str) -> None:
    """Be ``sluice worker --pool POOL``."""
    from handlers.cli.main import main as sluice

    sys.argv = ["sluice", "worker", "--pool", pool]
    sluice()


if __name__ == "__main__":
    main()
