"""The register: one row for each open request, the leases on them, and what the sweeper has to look at.

Each method is atomic. ``now`` and all times are Unix seconds of the caller's clock; clocks of one deployment are
expected to agree within a second, and every period here is several.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from tasks.contracts.row import Row, Stage


class Opened(StrEnum):
    """What became of an attempt to open a row.

    ``THROTTLED``: created, and it waits for a slot of its tenant. ``FULL`` and ``SPENT``: not created, for too many
    wait already, or the day's budget is used up. ``UNFINISHED``: not created, for an earlier revision is still open.
    """

    CREATED = "created"
    SAME = "same"
    FINISHED = "finished"
    CONFLICT = "conflict"
    THROTTLED = "throttled"
    FULL = "full"
    SPENT = "spent"
    UNFINISHED = "unfinished"


class Verdict(StrEnum):
    """What an attempt to begin found.

    ``STARTED`` and ``EXHAUSTED`` hold the lease; the latter may only end the request. ``HELD``, ``STALE``, ``PARKED``,
    ``FINISHED`` and ``DROPPED`` mean: acknowledge and leave. ``DROPPED`` is said once, of a request that ended (it was
    cancelled, say) while its message waited, so that this one is no replay. ``UNKNOWN`` means that the register has
    never heard of it or has forgotten it. ``MISMATCH`` means that the body, or the message, is not the one that the
    register has.
    """

    STARTED = "started"
    EXHAUSTED = "exhausted"
    HELD = "held"
    STALE = "stale"
    PARKED = "parked"
    FINISHED = "finished"
    DROPPED = "dropped"
    UNKNOWN = "unknown"
    MISMATCH = "mismatch"


class Lease(NamedTuple):
    """The lease of the attempt ``holder`` at a revision of ``ref``."""

    ref: str
    holder: str
    revision: int = 1


class Kept(IntEnum):
    """What became of a lease: ``LOST``: another attempt has it. ``ENDED``: the request, or step, has ended without it.

    A row that is gone while nothing says that it ended was lost by the server: its lease counts as ``KEPT``.
    """

    LOST = 0
    KEPT = 1
    ENDED = 2


class Begun(Struct, frozen=True):
    """The verdict, and how many attempts this hop has had, this one included."""

    verdict: Verdict
    attempts: int = 0


class Limits(Struct, frozen=True):
    """What a tenant may have: open requests, slots, tokens and millionths of money a day. None: as much as it likes."""

    most_open: int | None = None
    slots: int | None = None
    tokens: int | None = None
    micros: int | None = None


NO_LIMITS: Final = Limits()


class Spent(Struct, frozen=True):
    """What a finished request used, on which day (``YYYY-MM-DD``, UTC). ``micros`` are millionths of money.

    The steps of its plan have used what they used by themselves, and are no ``requests``.
    """

    day: str
    requests: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    micros: int = 0
    unpriced: int = 0


SPENT_FIELDS: Final = ("input_tokens", "output_tokens", "micros", "unpriced")
_AHEAD: Final = 1e10


def turn(row: Row) -> float:
    """Return what orders the requests of a tenant that wait for a slot: high priority first, then as accepted."""
    return row.accepted_at - (_AHEAD if row.queue.endswith(".high") else 0.0)


class Handover(Struct, frozen=True):
    """Everything that changes when a request moves to another queue."""

    stage: Stage
    queue: str
    message: str


class Branch(Struct, frozen=True):
    """A step of a plan as the register knows it: its row, and the ids of the steps that have to end before it begins.

    Where a ``vital`` one fails, nobody waits for the others any more.
    """

    row: Row
    step: str
    needs: tuple[str, ...] = ()
    vital: bool = True


class Due(StrEnum):
    """Why the sweeper takes a row in hand."""

    UNPUBLISHED = "unpublished"
    LOST = "lost"
    LAPSED = "lapsed"


class Register(Protocol):
    """The port. ``ref`` is ``tenant/id``, see :func:`tasks.keys.ref`."""

    async def open(
        self, rows: Sequence[Row], *, due: float, limits: Sequence[Limits] = (), day: str = ""
    ) -> list[Opened]:
        """Create the rows that are new, unpublished; if nobody publishes one by ``due``, the sweeper does.

        ``limits`` are those of each row's tenant, ``day`` is that of the budgets. A later revision of a request is new
        once the one before it has ended.
        """

    async def outbox(self, row: Row, *, due: float, again: bool = False) -> bool:
        """Create the row of a callback unless it is there or over; tell whether it was created. See :meth:`open`.

        It counts as no request of its tenant. With ``again`` one that is over is created too.
        """

    async def published(self, marks: Sequence[tuple[str, str, int]], *, now: float) -> None:
        """Mark (ref, queue, generation) as published at ``now``, unless the row has moved on since."""

    async def begin(
        self,
        ref: str,
        *,
        stage: Stage,
        revision: int,
        digest: str,
        holder: str,
        now: float,
        lease: float,
        attempts: int,
        queue: str = "",
        seal: str = "",
    ) -> Begun:
        """Take the lease for ``lease`` seconds, or say why not. Counts an attempt, of ``attempts`` at most.

        ``queue`` is where the message was found and ``seal`` the SHA-1 of its JSON; where they are given, a row that
        waits in another queue is ``STALE`` for it, and one whose message is another a ``MISMATCH``.
        """

    async def extend(self, leases: Sequence[Lease], *, now: float, lease: float) -> list[Kept]:
        """Extend each lease that its holder still has by ``lease`` seconds from ``now``; tell what became of each."""

    async def advance(self, ref: str, holder: str, handover: Handover, *, due: float) -> int:
        """Move the request to its next queue and drop the lease; return the new generation.

        Raises:
            LeaseLost: another attempt has the lease.
        """

    async def postpone(self, ref: str, holder: str, *, due: float, counted: bool) -> None:
        """Drop the lease and have the request published again at ``due``; uncounted attempts are given back.

        Raises:
            LeaseLost: another attempt has the lease.
        """

    async def clear(
        self, ref: str, *, revision: int, digest: str, now: float, remember: int, spent: Spent | None = None
    ) -> str | None:
        """Remove the row of an ended revision, remember its digest for ``remember`` seconds, count what it ``spent``.

        With a request go the steps of its plan: no attempt at one of them begins or goes on. Returns the ref of the
        session's next request if that one was parked and is released now.
        """

    async def fan_out(
        self,
        ref: str,
        holder: str,
        branches: Sequence[Branch],
        *,
        steps: Sequence[str],
        ended: Sequence[str],
        due: float,
        look: float,
    ) -> list[str] | None:
        """Open the rows of ``branches`` that are new, and park the request without its lease until it is woken.

        ``steps`` are the ids of all steps of the plan, ``ended`` those that have a result. Returns the refs of the
        steps that are to be published now; what is not by ``due`` the sweeper publishes, and the request itself at
        ``look``, should nobody wake it. None: there is nothing to wait for, and the attempt keeps its lease.

        Raises:
            LeaseLost: another attempt has the lease.
        """

    async def join(self, ref: str, *, revision: int, step: str, ok: bool, now: float) -> list[str]:
        """Say that ``step`` of the plan of ``ref`` has its result; return the refs that need not wait any longer.

        Those are steps that needed it, and ``ref`` itself after its last step or a vital one that is not ``ok``.
        Nothing where the request has ended.
        """

    async def release(self, tenant: str, *, slots: int | None, now: float, due: float, most: int) -> list[Row]:
        """Give free slots to requests that wait for one, to ``most`` of them; return those to be published now.

        What the audit does not have yet is left to the sweeper, after ``due``.
        """

    async def throttled_tenants(self) -> list[str]:
        """Return the tenants that have requests waiting for a slot."""

    async def heal(self, tenant: str) -> None:
        """Take the slots from requests that are gone: a server that lost a row may have kept its slot."""

    async def usage(self, tenant: str, day: str) -> dict[str, int]:
        """Return what the tenant used on ``day``: the fields of :class:`Spent`, and ``requests``."""

    async def load(self, tenant: str) -> dict[str, int]:
        """Return how many requests of the tenant are ``open``, ``admitted`` and ``throttled``."""

    async def seize(self, ref: str, holder: str, *, now: float, lease: float) -> bool:
        """Take the lease without counting an attempt, unless a live one exists. For ending an overdue request."""

    async def seen(self, ref: str, *, now: float) -> None:
        """Say that the message of a published request was in its queue at ``now``: it is not lost."""

    async def get(self, ref: str) -> Row | None:
        """Return the row, or None."""

    async def are_open(self, refs: Sequence[str]) -> list[bool]:
        """Tell for each ref whether it has a row."""

    async def unpublished(self, *, now: float, limit: int) -> list[str]:
        """Return refs whose time to be published has come."""

    async def lost(self, queue: str, *, before: float, limit: int) -> list[str]:
        """Return refs that were published to ``queue`` before ``before`` and have not begun."""

    async def lapsed(self, *, before: float, limit: int) -> list[str]:
        """Return refs whose lease ended before ``before``."""

    async def overdue(self, *, now: float, limit: int) -> list[str]:
        """Return refs past their deadline."""

    async def reclaim(self, ref: str, why: Due, *, before: float, due: float) -> Row | None:
        """Take a row in hand to publish it again, if it still is what ``why`` says as of ``before``.

        Returns the row with its new generation, or None if it has moved on. Unpublished again until marked.
        """

    async def counts(self) -> dict[str, int]:
        """Return the number of rows that are ``leased`` and ``delayed`` (waiting in the register)."""
