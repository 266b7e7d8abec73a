"""``sluice cancel ID``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from handlers.cli.common import ID, json_option, print_json, run, settings_of, tenant_of_option

if TYPE_CHECKING:
    from tasks.contracts.result import Result
    from tasks.settings import Settings


@click.command()
@click.argument("request_id", type=ID)
@tenant_of_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, *, request_id: str, tenant: str, as_json: bool) -> None:
    """Cancel REQUEST_ID: its result is `cancelled`, and work on it stops within a heartbeat.

    One that is cancelled already is no error. One that ended otherwise is a conflict (exit code 2).
    """
    found = run(_cancelled(settings_of(ctx), tenant, request_id))
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(f"{request_id}: {found.error.message if found.error else found.status.value}")


async def _cancelled(settings: Settings, tenant: str, request_id: str) -> Result:
    from handlers.producer import AsyncProducer

    async with AsyncProducer(settings, tenant=tenant) as producer:
        return await producer.cancel(request_id)
