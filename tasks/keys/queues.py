"""Pools, and the queues that they serve."""

from __future__ import annotations

from typing import Final

INTENT_POOL: Final = "intent"
CALLBACK_POOL: Final = "callbacks"
"""The pool that tells others by HTTP how their requests ended."""


def agent_pool(agent_type: str) -> str:
    """Return the name of the pool that serves ``agent_type``."""
    return f"agents.{agent_type}"


def shard_pool(pool: str, shard: str) -> str:
    """Return the name of the pool that is ``shard`` of ``pool``."""
    return f"{pool}@{shard}"


def base_pool(pool: str) -> str:
    """Return the pool that ``pool`` is a shard of, or itself where it is none."""
    return pool.partition("@")[0]


def shard_of(pool: str) -> str:
    """Return which shard ``pool`` is, empty where it is none."""
    return pool.partition("@")[2]


def queue(pool: str, priority: str) -> str:
    """Return the queue of ``pool`` for ``priority`` (``normal`` or ``high``)."""
    name, at, shard = pool.partition("@")
    base = "requests" if name == INTENT_POOL else name
    return f"{base}.high{at}{shard}" if priority == "high" else f"{base}{at}{shard}"


def queues(pool: str) -> tuple[str, str]:
    """Return both queues of ``pool``, the one that is polled first in front."""
    return queue(pool, "high"), queue(pool, "normal")


DEAD_LETTERS: Final = "dead-letters"
"""The queue of requests that used up their attempts. Nothing consumes it but a redrive."""
QUARANTINE: Final = "quarantine"
"""The queue of messages that no door wrote. Nothing consumes it."""
UPLOADED: Final = "uploads"
"""The queue of S3's notices of objects below :data:`UPLOADS`."""
EVENTS: Final = "events"
"""The queue that producers send requests to on AWS; a door reads it."""


def sqs_queue(deployment: str, queue_name: str) -> str:
    """Return the name in SQS of a queue of ``deployment``: only letters, digits, ``-`` and ``_`` may stand there.

    Unique, because no agent type has a ``-`` and no shard begins with ``high``.
    """
    return f"{deployment}-{queue_name.replace('.', '-').replace('@', '-')}"
