"""What a tenant may have at a time and use in a day: from the settings to what the register counts.

The register counts refs, not numbers: a request is a member of its tenant's sets from its acceptance to its end, so a
process that dies leaves no count behind.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tasks.contracts.result import Result, own_usage
from tasks.errors import QuotaExceeded
from tasks.settings import QuotaSettings
from tasks.stores.register import Limits, Opened, Spent

_MILLION = 1_000_000


def day_of(time: datetime) -> str:
    """Return the day of budgets that ``time`` (UTC) is in."""
    return f"{time:%Y-%m-%d}"


def limits(settings: QuotaSettings, tenant: str) -> Limits:
    """Return what the register holds ``tenant`` to."""
    quota = settings.of(tenant)
    most_open = None if quota.max_waiting is None else quota.max_waiting + (quota.max_running or 0)
    micros = None if quota.money_per_day is None else round(quota.money_per_day * _MILLION)
    return Limits(most_open, quota.max_running, quota.tokens_per_day, micros)


def spent(settings: QuotaSettings, result: Result) -> Spent:
    """Return what ``result`` cost. A model without a price costs nothing, and is counted as unpriced.

    The steps of a plan are not in it: each was counted with the price of its own model when it ended.
    """
    usage = own_usage(result)
    price = settings.prices.get(result.agent.model) if result.agent else None
    # A price for a million tokens is in money what one token costs in millionths of it.
    micros = round(usage.input_tokens * price.input + usage.output_tokens * price.output) if price else 0
    has_tokens = usage.input_tokens + usage.output_tokens > 0
    return Spent(
        day=day_of(result.timings.finished_at),
        requests=0 if result.step else 1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        micros=micros,
        unpriced=int(has_tokens and price is None),
    )


def exceeded(settings: QuotaSettings, tenant: str, opened: Opened, now: datetime) -> QuotaExceeded:
    """Return the error for a request that was not opened because of its tenant's quota."""
    quota = settings.of(tenant)
    if opened is Opened.FULL:
        return QuotaExceeded(
            f"tenant {tenant!r} has {quota.max_waiting} requests waiting, as many as quotas allow; "
            f"try again in {settings.retry_seconds} s",
            retry_seconds=settings.retry_seconds,
        )
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    seconds = int((midnight - now).total_seconds()) + 1
    return QuotaExceeded(
        f"tenant {tenant!r} has used up its budget of {day_of(now)} (UTC); try again in {seconds} s",
        retry_seconds=seconds,
    )
