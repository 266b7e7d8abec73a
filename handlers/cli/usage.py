"""``sluice usage``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of
from tasks.settings import Settings


@click.command()
@click.option("--tenant", default="default", show_default=True)
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="In UTC (default: today); kept for 100 days.")
@json_option
@click.pass_context
def usage(ctx: click.Context, *, tenant: str, day: datetime | None, as_json: bool) -> None:
    """Show what a tenant used on a day, what it has open now, and what it may."""
    chosen = day or datetime.now(UTC)
    seen = run(look(settings_of(ctx), tenant, f"{chosen:%Y-%m-%d}"))
    if as_json:
        print_json(seen)
        return
    used, now, most = seen["used"], seen["now"], seen["quota"]
    tokens = used["input_tokens"] + used["output_tokens"]
    print_table(
        f"{tenant} on {seen['day']} (UTC)",
        ("what", "used", "quota"),
        [
            ("requests", used["requests"], "-"),
            ("tokens read", used["input_tokens"], "-"),
            ("tokens written", used["output_tokens"], "-"),
            ("tokens", tokens, _or_none(most["tokens_per_day"])),
            ("money", f"{used['money']:.6f}", _or_none(most["money_per_day"])),
            ("in queues or running now", now["admitted"], _or_none(most["max_running"])),
            ("waiting for a slot now", now["throttled"], _or_none(most["max_waiting"])),
        ],
    )
    if used["unpriced"]:
        click.echo(f"{used['unpriced']} requests used a model without a price in quotas.prices", err=True)


async def look(settings: Settings, tenant: str, day: str) -> dict[str, Any]:
    """Return usage, load and quota of ``tenant``."""
    import msgspec

    from tasks.stores.connect import connect

    async with connect(settings) as stores:
        used = await stores.register.usage(tenant, day)
        load = await stores.register.load(tenant)
    money = used.pop("micros") / 1_000_000
    return {
        "tenant": tenant,
        "day": day,
        "used": {**used, "money": money},
        "now": load,
        "quota": msgspec.to_builtins(settings.quotas.of(tenant)),
    }


def _or_none(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:g}"
