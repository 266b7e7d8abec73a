"""The one place that names every queue, Redis key and object key."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

PREFIX: Final = "{sluice}"
"""All Redis keys share this hash tag, so that one script may touch several of them, on a sharded server too."""

INTENT_POOL: Final = "intent"


# Pools and queues -------------------------------------------------------------------------------


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


def ref(tenant: str, request_id: str, revision: int = 1, step: str | None = None) -> str:
    """Return the name of a request in the register: unique across tenants. With ``step`` that of a step of its plan."""
    return f"{tenant}/{row_id(request_id, revision, step)}"


def row_id(request_id: str, revision: int, step: str | None) -> str:
    """Return the id of a row: the request's own, or that of a step of one of its revisions."""
    return f"{plan_ref(request_id, revision)}.{step}" if step else request_id


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


# Objects --------------------------------------------------------------------------------------------


def result(tenant: str, request_id: str, revision: int = 1) -> str:
    """Return the key of a result revision in the data bucket."""
    suffix = "" if revision == 1 else f".r{revision}"
    return f"results/{tenant}/{request_id}{suffix}.json"


def plan(tenant: str, request_id: str, revision: int = 1) -> str:
    """Return the key of the plan of a revision of a request."""
    return f"plans/{tenant}/{request_id}.r{revision}.json"


def step_result(tenant: str, request_id: str, revision: int, step: str) -> str:
    """Return the key of the result of one step of a plan."""
    return f"steps/{tenant}/{request_id}.r{revision}/{step}.json"


def body(tenant: str, request_id: str, digest: str) -> str:
    """Return the key of a request body that was too large for its message."""
    return f"bodies/{tenant}/{request_id}~{digest}.json"


def manifest(origin: str, part: int) -> str:
    """Return the key of part ``part``, from 1, of what became of an object that asked for requests."""
    return f"{MANIFESTS}{origin}/{part:06d}.jsonl"


def session(tenant: str, session_id: str, version: int) -> str:
    """Return the key of one version of a session."""
    return f"{session_prefix(tenant, session_id)}{version:08d}.json"


def session_prefix(tenant: str, session_id: str) -> str:
    """Return the prefix of all versions of a session. The ``~`` keeps an id of dots from being a path."""
    return f"{sessions(tenant)}{session_id}~/"


def sessions(tenant: str) -> str:
    """Return the prefix of all sessions of a tenant."""
    return f"sessions/{tenant}/"


def parse_session(key: str) -> tuple[str, int]:
    """Return session id and version; raises :class:`ValueError` where ``key`` is none of a session's version."""
    _, _, folder, name = key.split("/")
    return folder.removesuffix("~"), int(name.removesuffix(".json"))


def escalations(tenant: str) -> str:
    """Return the prefix of all escalations of a tenant, and of the answers to them."""
    return f"escalations/{tenant}/"


def escalation(tenant: str, request_id: str, revision: int) -> str:
    """Return the key that says that a person is to answer: the revision that it names is the one that escalated."""
    return f"{escalations(tenant)}{request_id}.r{revision}.json"


def escalation_answer(tenant: str, request_id: str, revision: int) -> str:
    """Return the key of a person's answer to an escalation."""
    return f"{escalations(tenant)}{request_id}.r{revision}.answer.json"


class EscalationKey(NamedTuple):
    """What the key of an escalation, or of the answer to one, says."""

    request_id: str
    revision: int
    is_answer: bool


def parse_escalation(key: str) -> EscalationKey:
    """Return the parts of the key of an escalation or its answer; raises :class:`ValueError` where it is none."""
    found = _ESCALATION.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is not the key of an escalation")
    return EscalationKey(found[1], int(found[2]), found[3] is not None)


def journal_prefix(tenant: str, request_id: str, revision: int, step: str) -> str:
    """Return the prefix of the tool calls of one step, which is empty for a request that is no plan's."""
    return f"journal/{tenant}/{request_id}.r{revision}~{step}/"


def journal_entry(prefix: str, tool: str, digest: str, occurrence: int, state: str) -> str:
    """Return the key that says that a tool call has ``begun`` or is ``done``."""
    return f"{prefix}{tool}~{digest}~{occurrence:04d}.{state}.json"


def parse_journal_entry(prefix: str, key: str) -> tuple[str, str, int, str]:
    """Return tool, digest, occurrence and state; raises :class:`ValueError` where ``key`` is no such entry."""
    tool, digest, rest = key.removeprefix(prefix).removesuffix(".json").split("~")
    occurrence, state = rest.split(".")
    return tool, digest, int(occurrence), state


def attachment_prefix(tenant: str) -> str:
    """Return the prefix under which a tenant's attachments lie."""
    return f"attachments/{tenant}/"


def is_attachment(tenant: str, key: str) -> bool:
    """Tell whether ``key`` lies under a tenant's attachments, and says so plainly."""
    parts = key.split("/")
    return key.startswith(attachment_prefix(tenant)) and not {"", ".", ".."} & set(parts) and key.isprintable()


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


def stream(component: str, host: str, boot: str) -> str:
    """Return the name of a process's audit stream: pool (or pools, by ``+``), host, and an id of its own."""
    return f"{component}~{_UNSAFE.sub('-', host)}~{boot}"


def stream_component(stream_name: str) -> str:
    """Return whose key may sign for a stream: the pool (or pools, by ``+``), ``door``, ``sweeper``, ``sealer``."""
    return stream_name.partition("~")[0]


def segment(stream_name: str, first_sequence: int, time: datetime) -> str:
    """Return the key of an audit segment in the audit bucket. Keys sort by time, to the millisecond of UTC."""
    moment = f"{time:%Y/%m/%d/%H/%M%S}.{time.microsecond // 1000:03d}"
    return f"{AUDIT_PREFIX}{moment}~{stream_name}~{first_sequence:012d}.jsonl.zst"


def segment_after(time: datetime) -> str:
    """Return what sorts just before every segment of ``time`` and later."""
    return f"{AUDIT_PREFIX}{time:%Y/%m/%d/%H/%M%S}.{time.microsecond // 1000:03d}"


class SegmentKey(NamedTuple):
    """What a segment's key says."""

    time: datetime
    stream: str
    first: int


def parse_segment(key: str) -> SegmentKey:
    """Return the parts of a segment's key; raises :class:`ValueError` where it is none."""
    found = _SEGMENT.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is not the key of a segment")
    time = datetime(*map(int, found.group(*range(1, 7))), int(found[7]) * 1000, tzinfo=UTC)  # type: ignore[misc,arg-type]
    return SegmentKey(time, found[8], int(found[9]))


UPLOADS: Final = "uploads/"
"""The prefix in the data bucket under which an object that appears becomes requests."""
MANIFESTS: Final = "manifests/"
"""The prefix of what became of each line of an uploaded object."""
AUDIT_PREFIX: Final = "audit/"
FIRST_YEAR: Final = 2000
"""Nothing is older: a time near the first year that a calendar knows cannot be looked back from."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9.-]")
_ESCALATION: Final = re.compile(r"escalations/[^/]+/([^/]+)\.r([0-9]+)(\.answer)?\.json")
_SEGMENT: Final = re.compile(
    r"audit/([2-9][0-9]{3})/([0-9]{2})/([0-9]{2})/([0-9]{2})/([0-9]{2})([0-9]{2})\.([0-9]{3})"
    r"~([A-Za-z0-9._+~-]+)~([0-9]{12})\.jsonl\.zst"
)

CHECKPOINTS: Final = "checkpoints/"
_CHECKPOINT: Final = re.compile(r"checkpoints/([0-9]{12})")
LEDGER: Final = "ledger/"


def checkpoint(number: int) -> str:
    """Return the key of a checkpoint, in the audit bucket and at the witness."""
    return f"{CHECKPOINTS}{number:012d}"


def parse_checkpoint(key: str) -> int | None:
    """Return the number that ``key`` has among the checkpoints, None where it is the key of none."""
    found = _CHECKPOINT.fullmatch(key)
    return int(found[1]) if found else None


def leaves(number: int, digest: str) -> str:
    """Return the key of the list of the segments that checkpoint ``number`` sealed."""
    return f"{LEDGER}{number:012d}-leaves-{digest}.zst"


def ledger_state(number: int, digest: str) -> str:
    """Return the key of the tree's frontier and the marks of streams at checkpoint ``number``."""
    return f"{LEDGER}{number:012d}-state-{digest}.zst"
