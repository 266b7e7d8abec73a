"""A world behind signed grants, and the messages that somebody who can write to its queues would put there."""

from typing import Any

import orjson

from tasks.access.gate import Caller
from tasks.access.signing import KeyRing, Keys
from tasks.agents.fake import FakeRunner
from tasks.attempt import Disposition
from tasks.contracts.base import canonical
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.hop import Hop
from tasks.settings import GrantSettings
from tasks.stores.broker import Parcel
from tasks.stores.revocations import MemoryRevocations
from tests.support import build, trust
from tests.support.world import RESPONDER, World

QUEUES = ["requests", "requests.high", RESPONDER, f"{RESPONDER}.high"]
POOLS = ["requests", RESPONDER]


class Guarded(World):
    """A world behind signed grants. ``alice`` may ask in ``default`` alone, ``bob`` in ``other`` alone, as users."""

    def __init__(self) -> None:
        super().__init__()
        self.alice = trust.keys(trust.scope(tenants=("default",)))
        self.bob = trust.keys(trust.scope(tenants=("other",), subjects=("bob",)))
        self.ring = KeyRing([*self.alice.ring, *self.bob.ring])
        self.revocations = MemoryRevocations()
        self.runner = FakeRunner()
        self.gate = self.gate_of(self.alice)
        self.caller = Caller("alice", ("user",))

    def gate_of(self, keys: Keys, **settings: Any) -> Any:
        trusted = Keys(keys.signers, self.ring)
        return trust.gate(trusted, self.clock, revocations=self.revocations, settings=GrantSettings(**settings))

    def hop(self, queue: str) -> Hop:
        return self.route() if queue.startswith("requests") else self.work(self.runner)

    async def put(self, queue: str, message: Message | dict[str, Any]) -> Disposition:
        """Put ``message`` on ``queue`` as somebody would who can write there, and let the hop have it."""
        raw = message if isinstance(message, dict) else orjson.loads(message.to_bytes())
        self.broker.queues[queue].appendleft(Parcel(queue, "", canonical(raw).decode(), self.clock.seconds))
        return await self.deliver(self.hop(queue), queue)

    def granted(self, asked: Request, *, by: Keys | None = None, **fields: Any) -> Message:
        """The message that a door with the key of ``by`` would write."""
        keys = by or self.alice
        caller = Caller("bob" if keys is self.bob else "alice", ("user",))
        return build.message(asked, grant=self.gate_of(keys).mint(asked, caller), **fields)


def ready(queue: str, message: Message) -> Message:
    """As a hop before would have left it."""
    priority = "high" if queue.endswith(".high") else "normal"
    made = message.changed(priority=priority)
    return made if queue.startswith("requests") else made.changed(agent_type="responder", intent=build.intent())


def asked_for(queue: str, **fields: Any) -> Request:
    return build.request(priority="high" if queue.endswith(".high") else "normal", **fields)
