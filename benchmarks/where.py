"""Where the CPU of a request goes: by profile, and by switching parts off.

    make bench-where [ARGS='--requests 1000 --repeats 2 --out build --json']

Requests take both hops on real servers, with the real classifier and the real agents (the extractive responder: no
language model). One process submits, one worker serves all pools. The profile samples both by their own CPU clocks and
charges each sample to one part; then the worker runs with one part replaced at a time, each between two full runs. Also
writes a flame graph of the worker, and its stacks as text.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.cold import servers
from benchmarks.flame import NATIVE, Stack, collapsed, svg
from benchmarks.where_child import GIVE_UP_SECONDS, SWITCHED_OFF, Task
from handlers.cli.main import report
from scaling.stack import REDIS, S3
from scaling.stack import Stack as Servers
from tasks.errors import SluiceError
from tasks.settings import Settings

FULL: Final = "full"
OTHER: Final = "other"
OBJECTS: Final = "object store client"
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "door and client": ("handlers", "tasks.contracts.request", "tasks.contracts.strict"),
    "hop": (
        "tasks.consumer", "tasks.hop", "tasks.leases", "tasks.attempt", "tasks.route", "tasks.work", "tasks.finish",
        "tasks.heartbeat", "tasks.runtime", "tasks.keys", "tasks.log", "tasks.logs", "tasks.access", "tasks.settings",
    ),
    "broker": ("tasks.stores.broker", "tasks.stores.redis_broker", "tasks.stores.redis_relay", "tasks.stores.relay"),
    "register": ("tasks.stores.register", "tasks.stores.redis_register", "tasks.stores.board"),
    "link": ("tasks.stores.link", "tasks.stores.scripts", "tasks.stores.address", "hiredis"),
    "classifier": ("intent", "onnxruntime", "tokenizers"),
    "agent": ("tasks.agents",),
    "AutoGen": ("autogen_agentchat", "autogen_core"),
    OBJECTS: ("tasks.stores", "obstore", NATIVE),
    "audit": ("tasks.audit", "tasks.access.redact"),
    "contracts": ("tasks.contracts", "msgspec", "orjson"),
    "event loop": ("asyncio", "uvloop", "selectors"),
}  # fmt: skip
_PART_OF: Final = {module: part for part, modules in PARTS.items() for module in modules}

NOTES: Final = (
    "Redis and the register cannot be switched off: they are the queue and the truth about each request.",
    "Celery: 0, it is not on the path.",
    f"'{OBJECTS}' holds the CPU of threads that run no Python: the client's own, in Rust.",
)


def part_of(stack: Sequence[str]) -> str:
    """Return the part that a stack belongs to: that of the innermost frame whose module is known."""
    parts = (_part_of_module(name.partition(":")[0]) for name in reversed(stack))
    return next((part for part in parts if part), OTHER)


@cache
def _part_of_module(module: str) -> str | None:
    while module:
        if module in _PART_OF:
            return _PART_OF[module]
        module = module.rpartition(".")[0]
    return None


def by_part(stacks: Mapping[Stack, float]) -> dict[str, float]:
    """Return seconds by part, the greatest first."""
    parts: dict[str, float] = defaultdict(float)
    for stack, seconds in stacks.items():
        parts[part_of(stack)] += seconds
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


# The measuring ------------------------------------------------------------------------------------


@dataclass
class Run:
    """What one run spent, in seconds of CPU by process."""

    seconds: dict[str, float]
    samples: int = 0
    stacks: dict[str, dict[Stack, float]] = field(default_factory=dict)


class Child:
    """A measured process. Each line that it is told has one answer."""

    def __init__(self, process: subprocess.Popen[bytes], role: str) -> None:
        self._process = process
        self._role = role

    def hear(self) -> Any:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], GIVE_UP_SECONDS)[0]:
            raise SluiceError(f"the {self._role} gave no sign for {GIVE_UP_SECONDS:g} s")
        line = output.readline()
        if not line:
            raise SluiceError(f"the {self._role} ended; what it said stands above")
        return json.loads(line)

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()


@contextmanager
def child(task: Task) -> Iterator[Child]:
    command = [sys.executable, "-m", "benchmarks.where_child", json.dumps(vars(task))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        made = Child(process, task.role)
        made.hear()
        yield made
        process.communicate(b"\n", timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def run_once(task: Task) -> Run:
    """Run worker and submitter once."""
    running = Servers(Path(os.environ["SLUICE_HOME"]), Settings()).running()
    pids = {"Redis": running[REDIS].pid, "S3 server": running[S3].pid}
    with child(task) as worker, child(replace(task, role="submitter")) as submitter:
        worker.tell()
        worker.hear()
        before = {name: _seconds(pid) for name, pid in pids.items()}
        submitter.tell()
        submitted = submitter.hear()
        spent = {name: _seconds(pid) - before[name] for name, pid in pids.items()}
        worker.tell()
        worked = worker.hear()
    if failed := {status: n for status, n in submitted["statuses"].items() if status not in {"succeeded", "escalated"}}:
        raise SluiceError(f"requests did not succeed, nothing was measured: {failed}")
    halves = {"submitter": submitted, "worker": worked}
    stacks = {name: {tuple(stack): s for stack, s in half.get("stacks", ())} for name, half in halves.items()}
    seconds = {**{name: half["seconds"] for name, half in halves.items()}, **spent}
    return Run(seconds, sum(half.get("samples", 0) for half in halves.values()), stacks)


def _seconds(pid: int) -> float:
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


def merged(runs: Sequence[Run]) -> Run:
    """Return what ``runs`` spent on average; samples are added."""
    total: dict[str, dict[Stack, float]] = {}
    for run in runs:
        for name, stacks in run.stacks.items():
            into = total.setdefault(name, defaultdict(float))
            for stack, spent in stacks.items():
                into[stack] += spent / len(runs)
    seconds = {name: statistics.fmean(run.seconds[name] for run in runs) for name in runs[0].seconds}
    return Run(seconds, sum(run.samples for run in runs), total)


@dataclass(frozen=True)
class Saved:
    """What switching a part off saves: worker CPU of each run without it, and of the full runs around it."""

    without: list[float]
    around: list[float]

    @property
    def differences(self) -> list[float]:
        return [full - off for full, off in zip(self.around, self.without, strict=True)]


@dataclass(frozen=True)
class Found:
    profile: Run
    plain: float
    saved: dict[str, Saved]


def measure(task: Task, repeats: int) -> Found:
    """Profile ``repeats`` runs; then switch each part off as often, every such run between two full ones."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed}/{task.total} runs"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        shown = bar.add_task("", total=repeats * (1 + 2 * len(SWITCHED_OFF)) + 1)

        def run(description: str, wanted: Task) -> Run:
            bar.update(shown, description=description)
            done = run_once(wanted)
            bar.advance(shown)
            return done

        profile = merged([run("profile", replace(task, profile=True)) for _ in range(repeats)])
        fulls = [run(FULL, task).seconds["worker"]]
        saved = {name: Saved([], []) for name in SWITCHED_OFF}
        for name in [*SWITCHED_OFF] * repeats:
            saved[name].without.append(run(f"{name} off", replace(task, off=name)).seconds["worker"])
            fulls.append(run(FULL, task).seconds["worker"])
            saved[name].around.append(statistics.fmean(fulls[-2:]))
    return Found(profile, statistics.fmean(fulls), saved)


# What is told -------------------------------------------------------------------------------------


def profile_table(run: Run, requests: int) -> str:
    total = sum(run.seconds.values())

    def row(process: str, part: str, seconds: float) -> str:
        return f"| {process} | {part} | {seconds * 1000 / requests:.3f} | {seconds / total:.1%} |"

    lines = ["| process | part | ms per request | share |", "|---|---|---|---|"]
    for process, seconds in run.seconds.items():
        parts = by_part(run.stacks.get(process, {}))
        lines += [row(process, part, spent) for part, spent in parts.items()]
        lines.append(row(process, "**all**", seconds))
    return "\n".join([*lines, row("**total**", "", total)])


def saved_table(saved: Mapping[str, Saved], requests: int) -> str:
    lines = ["| switched off | instead | worker, full | without | saves | from .. to |", "|---|---|---|---|---|---|"]
    for name, runs in saved.items():
        means = [statistics.fmean(each) * 1000 / requests for each in (runs.around, runs.without, runs.differences)]
        spread = [edge * 1000 / requests for edge in (min(runs.differences), max(runs.differences))]
        cells = [name, SWITCHED_OFF[name], *(f"{mean:.3f}" for mean in means), f"{spread[0]:.3f} .. {spread[1]:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def standard_error(run: Run, seconds: float) -> float:
    """Return how uncertain a part of ``seconds`` is that the main threads spent, in seconds."""
    sampled = sum(s for stacks in run.stacks.values() for stack, s in stacks.items() if stack[0] == "main")
    return math.sqrt(seconds * sampled / max(run.samples, 1))


def told_text(found: Found, task: Task, repeats: int) -> str:
    """Return everything that was found, for a person."""
    plain, profiled = (s * 1000 / task.requests for s in (found.plain, found.profile.seconds["worker"]))
    error = standard_error(found.profile, 0.1e-3 * task.requests) * 1000 / task.requests
    notes = [
        f"{task.requests} requests a run, {repeats} runs of each kind, {task.concurrency} at a time in each pool.",
        f"{found.profile.samples} samples: a part of 0.1 ms is uncertain by {error:.3f} ms (one standard error).",
        f"The sampler's cost: the worker spends {plain:.3f} ms without it, {profiled:.3f} ms with it.",
        *NOTES,
    ]
    tables = (profile_table(found.profile, task.requests), "Worker CPU, ms per request:")
    return "\n\n".join([*tables, saved_table(found.saved, task.requests), "\n".join(f"* {note}" for note in notes)])


def told_json(found: Found, task: Task) -> str:
    """Return everything that was found, in milliseconds for each request."""

    def ms(seconds: float) -> float:
        return round(seconds * 1000 / task.requests, 4)

    processes = {
        name: {"all": ms(seconds), **{part: ms(s) for part, s in by_part(found.profile.stacks.get(name, {})).items()}}
        for name, seconds in found.profile.seconds.items()
    }
    saved = {
        name: {"without": [*map(ms, runs.without)], "full": [*map(ms, runs.around)]}
        for name, runs in found.saved.items()
    }
    return json.dumps({"requests": task.requests, "profile": processes, "plain": ms(found.plain), "off": saved})


def draw(found: Found, task: Task, out: Path) -> None:
    stacks = found.profile.stacks["worker"]
    title = f"CPU of a worker that serves {task.requests} requests over both hops; colours are parts"
    (out / "where.svg").write_text(svg(stacks, title, part_of))
    (out / "where.txt").write_text(collapsed(stacks))


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, is {text!r}")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=at_least_one, default=1000, help="requests in each run (default: 1000)")
    parser.add_argument("--repeats", type=at_least_one, default=2, help="runs of each kind (default: 2)")
    parser.add_argument("--concurrency", type=at_least_one, default=16, help="requests at a time in a pool")
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder of the flame graph (default: build)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: {error.strerror}: {arguments.out}")
    task = Task("worker", "", arguments.requests, arguments.concurrency, profile=False)
    try:
        with servers():
            found = measure(task, arguments.repeats)
    except SluiceError as error:
        report(error)
        sys.exit(error.exit_code)
    draw(found, task, arguments.out)
    print(told_json(found, task) if arguments.json else told_text(found, task, arguments.repeats))
    print(f"flame graph: {arguments.out / 'where.svg'}, stacks: {arguments.out / 'where.txt'}", file=sys.stderr)


if __name__ == "__main__":
    main()
