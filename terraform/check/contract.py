"""What Terraform takes from the Python code: names and defaults. ``contract.json`` is written from here."""

from __future__ import annotations

from typing import Any

from handlers.opening import DOOR
from tasks import keys, seal, sweep
from tasks.settings import AgentSettings, Settings


def contract() -> dict[str, Any]:
    """Return every name and default that Terraform needs."""
    settings = Settings()
    agents = {agent.type: {"fallback": agent.fallback} for agent in settings.agents}
    high = keys.queue(keys.INTENT_POOL, "high").removeprefix(intent := keys.queue(keys.INTENT_POOL, "normal"))
    return {
        "pools": {
            "intent": keys.INTENT_POOL,
            "callbacks": keys.CALLBACK_POOL,
            "agent_prefix": keys.agent_pool(""),
            "planner": "planner",
        },
        "queues": {
            "intent": intent,
            "high_suffix": high,
            "dead_letters": keys.DEAD_LETTERS,
            "quarantine": keys.QUARANTINE,
            "uploads": keys.UPLOADED,
            "events": keys.EVENTS,
        },
        "objects": {
            "results": _top(keys.result("t", "r")),
            "sessions": _top(keys.session_prefix("t", "s")),
            "bodies": _top(keys.body("t", "r", "d")),
            "plans": _top(keys.plan("t", "r")),
            "steps": _top(keys.step_result("t", "r", 1, "s")),
            "escalations": _top(keys.escalations("t")),
            "journal": _top(keys.journal_prefix("t", "r", 1, "s")),
            "attachments": _top(keys.attachment_prefix("t")),
            "models": _top(keys.model_versions("f")),
            "uploads": keys.UPLOADS,
            "manifests": keys.MANIFESTS,
            "audit": keys.AUDIT_PREFIX,
            "checkpoints": keys.CHECKPOINTS,
            "ledger": keys.LEDGER,
        },
        "components": {"door": DOOR, "sweeper": sweep.ACTOR, "sealer": seal.ACTOR},
        "defaults": {
            "agent": {"fallback": AgentSettings(type="any").fallback},
            "agents": agents,
            "queue": {"visibility_seconds": settings.queue.visibility_seconds, "attempts": settings.queue.attempts},
            "auditing": {
                "retention_days": settings.auditing.retention_days,
                "seal_seconds": settings.auditing.seal_seconds,
            },
            "grants": {"max_age_days": settings.grants.max_age_days},
        },
    }


def _top(key: str) -> str:
    return key.partition("/")[0] + "/"
