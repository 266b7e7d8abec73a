"""The one place that names every queue, Redis key and object key."""

from __future__ import annotations

from datetime import datetime
from typing import Final

PREFIX: Final = "{sluice}"
"""All Redis keys share this hash tag, so that one script may touch several of them, on a sharded server too."""

INTENT_POOL: Final = "intent"


# Pools and queues -------------------------------------------------------------------------------


def agent_pool(agent_type: str) -> str:
    """Return the name of the pool that serves ``agent_type``."""
    return f"agents.{agent_type}"


def queue(pool: str, priority: str) -> str:
    """Return the queue of ``pool`` for ``priority`` (``normal`` or ``high``)."""
    base = "requests" if pool == INTENT_POOL else pool
    return f"{base}.high" if priority == "high" else base


def queues(pool: str) -> tuple[str, str]:
    """Return both queues of ``pool``, the one that is polled first in front."""
    return queue(pool, "high"), queue(pool, "normal")


DEAD_LETTERS: Final = "dead-letters"
"""The queue of requests that used up their attempts. Nothing consumes it but a redrive."""
QUARANTINE: Final = "quarantine"
"""The queue of messages that no door wrote. Nothing consumes it."""


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


# Register -----------------------------------------------------------------------------------------


def ref(tenant: str, request_id: str) -> str:
    """Return the name of a request in the register: unique across tenants."""
    return f"{tenant}/{request_id}"


def row(reference: str) -> str:
    """Return the hash that holds an open request."""
    return f"{PREFIX}:row:{reference}"


def done(reference: str) -> str:
    """Return the tombstone that remembers the digest of a finished request for a while."""
    return f"{PREFIX}:done:{reference}"


def session_line(tenant: str, session_id: str) -> str:
    """Return the list of open requests of a session, oldest first."""
    return f"{PREFIX}:session:{tenant}/{session_id}"


def queued(queue_name: str) -> str:
    """Return the sorted set of requests published to a queue and not begun, by time of publishing."""
    return f"{PREFIX}:queued:{queue_name}"


LEASES: Final = f"{PREFIX}:leases"
"""Sorted set of the requests that an attempt holds, by the end of the lease."""
UNPUBLISHED: Final = f"{PREFIX}:unpublished"
"""Sorted set of the requests that wait in the register, by the time from which they may be published."""
DEADLINES: Final = f"{PREFIX}:deadlines"
"""Sorted set of the open requests that have a deadline, by it."""
WORKERS: Final = f"{PREFIX}:workers"
"""Hash of the live workers: name to JSON of pool, pid, host, model version, and time of the last heartbeat."""
POOLS: Final = f"{PREFIX}:pools"
"""Hash of what the autoscaler last saw and wanted: pool to JSON."""


def canary(family: str, number: int) -> str:
    """Return the hash that counts what both versions said while promotion ``number`` of ``family`` was a canary."""
    return f"{PREFIX}:canary:{family}:{number}"


# Objects --------------------------------------------------------------------------------------------


def result(tenant: str, request_id: str, revision: int = 1) -> str:
    """Return the key of a result revision in the data bucket."""
    suffix = "" if revision == 1 else f".r{revision}"
    return f"results/{tenant}/{request_id}{suffix}.json"


def body(tenant: str, request_id: str, digest: str) -> str:
    """Return the key of a request body that was too large for its message."""
    return f"bodies/{tenant}/{request_id}~{digest}.json"


def session(tenant: str, session_id: str, version: int) -> str:
    """Return the key of one version of a session."""
    return f"{session_prefix(tenant, session_id)}{version:08d}.json"


def session_prefix(tenant: str, session_id: str) -> str:
    """Return the prefix of all versions of a session. The ``~`` keeps an id of dots from being a path."""
    return f"sessions/{tenant}/{session_id}~/"


def model_versions(family: str) -> str:
    """Return the prefix of all published versions of a family of intent models."""
    return f"models/{family}/versions/"


def model_file(family: str, version: str, name: str) -> str:
    """Return the key of one file of a published version."""
    return f"{model_versions(family)}{version}/{name}"


def promotions(family: str) -> str:
    """Return the prefix of the log of a family's promotions."""
    return f"models/{family}/promotions/"


def promotion(family: str, number: int) -> str:
    """Return the key of entry ``number`` of the log; the first is 1."""
    return f"{promotions(family)}{number:08d}.json"


def segment(stream: str, first_sequence: int, time: datetime) -> str:
    """Return the key of an audit segment in the audit bucket."""
    return f"audit/{time:%Y/%m/%d}/{stream}/{first_sequence:012d}.jsonl"


AUDIT_PREFIX: Final = "audit/"
