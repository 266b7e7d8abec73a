"""A worker that takes the steps of its start one after the other and notes when each is done. See benchmarks.cold.

Prints [[part, monotonic seconds], ...] when it is told to stop.
"""

import os
import sys
import time
from typing import Any

MARKS: list[tuple[str, float]] = [("exec", float(os.environ["COLD_BEGUN"])), ("interpreter", time.monotonic())]
sys.path.insert(0, os.getcwd())  # noqa: PTH109  pathlib is one of the things to be measured


def mark(part: str) -> None:
    MARKS.append((part, time.monotonic()))


def take(part: str, *modules: str) -> None:
    """Import ``modules`` as a step of its own."""
    for module in modules:
        __import__(module)
    mark(part)


def watch_the_model() -> None:
    from intent.classifier import Classifier

    load_model = Classifier.load

    def load(*arguments: Any, **named: Any) -> Classifier:
        mark("classifier code")
        classifier = load_model(*arguments, **named)
        mark("model")
        return classifier

    Classifier.load = load  # type: ignore[method-assign, assignment]


def watch_the_first_message() -> None:
    from tasks.stores.redis_broker import RedisBroker

    receive = RedisBroker.receive

    async def receive_and_mark(*arguments: Any, **named: Any) -> Any:
        deliveries = await receive(*arguments, **named)
        if deliveries and MARKS[-1][0] != "connected, first message":
            mark("connected, first message")
        return deliveries

    RedisBroker.receive = receive_and_mark  # type: ignore[method-assign]


def main(pool: str) -> None:
    take("asyncio", "asyncio")
    take("command line", "handlers.cli.worker", "handlers.cli.main")
    import gc

    from handlers.cli.main import OBJECTS_BETWEEN_COLLECTIONS
    from tasks import logs
    from tasks.access.redact import Redactor
    from tasks.settings_load import load

    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    settings = load()
    logs.configure(settings.log_level, Redactor.of(settings.auditing))
    mark("settings, logs")
    take("runtime, store clients", "tasks.runtime")
    if pool == "intent":
        from intent.quiet import no_idle_threads, no_telemetry

        no_telemetry()
        no_idle_threads()
        take("numpy", "numpy")
        take("onnxruntime", "onnxruntime")
        take("tokenizers", "tokenizers")
        watch_the_model()
    else:
        take("autogen", "autogen_agentchat.agents")
        take("agent code", "tasks.work", "tasks.agents.team")
    watch_the_first_message()

    from tasks.runtime import Worker, run

    run(Worker(settings, [pool]))


if __name__ == "__main__":
    main(sys.argv[1])
    import json

    print(json.dumps(MARKS), flush=True)
    os._exit(0)
