"""Hop 1: read the intent, choose the agent type, hand over to its pool."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from tasks.access.policy import Act
from tasks.attempt import Attempt, Deps
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action
from tasks.contracts.result import IntentInfo
from tasks.contracts.row import Stage
from tasks.hop import Hop

OVERRIDE = "override"
"""The model version that stands in a result whose intent was given by the producer."""

Classify = Callable[[Asked], Awaitable[IntentInfo]]
"""By the text of a request; its tenant and id say which model reads it."""


class Route(Hop):
    """Classifies through ``classify``, which batches what arrives at the same time."""

    stage = Stage.ROUTE

    def __init__(self, deps: Deps, classify: Classify) -> None:
        super().__init__(deps)
        self._classify = classify

    async def attempt(self, attempt: Attempt, request: Asked) -> None:
        """Route ``request``; durable in the audit before it is on the next queue."""
        begun = time.perf_counter()
        if request.intent:
            intent = IntentInfo(label=request.intent, confidence=1.0, model_version=OVERRIDE)
        else:
            intent = await self._classify(request)
        agent_type = self.deps.settings.agent_for(intent.label)
        self.allow(attempt, Act.AGENT_INVOKE, agent_type)
        message = attempt.message.changed(
            intent=intent,
            agent_type=agent_type,
            routed_at=self.deps.now(),
            classify_ms=round((time.perf_counter() - begun) * 1000, 3),
        )
        pool = self.deps.place(agent_type)
        routed = self.event(
            attempt,
            Action.INTENT_OVERRIDE if request.intent else Action.INTENT_ROUTED,
            resource=pool,
            intent=intent.label,
            confidence=intent.confidence,
            model_version=intent.model_version,
        )
        await self.deps.audit.commit([routed])
        self.deps.finisher.passed("routed")
        await self.hand_over(attempt, message, pool)
