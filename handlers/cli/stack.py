"""``sluice up`` and ``sluice down``."""

from __future__ import annotations

import click

from handlers.cli.common import json_option, print_json, settings_of, teller


@click.command()
@json_option
@click.pass_context
def up(ctx: click.Context, *, as_json: bool) -> None:
    """Start the embedded servers, the scheduler and the autoscaler; what runs already is left alone."""
    from scaling.stack import Stack
    from tasks.settings_load import home

    settings = settings_of(ctx)
    stack = Stack(home(), settings)
    environment = stack.up(teller(quiet=as_json))
    processes = {name: spawned.pid for name, spawned in stack.running().items()}
    if as_json:
        public = {name: value for name, value in environment.items() if "KEY" not in name and "REDIS" not in name}
        print_json({"processes": processes, "environment": public, "environment_file": str(stack.folder / "env")})
        return
    click.echo(
        f"The stack is up in {stack.folder}; its variables are in {stack.folder / 'env'} and found by themselves."
    )
    click.echo('Next: sluice submit "What is a webhook?" --wait')


@click.command()
@click.option("--purge", is_flag=True, help="Delete the data too.")
@json_option
@click.pass_context
def down(ctx: click.Context, *, purge: bool, as_json: bool) -> None:
    """Stop everything that `up` started: workers drain first."""
    from scaling.stack import Stack
    from tasks.settings_load import home

    folder = home()
    stopped = Stack(folder, settings_of(ctx)).down(purge=purge, tell=teller(quiet=as_json))
    if as_json:
        print_json({"stopped": stopped, "purged": purge})
    else:
        click.echo(f"{len(stopped)} processes stopped" if stopped else "nothing was running")
