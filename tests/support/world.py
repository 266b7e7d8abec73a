"""A whole pipeline in memory: stores that outlive a process, processes that can die, a clock that a test turns."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import orjson

from handlers.acting import Acting
from handlers.desk import Desk
from handlers.door import Accepted, Door
from tasks import keys
from tasks.access.gate import Caller, Gate, OpenGate
from tasks.access.redact import Redactor
from tasks.access.signing import audit_purpose
from tasks.access.sources import throwaway
from tasks.agents.fake import FakePlanner, FakeRunner
from tasks.agents.types import AgentRunner, Planner
from tasks.attempt import Deps, Disposition
from tasks.audit import read as trail
from tasks.audit.stream import AuditStream
from tasks.contracts.asked import Asked
from tasks.contracts.audit import AuditRecord
from tasks.contracts.request import Request
from tasks.contracts.result import IntentInfo, Result
from tasks.courier import Courier
from tasks.deliver import Deliver
from tasks.finish import Finisher
from tasks.heartbeat import Heartbeat
from tasks.hop import Hop
from tasks.route import Route
from tasks.settings import Settings
from tasks.stores.bodies import BodyStore
from tasks.stores.broker import MemoryBroker
from tasks.stores.escalations import EscalationStore
from tasks.stores.journal import JournalStore
from tasks.stores.memory_register import MemoryRegister
from tasks.stores.objects import MemoryObjectStore
from tasks.stores.plans import PlanStore
from tasks.stores.relay import TwoStepRelay
from tasks.stores.results import ResultStore
from tasks.stores.session_cache import MemorySessionCache
from tasks.stores.sessions import SessionStore
from tasks.sweep import Sweeper
from tasks.work import Work
from tests.support import build
from tests.support.clock import Clock

RESPONDER = "agents.responder"
HUMAN = "agents.human_escalation"
MASTER = b"m" * 32
"""What callbacks are signed with."""


class Died(BaseException):
    """A process was killed. No ``except Exception`` can catch it, as none can catch SIGKILL."""


class FlakyStore(MemoryObjectStore):
    """Raises ``fail`` while it is set; counts writes; a test may ``await`` or hold up each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: Exception | None = None
        self.writes: list[str] = []
        self.free = asyncio.Event()
        self.free.set()

    async def create(self, key: str, data: bytes) -> None:
        self.writes.append(key)
        await self.free.wait()
        if self.fail:
            raise self.fail
        await super().create(key, data)


class Steps:
    """Remembers the steps that were passed, and dies at the one that ``die_at`` names."""

    def __init__(self, die_at: str = "") -> None:
        self.die_at = die_at
        self.passed: list[str] = []

    def __call__(self, step: str) -> None:
        self.passed.append(step)
        if step == self.die_at:
            raise Died(step)


async def classify(_asked: Asked) -> IntentInfo:
    """Take everything for a question."""
    return build.intent()


class World:
    """Stores, a clock and settings; processes of every kind on top."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.settings = Settings()
        self.register = MemoryRegister()
        self.broker = MemoryBroker()
        self.data = FlakyStore()
        self.audit_store = FlakyStore()
        self.results = ResultStore(self.data)
        self.plans = PlanStore(self.data)
        self.session_cache = MemorySessionCache()
        self.sessions = SessionStore(self.data, self.session_cache)
        self.escalations = EscalationStore(self.data)
        self.keys = throwaway()
        self.gate: Gate = OpenGate()
        self.place: Callable[[str], str] = keys.agent_pool
        self._streams: list[AuditStream] = []

    @property
    def relay(self) -> TwoStepRelay:
        return TwoStepRelay(self.register, self.broker)

    def stream(self, name: str = "test") -> AuditStream:
        """Return a new process's audit stream. It writes when it has to, never by time."""
        redact = Redactor(self.settings.auditing.sensitive_fields).value
        stream = AuditStream(
            name,
            self.audit_store,
            host="test",
            signer=self.keys.signer(audit_purpose(name)),
            redact=redact,
            now=self.clock,
            flush_seconds=3600,
        )
        self._streams.append(stream)
        return stream

    def finisher(self, audit: AuditStream, passed: Callable[[str], None] = lambda _: None) -> Finisher:
        return Finisher(
            audit=audit,
            results=self.results,
            sessions=self.sessions,
            escalations=self.escalations,
            register=self.register,
            broker=self.broker,
            relay=self.relay,
            now=self.clock,
            remember_seconds=self.settings.leases.remember_seconds,
            quotas=self.settings.quotas,
            passed=passed,
        )

    def heartbeat(self, pool: str = RESPONDER) -> Heartbeat:
        async def beacon(_running: int) -> None:
            return

        return Heartbeat(
            pool=pool,
            register=self.register,
            broker=self.broker,
            settings=self.settings.leases,
            now=self.clock,
            beacon=beacon,
        )

    def deps(self, pool: str, passed: Callable[[str], None] = lambda _: None) -> Deps:
        audit = self.stream(keys.base_pool(pool))
        return Deps(
            settings=self.settings,
            worker=f"{pool}@test",
            pool=pool,
            gate=self.gate,
            audit=audit,
            register=self.register,
            broker=self.broker,
            relay=TwoStepRelay(self.register, self.broker, passed=passed),
            bodies=BodyStore(self.data, inline_bytes=self.settings.queue.inline_bytes),
            results=self.results,
            plans=self.plans,
            journal=JournalStore(self.data),
            sessions=self.sessions,
            escalations=self.escalations,
            finisher=self.finisher(audit, passed),
            heartbeat=self.heartbeat(pool),
            redact=Redactor(self.settings.auditing.sensitive_fields).text,
            now=self.clock,
            place=self.place,
        )

    def door(self) -> Door:
        return Door(
            self.settings,
            name="test",
            gate=self.gate,
            audit=self.stream("door"),
            register=self.register,
            relay=self.relay,
            bodies=BodyStore(self.data, inline_bytes=self.settings.queue.inline_bytes),
            results=self.results,
            now=self.clock,
        )

    def desk(self, passed: Callable[[str], None] = lambda _: None) -> Desk:
        """Return what cancels and tells; waiting turns the clock."""
        audit = self.stream("door")

        async def sleep(seconds: float) -> None:
            self.clock.advance(seconds)

        return Desk(
            acting=lambda caller: Acting(caller, self.gate, audit, self.clock),
            register=self.register,
            results=self.results,
            plans=self.plans,
            finisher=self.finisher(audit, passed),
            settings=self.settings,
            redact=Redactor(self.settings.auditing.sensitive_fields).text,
            now=self.clock,
            sleep=sleep,
        )

    async def cancel(self, asked: Request, passed: Callable[[str], None] = lambda _: None) -> Result:
        """Have ``alice`` cancel a request."""
        return await self.desk(passed).cancel(asked.tenant, asked.id, caller=Caller("alice", ("user",)))

    def route(self, reads: Any = classify, *, passed: Callable[[str], None] = lambda _: None) -> Route:
        return Route(self.deps(keys.INTENT_POOL, passed), reads)

    def work(
        self,
        runner: AgentRunner | None = None,
        *,
        pool: str = RESPONDER,
        planner: Planner | None = None,
        passed: Callable[[str], None] = lambda _: None,
    ) -> Work:
        return Work(self.deps(pool, passed), runner or FakeRunner(), planner or FakePlanner())

    def calling(self, receiver: Callable[[httpx.Request], httpx.Response], **parts: Any) -> Deliver:
        """Return the hop of callbacks before ``receiver``. Every host is at one public address."""

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["93.184.216.34"]

        passed = parts.pop("passed", lambda _: None)
        courier = Courier(self.settings.callbacks, resolve=resolve, transport=httpx.MockTransport(receiver))
        return Deliver(self.deps(keys.CALLBACK_POOL, passed), courier, **{"masters": [MASTER], **parts})

    def sweeper(self, passed: Callable[[str], None] = lambda _: None) -> Sweeper:
        audit = self.stream("sweeper")
        return Sweeper(
            self.settings,
            register=self.register,
            broker=self.broker,
            relay=self.relay,
            audit=audit,
            gate=self.gate,
            plans=self.plans,
            results=self.results,
            finisher=self.finisher(audit, passed),
            redact=Redactor(self.settings.auditing.sensitive_fields).text,
            now=self.clock,
        )

    async def accept(self, text: str = "What is a sluice?", **fields: Any) -> Request:
        """Let a request in."""
        asked = build.request(text, **fields)
        [outcome] = await self.door().accept([asked], caller=Caller("alice", ("user",)))
        assert isinstance(outcome, Accepted), outcome
        return asked

    async def routed(self, text: str = "What is a sluice?", **fields: Any) -> Request:
        """Let a request in and route it, so that it waits for the responder."""
        asked = await self.accept(text, **fields)
        assert await self.deliver(self.route(), "requests") is Disposition.ACK
        return asked

    async def deliver(self, hop: Hop, queue: str) -> Disposition:
        """Hand the next message of ``queue`` to ``hop``."""
        return await hop.handle(orjson.loads(self.broker.take(queue).message), "tag")

    async def sweep_until_published(self, queue: str) -> None:
        """Turn the clock until the sweeper has put something on ``queue``."""
        sweeper = self.sweeper()
        for _ in range(30):
            if self.broker.queues[queue]:
                return
            self.clock.advance(self.settings.leases.heartbeat_seconds)
            await sweeper.run_once()
        raise AssertionError(f"nothing came back to {queue}")

    async def result(self, asked: Request) -> Result | None:
        return await self.results.get(asked.tenant, asked.id)

    async def records(self, asked: Request) -> list[AuditRecord]:
        """Return the durable audit records of a request."""
        return await trail.read(self.audit_store, request_id=asked.id)

    async def actions(self, asked: Request) -> Counter[str]:
        """Count the durable audit records of a request by action."""
        return Counter(record.action.value for record in await self.records(asked))

    async def close(self) -> None:
        self.audit_store.fail = None
        self.audit_store.free.set()
        for stream in self._streams:
            with contextlib.suppress(asyncio.CancelledError):
                await stream.close()
