"""Cold start: what every process imports stays light."""

import subprocess
import sys

LIGHT = [
    *(f"tasks.contracts.{name}" for name in ("asked", "audit", "message", "result", "row", "session", "words")),
    *(f"tasks.stores.{name}" for name in ("bodies", "objects", "register", "results", "sessions")),
    "tasks.access.gate",
    "tasks.audit.stream",
    "tasks.finish",
    "intent.classifier",
]
HEAVY = {"pydantic", "pydantic_core", "tasks.contracts.request", "tasks.contracts.strict"}


def test_what_every_worker_imports_stays_light() -> None:
    code = f"import sys, {', '.join(LIGHT)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert HEAVY.isdisjoint(done.stdout.split())


def test_a_worker_of_callbacks_imports_no_agents_and_no_classifier() -> None:
    code = "import sys, tasks.runtime, tasks.deliver, tasks.courier, tasks.access.webhooks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    heavy = {*HEAVY, "autogen_core", "onnxruntime", "httpx", "boto3", "tasks.agents.team"}
    assert heavy.isdisjoint(done.stdout.split())
