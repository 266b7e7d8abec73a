"""The tables of docs/terraform.md that are computed: what is made, and what it costs a month."""

from __future__ import annotations

import json
from typing import Any, Final

from terraform.check import render

PAGE: Final = render.ROOT.parent / "docs" / "terraform.md"
PRICES: Final = render.ROOT / "prices.json"
_MILLIONS: Final = (1, 100)


def write() -> None:
    """Renew the tables in the page."""
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")


def renewed(page: str) -> str:
    """Return the page with its tables as they should be."""
    counts = json.loads(render.FILE.read_text("utf-8"))["counts"]
    prices = json.loads(PRICES.read_text("utf-8"))
    for name, table in (("resources", _resources(counts)), ("costs", _costs(prices, counts))):
        before, head, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        page = "".join([before, head, table, end, after])
    return page


def _resources(counts: dict[str, dict[str, int]]) -> str:
    lines = ["| module | resources |", "|---|---|"]
    for module, kinds in sorted(counts.items()):
        made = ", ".join(
            f"{kind.removeprefix('aws_')}{f' ({number})' if number > 1 else ''}"
            for kind, number in sorted(kinds.items())
        )
        lines.append(f"| `{module}` | {made} |")
    total = sum(number for kinds in counts.values() for number in kinds.values())
    return "\n".join([*lines, f"| all | {total} resources |", ""])


def standing(prices: dict[str, Any], counts: dict[str, dict[str, int]]) -> dict[str, float]:
    """Return what each thing costs a month in US dollars while nothing is asked."""
    cost = {}
    for name, it in prices["standing"].items():
        number = it.get("count") or sum(kinds.get(it["counted"], 0) for kinds in counts.values()) - it.get("less", 0)
        month = it.get("usd_per_month") or it["usd_per_hour"] * prices["hours_per_month"]
        cost[name] = number * month
    return cost


def per_million(prices: dict[str, Any]) -> dict[str, float]:
    """Return what a million requests add in US dollars."""
    return {name: it["usd"] * it["calls"] for name, it in prices["per_million_requests"].items()}


def _costs(prices: dict[str, Any], counts: dict[str, dict[str, int]]) -> str:
    idle, busy = standing(prices, counts), per_million(prices)
    pages = {name: it["page"] for part in ("standing", "per_million_requests") for name, it in prices[part].items()}
    heads = "".join(f" {number} million |" for number in _MILLIONS)
    lines = [
        f"| US dollars a month, {prices['region']} | idle |{heads} price page |",
        "|---|---:|" + "---:|" * len(_MILLIONS) + "---|",
    ]
    for name, cost in idle.items():
        lines.append(f"| {name} | {cost:,.2f} |" + f" {cost:,.2f} |" * len(_MILLIONS) + f" {pages[name]} |")
    for name, cost in busy.items():
        lines.append(
            f"| {name} | 0.00 |" + "".join(f" {cost * number:,.2f} |" for number in _MILLIONS) + f" {pages[name]} |"
        )
    base, more = sum(idle.values()), sum(busy.values())
    lines.append(
        f"| **all** | **{base:,.0f}** |" + "".join(f" **{base + more * number:,.0f}** |" for number in _MILLIONS) + " |"
    )
    said = f"{prices['source']} Date: {prices['date']}. Not counted: {prices['not_counted']}."
    return "\n".join([*lines, "", said, ""])
