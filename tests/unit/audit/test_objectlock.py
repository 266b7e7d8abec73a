"""Where the lock is asked for, a store without it is refused, with the mend."""

from typing import Any

import pytest

from tasks.errors import NotReady
from tasks.settings import AuditSettings, Settings
from tasks.stores.objectlock import demand_lock


def asked(*, immutable: bool = True) -> Settings:
    return Settings(auditing=AuditSettings(retention_days=30, immutable=immutable))


def locked(mode: str = "COMPLIANCE", **retention: int) -> dict[str, Any]:
    return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": mode, **retention}}}


@pytest.mark.parametrize("found", [locked(Days=31), locked(Days=400), locked(Years=1)])
async def test_a_bucket_that_locks_for_long_enough_is_accepted(found: dict[str, Any]) -> None:
    await demand_lock(asked(), lambda _: found)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "has no default retention"),
        ({"ObjectLockEnabled": "Enabled"}, "has no default retention"),
        (locked("GOVERNANCE", Days=400), "has no default retention"),
        (locked(Days=30), "locks for 30 days"),
        (locked(), "locks for 0 days"),
    ],
)
async def test_any_other_is_refused_with_the_mend(found: dict[str, Any] | None, why: str) -> None:
    with pytest.raises(NotReady, match=rf"sluice-audit {why}.* COMPLIANCE mode of 31 days"):
        await demand_lock(asked(), lambda _: found)


async def test_nobody_is_asked_where_it_is_not_wanted() -> None:
    def never(_: Settings) -> None:
        raise AssertionError

    await demand_lock(asked(immutable=False), never)
