"""Which intent a text has, and who serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from tasks.contracts.base import Label
from tasks.contracts.words import Intent
from tasks.settings.base import Count, Family, Positive, Section


class RoutingSettings(Section, frozen=True, kw_only=True):
    """Which agent type serves which intent, and who gets what nobody is sure about, or has no route.

    ``intents`` adds to the routes of the packaged model's labels. ``threshold`` replaces the confidence threshold
    that came with the model (0..1).
    """

    intents: dict[Label, str] = msgspec.field(default_factory=dict)
    fallback: str = "human_escalation"
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        """Add the routes that were left out."""
        msgspec.structs.force_setattr(self, "intents", {**_DEFAULT_ROUTES, **self.intents})


_DEFAULT_ROUTES: Final = {
    Intent.PLAN_TASK.value: "planner",
    Intent.QUERY_DATA.value: "executor",
    Intent.CALL_API.value: "executor",
    Intent.ANSWER_QUESTION.value: "responder",
    Intent.SUMMARIZE_TEXT.value: "responder",
    Intent.DRAFT_TEXT.value: "responder",
    Intent.TALK_TO_HUMAN.value: "human_escalation",
}


class IntentSettings(Section, frozen=True, kw_only=True):
    """The classifier. ``model_dir``, where it is set, is the model, and nothing else is looked at.

    Else the promoted version of ``family`` serves, and the model in the package until there is one. ``tenants`` gives
    tenants families of their own. ``cache_dir`` keeps fetched versions; ``cache_mb`` bounds the loaded ones.

    ``max_batch`` is texts per inference, ``max_batch_tokens`` the padded length times the count.
    ``latency_ms`` is the objective from arrival to answer: no batch is held for more beyond it.
    """

    model_dir: Path | None = None
    family: Family = "intent"
    tenants: dict[str, Family] = msgspec.field(default_factory=dict)
    refresh_seconds: Positive = 10
    cache_dir: Path | None = None
    cache_mb: Positive = 256
    threads: Count = 1
    max_batch: Count = 32
    max_batch_tokens: Count = 4096
    latency_ms: Positive = 50
