"""``sluice intent canary``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from handlers.cli.common import json_option, print_json, print_table, run, settings_of

if TYPE_CHECKING:
    from tasks.settings import Settings

_FEW: Final = 100
"""Requests below which a comparison says little."""


def _family(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", value):
        raise click.BadParameter("must be lower-case letters, digits, - and _, a letter first")
    return value


family_option = click.option("--family", callback=_family, help="Default: the configured family.")


def percent(share: float) -> str:
    """Return a share (0..1) as people write it; nothing for none."""
    return f"{share * 100:.4g}%" if share else ""


@click.command()
@family_option
@json_option
@click.pass_context
def canary(ctx: click.Context, *, family: str | None, as_json: bool) -> None:
    """Compare the canary with the version beside it, since the canary's promotion."""
    settings = settings_of(ctx)
    report = run(_canary(settings, family or settings.intent.family))
    if as_json:
        print_json(report)
        return
    if not report["canary"]:
        click.echo(f"{report['family']}: there is no canary; `sluice intent promote VERSION --share 10%` starts one")
        return
    _print_comparison(report)


async def _canary(settings: Settings, family: str) -> dict[str, Any]:
    from intent.canary import compare
    from intent.promotions import PromotionLog
    from tasks import keys
    from tasks.stores.connect import connect

    async with connect(settings) as stores:
        last = await PromotionLog(stores.data, family).latest()
        if last is None or last.canary is None:
            return {"family": family, "canary": None}
        counts = await stores.board.totals(keys.canary(family, last.number))
    versions = {"stable": str(last.stable), "canary": str(last.canary)}
    return {
        "family": family, **versions, "share": last.share, "since": last.at.isoformat(), "compared": compare(counts)
    }  # fmt: skip


def _print_comparison(report: dict[str, Any]) -> None:
    sides = [report["compared"]["stable"], report["compared"]["canary"]]
    rows: list[list[Any]] = [["requests", *(side["requests"] for side in sides)]]
    for name, key in (("mean confidence", "confidence"), ("p50 ms", "p50_ms"), ("p99 ms", "p99_ms")):
        rows.append([name, *("" if side[key] is None else f"{side[key]:.3g}" for side in sides)])
    rows.insert(2, ["abstained", *("" if side["abstained"] is None else f"{side['abstained']:.1%}" for side in sides)])
    labels = sorted({*sides[0]["labels"], *sides[1]["labels"]})
    rows.extend([label, *(f"{side['labels'].get(label, 0.0):.1%}" for side in sides)] for label in labels)
    title = f"{report['family']}: canary with {percent(report['share'])} since {report['since']}"
    print_table(title, ("", report["stable"], report["canary"]), rows)
    if report["compared"]["distance"] is not None:
        click.echo(f"labels differ by {report['compared']['distance']:.1%} (0% alike, 100% nothing in common)")
    if min(side["requests"] for side in sides) < _FEW:
        click.echo(f"fewer than {_FEW} requests on one side: chance may be all of the difference")
