"""Redis keys: queues in flight, the register, the board."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "{sluice}"
"""All Redis keys share this hash tag, so that one script may touch several of them, on a sharded server too."""


_DELIVERY: Final = "~callback"
"""No step is called so: the id of one follows a dot."""


def waiting(queue_name: str) -> str:
    """Return the Redis list of the messages that wait in a queue; the next one is at its right end."""
    return f"{PREFIX}:waiting:{queue_name}"


def bell(queue_name: str) -> str:
    """Return the Redis channel that says that an empty queue is no longer empty."""
    return f"{PREFIX}:bell:{queue_name}"


def unacked(pool: str) -> str:
    """Return the Redis hash of the pool's delivered, unacknowledged messages: tag to queue, newline, message."""
    return f"{PREFIX}:unacked:{pool}"


def unacked_index(pool: str) -> str:
    """Return the Redis sorted set of the same tags by the time of delivery, or of the last heartbeat since."""
    return f"{PREFIX}:unacked_index:{pool}"


def ref(tenant: str, request_id: str, revision: int = 1, step: str | None = None) -> str:
    """Return the name of a request in the register: unique across tenants. With ``step`` that of a step of its plan."""
    return f"{tenant}/{row_id(request_id, revision, step)}"


def row_id(request_id: str, revision: int, step: str | None) -> str:
    """Return the id of a row: the request's own, or that of a step of one of its revisions."""
    return f"{plan_ref(request_id, revision)}.{step}" if step else request_id


def delivery_id(request_id: str, revision: int) -> str:
    """Return the id of the row of a callback: that a revision has ended is to be told."""
    return f"{plan_ref(request_id, revision)}{_DELIVERY}"


def is_delivery(row: str) -> bool:
    """Tell whether the id (or ref) of a row is that of a callback."""
    return row.endswith(_DELIVERY)


def plan_ref(reference: str, revision: int) -> str:
    """Return what the refs of all steps of a revision begin with, before a dot. No id has a ``#``."""
    return f"{reference}#r{revision}"


def request_of(row: str) -> str:
    """Return the id (or ref) of the request that the id (or ref) of a row belongs to."""
    return row.partition("#")[0]


def step_of(row: str) -> str:
    """Return the id of the step that the id (or ref) of a row names, empty where it is the request itself."""
    return row.partition("#")[2].partition(".")[2]


def joined(plan_reference: str) -> str:
    """Return the set of the steps of a plan that have ended; see :func:`plan_ref`."""
    return f"{PREFIX}:joined:{plan_reference}"


def row(reference: str) -> str:
    """Return the hash that holds an open request."""
    return f"{PREFIX}:row:{reference}"


def done(reference: str) -> str:
    """Return the tombstone that remembers the digest of a finished request for a while."""
    return f"{PREFIX}:done:{reference}"


def session_line(tenant: str, session_id: str) -> str:
    """Return the list of open requests of a session, oldest first."""
    return f"{PREFIX}:session:{tenant}/{session_id}"


def session_cache(tenant: str, session_id: str) -> str:
    """Return the hash that holds a copy of a session's newest version, with expiry. Losing it costs a listing."""
    return f"{PREFIX}:session_cache:{tenant}/{session_id}"


def queued(queue_name: str) -> str:
    """Return the sorted set of requests published to a queue and not begun, by time of publishing."""
    return f"{PREFIX}:queued:{queue_name}"


def open_requests(tenant: str) -> str:
    """Return the set of a tenant's open requests."""
    return f"{PREFIX}:open:{tenant}"


def admitted(tenant: str) -> str:
    """Return the set of those of a tenant's open requests that have a slot: they are in a queue, or run."""
    return f"{PREFIX}:admitted:{tenant}"


def throttled(tenant: str) -> str:
    """Return the sorted set of those that wait in the register for a slot, the first one in front."""
    return f"{PREFIX}:throttled:{tenant}"


def usage(tenant: str, day: str) -> str:
    """Return the hash of what a tenant used on a day (``YYYY-MM-DD``, UTC)."""
    return f"{PREFIX}:usage:{tenant}:{day}"


THROTTLED: Final = f"{PREFIX}:throttled_tenants"
"""Set of the tenants that have requests waiting for a slot."""
LEASES: Final = f"{PREFIX}:leases"
"""Sorted set of the requests that an attempt holds, by the end of the lease."""
UNPUBLISHED: Final = f"{PREFIX}:unpublished"
"""Sorted set of the requests that wait in the register, by the time from which they may be published."""
DEADLINES: Final = f"{PREFIX}:deadlines"
"""Sorted set of the open requests that have a deadline, by it."""
WORKERS: Final = f"{PREFIX}:workers"
"""Hash of the live workers: name to JSON of pool, pid, host, model version, load, and time of the last heartbeat."""
POOLS: Final = f"{PREFIX}:pools"
"""Hash of what the autoscaler last saw and wanted: pool to JSON."""


WEIGHTS: Final = f"{PREFIX}:weights"
"""JSON of the weights of the shards, with expiry: see :class:`tasks.contracts.weights.Weights`."""
COORDINATOR: Final = f"{PREFIX}:coordinator"
"""Hash with expiry: who may write the weights (``holder``), by which fencing token (``token``)."""
COORDINATOR_FENCE: Final = f"{PREFIX}:coordinator_fence"
"""Counter of the fencing tokens that were given out."""


def canary(family: str, number: int) -> str:
    """Return the hash that counts what both versions said while promotion ``number`` of ``family`` was a canary."""
    return f"{PREFIX}:canary:{family}:{number}"


def alert_window(rule: str, tenant: str) -> str:
    """Return the key that says that an alert of ``rule`` was raised for ``tenant``, until its window ends."""
    return f"{PREFIX}:alert:{rule}:{tenant}"


def alert_seen(rule: str, tenant: str) -> str:
    """Return the set of the records that count towards the threshold of ``rule`` for ``tenant``."""
    return f"{PREFIX}:alert_seen:{rule}:{tenant}"


def watched(bucket: str, prefix: str) -> str:
    """Return the hash of the objects below a prefix that were seen: key to version. Its field ``""`` is always there.

    Losing it costs work and doubles nothing: objects are taken again, and ask for the requests that they asked for.
    """
    return f"{PREFIX}:watched:{bucket}/{prefix}"


REVOKED: Final = f"{PREFIX}:revoked"
"""Hash of what was revoked: one of the entries below to the Unix time until which grants are void."""


def revoked_request(tenant: str, request_id: str) -> str:
    """Return the entry that revokes the grants of one request."""
    return f"request:{tenant}/{request_id}"


def revoked_subject(tenant: str, subject: str) -> str:
    """Return the entry that revokes what one subject, or operator, was granted in a tenant."""
    return f"subject:{tenant}/{subject}"


def revoked_key(kid: str) -> str:
    """Return the entry that revokes whatever a key signed."""
    return f"key:{kid}"
