"""Opens the stores that the settings name. Real ones only: tests put fakes in their place."""

from __future__ import annotations

import time
from typing import Self

from msgspec import Struct

from tasks.settings import Settings
from tasks.stores.board import Board
from tasks.stores.bodies import BodyStore
from tasks.stores.broker import Broker
from tasks.stores.escalations import EscalationStore
from tasks.stores.journal import JournalStore
from tasks.stores.link import Link
from tasks.stores.objects import ObjectStore
from tasks.stores.plans import PlanStore
from tasks.stores.redis_broker import RedisBroker
from tasks.stores.redis_register import RedisRegister
from tasks.stores.redis_relay import RedisRelay
from tasks.stores.relay import Relay, TwoStepRelay
from tasks.stores.results import ResultStore
from tasks.stores.revocations import RedisRevocations
from tasks.stores.s3 import audit_store, data_store
from tasks.stores.secrets import SCHEME, secret
from tasks.stores.session_cache import SessionCache
from tasks.stores.sessions import SessionStore


class Stores(Struct, frozen=True):
    """One process's connections. Not shared between event loops."""

    link: Link
    board: Board
    register: RedisRegister
    broker: Broker
    relay: Relay
    revocations: RedisRevocations
    data: ObjectStore
    audit: ObjectStore
    bodies: BodyStore
    results: ResultStore
    plans: PlanStore
    journal: JournalStore
    sessions: SessionStore
    escalations: EscalationStore

    async def __aenter__(self) -> Self:
        """Return the open stores."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.broker.close()
        await self.link.close()


def connect(settings: Settings) -> Stores:
    """Return the stores. Connections are made when they are first used."""
    link = Link(_address(settings.redis_url))
    data = data_store(settings)
    register = RedisRegister(link)
    broker, relay = _queues(settings, link, register)
    return Stores(
        link=link,
        board=Board(link),
        register=register,
        broker=broker,
        relay=relay,
        revocations=RedisRevocations(link),
        data=data,
        audit=audit_store(settings),
        bodies=BodyStore(data, inline_bytes=settings.queue.inline_bytes),
        results=ResultStore(data),
        plans=PlanStore(data),
        journal=JournalStore(data),
        sessions=SessionStore(data, SessionCache(link, seconds=settings.sessions.cache_seconds)),
        escalations=EscalationStore(data),
    )


def _address(url: str) -> str:
    """Return the URL of a server, which may lie in a secret, as it has a password."""
    return secret(url).decode().strip() if url.startswith(SCHEME) else url


def _queues(settings: Settings, link: Link, register: RedisRegister) -> tuple[Broker, Relay]:
    """Return the broker that ``broker_url`` names, and the relay that goes with it."""
    if settings.broker_url is None:
        return RedisBroker(link), RedisRelay(link)
    broker = _own_broker(_address(settings.broker_url), settings.region)
    return broker, TwoStepRelay(register, broker)


def _own_broker(url: str, region: str) -> Broker:
    if url.startswith(("amqp://", "amqps://")):
        from tasks.stores.rabbitmq_broker import RabbitBroker

        return RabbitBroker(url)
    from tasks.stores.sqs_broker import QueueUrls, SqsBroker

    return SqsBroker(QueueUrls(url), region=region, loop_time=time.monotonic)
