"""An attempt at a request: what a hop works with, and what becomes of the message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum

from msgspec import Struct

from tasks import keys
from tasks.access.gate import Gate
from tasks.access.grants import Grant
from tasks.audit.stream import AuditStream
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo
from tasks.errors import (
    CallbackRefused,
    CallInDoubt,
    InvalidInput,
    LimitExceeded,
    MalformedMessage,
    ModelRefused,
    NotReady,
    SluiceError,
)
from tasks.finish import Finisher
from tasks.heartbeat import Heartbeat
from tasks.settings import Settings
from tasks.stores.bodies import BodyStore
from tasks.stores.broker import Broker
from tasks.stores.escalations import EscalationStore
from tasks.stores.journal import JournalStore
from tasks.stores.plans import PlanStore
from tasks.stores.register import Lease, Register
from tasks.stores.relay import Relay, reference_of
from tasks.stores.results import ResultStore
from tasks.stores.sessions import SessionStore


class Disposition(Enum):
    """What the pool does with the message."""

    ACK = "ack"
    REQUEUE = "requeue"


class Deps(Struct, frozen=True):
    """Everything that a hop works with. ``place`` says which pool, or shard of it, gets work for an agent type."""

    settings: Settings
    worker: str
    pool: str
    gate: Gate
    audit: AuditStream
    register: Register
    broker: Broker
    relay: Relay
    bodies: BodyStore
    results: ResultStore
    plans: PlanStore
    journal: JournalStore
    sessions: SessionStore
    escalations: EscalationStore
    finisher: Finisher
    heartbeat: Heartbeat
    now: Callable[[], datetime]
    redact: Callable[[str], str]
    place: Callable[[str], str] = keys.agent_pool


class Attempt(Struct, frozen=True):
    """One try at one request. ``id`` is also the holder of the lease; ``grant`` vouches for the message."""

    id: str
    number: int
    message: Message
    grant: Grant
    started_at: datetime

    @property
    def ref(self) -> str:
        """Return the name in the register of the request, or of the step."""
        return reference_of(self.message)

    @property
    def lease(self) -> Lease:
        """Return the lease that it has."""
        return Lease(self.ref, self.id, self.message.revision)


def describe(error: Exception) -> ErrorInfo:
    """Return what a result or an audit record says of ``error``."""
    code = error.code if isinstance(error, SluiceError) else "internal"
    return ErrorInfo(code=code, message=str(error) or type(error).__name__)


def retryable(error: Exception) -> bool:
    """Tell whether trying again may help."""
    lost = ModelRefused | InvalidInput | NotReady | MalformedMessage | CallInDoubt | LimitExceeded | CallbackRefused
    return not isinstance(error, lost)
