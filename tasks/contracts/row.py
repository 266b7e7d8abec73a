"""One open request in the register: the truth about where it stands."""

from __future__ import annotations

from enum import StrEnum

from tasks.contracts.base import Contract


class Stage(StrEnum):
    """Which hop a request waits for or is in. ``DELIVER``: a callback of it, which has a row of its own."""

    ROUTE = "route"
    WORK = "work"
    DELIVER = "deliver"


class Row(Contract, frozen=True, kw_only=True):
    """A register row. Times are Unix seconds; ``message`` is the JSON that is published, and published again if lost.

    ``generation`` counts the times that the request was handed to a queue, so that an old confirmation is not taken
    for a new one; ``losses`` how often its message was then gone with nobody at it. ``holder`` is the attempt that has
    the lease, empty when none has. ``throttled``: it waits for a slot of its tenant, see docs/quotas.md. ``steps`` are
    the ids of the steps of its plan, apart by spaces, once they are set off.
    """

    tenant: str
    id: str
    digest: str
    stage: Stage
    revision: int = 1
    queue: str
    message: str
    accepted_at: float
    published: bool = False
    recorded: bool = False
    generation: int = 0
    queued_at: float = 0.0
    due: float = 0.0
    attempts: int = 0
    losses: int = 0
    holder: str = ""
    lease_end: float = 0.0
    deadline: float | None = None
    session: str = ""
    parked: bool = False
    throttled: bool = False
    steps: str = ""

    @property
    def state(self) -> str:
        """Return the word that a person reads: ``waiting``, ``running``, ``parked`` or ``delayed``."""
        if self.holder:
            return "running"
        if self.parked or self.throttled:
            return "parked"
        return "waiting" if self.published else "delayed"
