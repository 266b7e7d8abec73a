"""The audit's sealer on a schedule."""

from __future__ import annotations

from typing import Any

from handlers.aws.container import container


def handler(_event: object, _context: object) -> dict[str, Any] | None:
    """Write the checkpoint that is due; return what it has, or None where another sealer was first."""
    here = container()

    async def once() -> dict[str, Any] | None:
        import msgspec

        from tasks.scheduled import open_sealer

        async with open_sealer(here.settings) as sealer:
            sealed = await sealer.run_once(force=True)
            return None if sealed is None else msgspec.to_builtins(sealed)

    return here.run(once())
