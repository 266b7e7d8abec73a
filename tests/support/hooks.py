"""Whoever is called back, in memory."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tasks import keys
from tests.support.world import World

URL = "https://hooks.example.org/done"
CALLBACKS = keys.CALLBACK_POOL


class Hooks:
    """A receiver: ``answers`` one after the other, then 200."""

    def __init__(self, *answers: int | httpx.Response) -> None:
        self.answers = list(answers)
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        given = self.answers.pop(0) if self.answers else 200
        return given if isinstance(given, httpx.Response) else httpx.Response(given)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(call.content) for call in self.seen]

    @property
    def ids(self) -> list[str]:
        return [call.headers["webhook-id"] for call in self.seen]


async def call(world: World, hooks: Hooks, **parts: Any) -> None:
    """Hand the next callback to a worker."""
    await world.sweep_until_published(CALLBACKS)
    await world.deliver(world.calling(hooks, **parts), CALLBACKS)
