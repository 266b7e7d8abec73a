"""``sluice trace ID``: a request and the steps of its plan, as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from handlers.cli.common import console, json_option, print_json, run, settings_of

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from handlers.trace import Trace, TracedStep
    from tasks.contracts.result import Step, Usage
    from tasks.settings import Settings

_COLOURS: Final = {
    "succeeded": "green",
    "running": "cyan",
    "waiting": "yellow",
    "delayed": "yellow",
    "escalated": "magenta",
    "parked": "dim",
    "not begun": "dim",
    "cancelled": "dim",
}
_OTHER: Final = "red"
_WIDE: Final = 72
"""Characters of an instruction or an error that a line shows."""


@click.command()
@click.argument("request_id")
@click.option("--tenant", default="default", show_default=True, help="Whose request it is.")
@click.option("--revision", type=click.IntRange(min=1), help="Which revision (default: the newest).")
@json_option
@click.pass_context
def trace(ctx: click.Context, *, request_id: str, tenant: str, revision: int | None, as_json: bool) -> None:
    """Draw REQUEST_ID with the steps of its plan: who does what, how far it is, what it took."""
    found = run(_traced(settings_of(ctx), tenant, request_id, revision))
    if as_json:
        print_json(found.to_dict())
    else:
        console().print(drawn(found))


async def _traced(settings: Settings, tenant: str, request_id: str, revision: int | None) -> Trace:
    from handlers.trace import Tracer
    from tasks.access.redact import Redactor
    from tasks.stores.connect import connect

    async with connect(settings) as stores:
        tracer = Tracer(stores.register, stores.results, stores.plans, Redactor.of(settings.auditing).text)
        return await tracer.trace(tenant, request_id, revision)


def drawn(found: Trace) -> Tree:
    """Return ``found`` as a tree for a terminal."""
    from rich.tree import Tree

    name = found.request_id if found.revision == 1 else f"{found.request_id} (revision {found.revision})"
    intent = f"{found.intent.label} {found.intent.confidence:.2f}" if found.intent else ""
    seconds = f"{found.seconds:.2f} s" if found.seconds is not None else ""
    where = f"in {found.queue}" if found.queue else ""
    tree = Tree(_line(name, found.state, intent, found.agent_type, where, seconds, _used(found.usage)))
    if found.error:
        tree.add(_plain(f"{found.error.code}: {found.error.message}", _OTHER))
    for step in found.steps:
        _add(tree, step)
    for call in found.calls:
        tree.add(_call(call))
    return tree


def _add(tree: Tree, step: TracedStep) -> None:
    agent = step.agent.type if step.agent else ""
    took = f"{step.milliseconds / 1000:.2f} s" if step.milliseconds is not None else ""
    tries = f"attempt {step.attempts}" if step.attempts and step.attempts > 1 else ""
    after = f"after {', '.join(step.depends_on)}" if step.depends_on else ""
    branch = tree.add(_line(step.name, step.state, agent, after, took, _used(step.usage), tries))
    branch.add(_plain(_short(step.instruction), "dim"))
    if step.error:
        branch.add(_plain(_short(f"{step.error.code}: {step.error.message}"), _OTHER))
    for call in step.calls:
        branch.add(_call(call))


def _line(name: str, state: str, *parts: str | None) -> Text:
    from rich.text import Text

    line = Text(name, style="bold")
    line.append(f"  {state}", style=_COLOURS.get(state, _OTHER))
    line.append("".join(f"  {part}" for part in parts if part), style="not bold")
    return line


def _call(call: Step) -> Text:
    took = f"  {call.milliseconds / 1000:.2f} s" if call.milliseconds is not None else ""
    return _plain(f"{call.name}{took}  {_short(call.detail)}", "" if call.ok else _OTHER)


def _plain(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)


def _used(usage: Usage | None) -> str:
    tokens = usage.input_tokens + usage.output_tokens if usage else 0
    return f"{tokens} tokens" if tokens else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDE else f"{line[: _WIDE - 1]}…"
