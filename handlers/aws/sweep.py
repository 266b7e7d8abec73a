"""The sweeper on a schedule."""

from __future__ import annotations

from typing import Any

from handlers.aws.container import container


def handler(_event: object, _context: object) -> dict[str, Any]:
    """Put back what fell between two steps, end what is overdue; return the counts."""
    here = container()

    async def once() -> dict[str, Any]:
        import msgspec

        from tasks.scheduled import open_sweeper

        async with open_sweeper(here.settings) as sweeper:
            counts: dict[str, Any] = msgspec.to_builtins(await sweeper.run_once())
            return counts

    return here.run(once())
