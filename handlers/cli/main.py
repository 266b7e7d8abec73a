"""The command line ``sluice``. Each command is imported when it is used: cold start counts."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from tasks.errors import SluiceError

COMMANDS: Final = {
    "up": ("handlers.cli.stack:up", "Start the embedded servers, the scheduler and the autoscaler."),
    "down": ("handlers.cli.stack:down", "Stop everything that `up` started."),
    "status": ("handlers.cli.status:status", "Show servers, queues, workers and the model version."),
    "submit": ("handlers.cli.submit:submit", "Submit one request, or a file of them."),
    "result": ("handlers.cli.submit:result", "Show the result of a request, waiting for it if need be."),
    "cancel": ("handlers.cli.cancel:cancel", "Cancel a request that has not ended."),
    "trace": ("handlers.cli.trace:trace", "Draw a request and the steps of its plan, finished or not."),
    "session": ("handlers.cli.session:session", "Show, list and delete sessions."),
    "escalations": ("handlers.cli.escalations:escalations", "List, read and answer what waits for a person."),
    "dlq": ("handlers.cli.dlq:dlq", "List, read, redrive and drop dead letters."),
    "demo": ("handlers.cli.demo:demo", "Run the main job from nothing to results, and back to zero workers."),
    "bench": ("handlers.cli.bench:bench", "Measure the pipeline on this machine: speed, CPU, latency, memory."),
    "worker": ("handlers.cli.worker:worker", "Run one worker process of a pool."),
    "scale": ("handlers.cli.scale:scale", "Render Kubernetes manifests; simulate scaling."),
    "events": ("handlers.cli.events:events", "Take objects and messages as requests, as the Lambda handlers do."),
    "http": ("handlers.cli.http:http", "Serve the HTTP door."),
    "autoscale": ("handlers.cli.worker:autoscale", "Run the local autoscaler."),
    "sweep": ("handlers.cli.worker:sweep", "Put back what fell between two steps; end what is overdue."),
    "intent": ("handlers.cli.intent:intent", "Classify texts; evaluate, train, publish and promote classifiers."),
    "seal": ("handlers.cli.worker:seal", "Seal the audit: write a signed checkpoint."),
    "audit": ("handlers.cli.audit:audit", "Read and verify the audit trail."),
    "keys": ("handlers.cli.keys:keys", "Make, list and revoke signing keys."),
    "policy": ("handlers.cli.policy:policy", "Check the policies, and explain a decision."),
    "usage": ("handlers.cli.usage:usage", "Show what a tenant used on a day, and what it may."),
    "doctor": ("handlers.cli.doctor:doctor", "Check the environment and say what is missing."),
}

OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000
"""Python's own 700 has the collector look, in vain, at everything that is imported: a twentieth of a cold start."""


class LazyGroup(click.Group):
    """A group whose commands are imported by name when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help="The settings file (default: pipeline.yaml here).")
@click.version_option(package_name="sluice")
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Run a queue-driven pipeline for LLM agents: routed by BERT, scaled to zero, audited.

    Exit codes: 0 done, 1 failed, 2 bad input, 3 something is not running or not installed, 4 timed out,
    5 stored data does not verify, 75 over a quota (try again later), 77 not permitted.
    """
    ctx.obj = config


def main() -> None:
    """Run the command line and exit with the code that the error at hand stands for.

    The process ends here and now: threads of the object store's client that still run while the interpreter is taken
    apart would abort it, and the exit code would be theirs.
    """
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    code = _run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _run() -> int:
    try:
        code: Any = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SluiceError as error:
        report(error)
        return error.exit_code
    except OSError as error:
        report(SluiceError(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")))
        return SluiceError.exit_code
    return code if isinstance(code, int) else 0


def report(error: SluiceError) -> None:
    """Say what went wrong: as JSON where the command was asked for JSON."""
    if "--json" in sys.argv:
        import orjson

        click.echo(orjson.dumps({"error": {"code": error.code, "message": str(error)}}))
    else:
        click.echo(f"error: {error}", err=True)


if __name__ == "__main__":
    main()
