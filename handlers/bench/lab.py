"""What ``sluice bench`` measures on: servers of its own or those of the settings, and worker processes of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from handlers.bench.meter import Meter
from scaling import keyfiles
from scaling.local import WORKER_PREFIX
from scaling.processes import Processes, Spawned
from scaling.stack import AUTOSCALER, SCHEDULER, Stack
from tasks.errors import InvalidInput, NotReady
from tasks.settings import EMBEDDED, ModelSettings, Settings
from tasks.settings_load import PREFIX, home

CANNED: Final = "sluice-bench-canned"
"""The entry of ``models`` that the bench adds to the settings."""
_EXTRACTIVE: Final = "extractive"
_LOG_LINES: Final = 5
_SERVER_GRACE_SECONDS: Final = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to start: ``here`` means on the servers of the settings; ``keep`` leaves the folder behind."""

    workers: int
    here: bool
    keep: bool


class Lab:
    """Servers that answer and workers that are starting. ``settings`` are those that the workers run with."""

    def __init__(self, settings: Settings, folder: Path, *, here: bool) -> None:
        self.settings = settings
        self.folder = folder
        self.here = here
        self._processes = Processes(folder)
        self.workers: list[Spawned] = []

    def start(self, workers: int) -> None:
        """Start the workers, each of which serves every pool, and the scheduler."""
        pools = [part for pool in self.settings.pools for part in ("--pool", pool)]
        self._processes.start(SCHEDULER, _sluice("sweep", "--every"))
        for number in range(1, workers + 1):
            name = f"{WORKER_PREFIX}bench-{number}"
            self.workers.append(self._processes.start(name, _sluice("worker", *pools)))

    def meter(self) -> Meter:
        """Return a meter of everything that was started here, the servers too."""
        return Meter({spawned.name: spawned.pid for spawned in self._processes.all()})

    def check(self) -> None:
        """Raise :class:`NotReady`, with what it said last, where a worker has ended."""
        for worker in self.workers:
            if not worker.is_alive():
                raise NotReady(f"{worker.name} ended by itself; it said: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last lines of the workers' logs."""
        told = []
        for worker in self.workers:
            lines = self._processes.log(worker.name).read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
            told.append(f"{worker.name}: {' | '.join(lines) or '(nothing)'}")
        return "; ".join(told)

    def hold(self) -> None:
        """Stop the workers where they are: what is submitted now waits."""
        for worker in self.workers:
            worker.send(signal.SIGSTOP)

    def release(self) -> None:
        """Let the workers go on."""
        for worker in self.workers:
            worker.send(signal.SIGCONT)

    def stop(self, *, in_order: bool) -> None:
        """End workers and scheduler. Not ``in_order`` on servers that are thrown away, there is nothing to drain."""
        self.release()
        started = [spawned for spawned in self._processes.all() if spawned.name == SCHEDULER or spawned in self.workers]
        drains = in_order or self.here
        self._processes.stop(started, grace=self.settings.grace(*self.settings.pools) + 5 if drains else 0)


def bench_settings(settings: Settings, *, model: str | None, latency: float, concurrency: int) -> Settings:
    """Return ``settings`` with one model for every agent type, and ``concurrency`` in every pool.

    ``model`` is a name that the settings know; None is a canned answer after ``latency`` seconds.

    Raises:
        InvalidInput: ``model`` leads nowhere. (A worker would take it for a model of the default endpoint.)
    """
    if model is not None and model not in _models(settings):
        raise InvalidInput(f"model: the settings name no {model!r}; there are {', '.join(sorted(_models(settings)))}")
    name = model or CANNED
    scaling = settings.scaling
    return settings.changed(
        default_model=name,
        agents=tuple(agent.changed(model=name) for agent in settings.agents),
        models={**settings.models, CANNED: ModelSettings(provider="canned", delay_seconds=latency)},
        scaling=scaling.changed(
            default=scaling.default.changed(concurrency=concurrency),
            pools={pool: chosen.changed(concurrency=concurrency) for pool, chosen in scaling.pools.items()},
        ),
    )


def _models(settings: Settings) -> set[str]:
    named = {agent.model for agent in settings.agents if agent.model}
    return {EMBEDDED, _EXTRACTIVE, settings.default_model, *settings.models, *named}


@contextlib.contextmanager
def open_lab(settings: Settings, order: Order, tell: Tell) -> Iterator[Lab]:
    """Start everything in a temporary folder; stop and delete it at the end, whatever happened.

    Inside the block this process's environment is the workers'.

    Raises:
        NotReady: a package is missing, or a server does not start.
        InvalidInput: ``here``, and the autoscaler of an embedded stack would meddle.
    """
    if order.here and Processes(home().absolute()).find(AUTOSCALER):
        raise InvalidInput(
            "the stack of `sluice up` runs here, and its autoscaler would start workers for the bench's requests: "
            "`sluice down` first, or leave out --here, which measures on servers of its own"
        )
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    stack = Stack(folder, settings)
    lab = None
    in_order = False
    try:
        if order.here:
            servers: Mapping[str, str] = {"SLUICE_HOME": str(folder)}
        else:
            tell(f"starting a Redis and an S3 server in {folder}")
            with _variables({"TMPDIR": str(folder)}):  # the S3 server writes logs there, beside its own output
                servers = stack.start_servers(lambda _: None, model=settings.default_model == EMBEDDED)
            settings = _pointed_at(settings, servers)
        tell(f"starting {order.workers} worker{'s' * (order.workers > 1)}")
        with _environment(settings, servers, folder):
            lab = Lab(settings, folder, here=order.here)
            lab.start(order.workers)
            yield lab
            in_order = True
    finally:
        _clean_up(lab, stack, in_order=in_order, keep=order.keep, tell=tell)


def _clean_up(lab: Lab | None, stack: Stack, *, in_order: bool, keep: bool, tell: Tell) -> None:
    """Stop all processes, then delete the folder. A second Ctrl-C must not leave half of them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if lab is not None:
            lab.stop(in_order=in_order)
        stack.processes.stop(stack.processes.all(), grace=_SERVER_GRACE_SECONDS if keep else 0)
        if keep:
            tell(f"kept {stack.folder}: logs, and what `SLUICE_HOME={stack.folder} sluice up` finds again")
        else:
            shutil.rmtree(stack.folder, ignore_errors=True)
    finally:
        signal.signal(signal.SIGINT, before)


def _pointed_at(settings: Settings, servers: Mapping[str, str]) -> Settings:
    return settings.changed(
        redis_url=servers["SLUICE_REDIS_URL"],
        s3_endpoint=servers["SLUICE_S3_ENDPOINT"],
        embedded_model_url=servers.get("SLUICE_EMBEDDED_MODEL_URL"),
        signing=keyfiles.read(servers),
    )


@contextlib.contextmanager
def _environment(settings: Settings, servers: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Write ``settings`` to a file and have this process, and those it starts, read nothing else."""
    file = folder / "bench.json"
    file.write_bytes(msgspec.json.encode(settings, enc_hook=str))  # the folder is this user's alone
    others = {name for name in os.environ if _is_setting(name)}
    if "AWS_ACCESS_KEY_ID" in servers:
        others.add("AWS_SESSION_TOKEN")
    ours = {name: value for name, value in servers.items() if not _is_setting(name)}
    # The address as a variable too: without it a process would look for an embedded stack to adopt.
    ours |= {"SLUICE_CONFIG": str(file), "SLUICE_REDIS_URL": settings.redis_url}
    with _variables(ours, without=others):
        yield


@contextlib.contextmanager
def _variables(values: Mapping[str, str], *, without: Collection[str] = ()) -> Iterator[None]:
    """Set environment variables, and unset others, inside the block."""
    before = dict(os.environ)
    try:
        for name in without:
            os.environ.pop(name, None)
        os.environ.update(values)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _is_setting(name: str) -> bool:
    """Tell whether an environment variable overrides a key of the settings."""
    key = name.upper().removeprefix(PREFIX).partition("__")[0].lower()
    return name.upper().startswith(PREFIX) and key in Settings.__struct_fields__


def _sluice(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "handlers.cli.main", *arguments]
