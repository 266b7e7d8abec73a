"""Small builders: each returns something valid, and takes what a test cares about."""

from datetime import UTC, datetime
from typing import Any

from tasks import keys
from tasks.contracts.audit import Action, Event
from tasks.contracts.message import Body, Message
from tasks.contracts.request import Request
from tasks.contracts.result import IntentInfo, Result, Status, Timings
from tasks.contracts.row import Row, Stage
from tasks.contracts.words import new_id

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
"""When the tests' clocks start."""
NOW = EPOCH.timestamp()


def request(text: str = "What is a sluice?", **fields: Any) -> Request:
    return Request(text=text, **fields)


def message(asked: Request | None = None, **fields: Any) -> Message:
    asked = asked or request()
    standard = {
        "id": asked.id,
        "tenant": asked.tenant,
        "digest": asked.digest(),
        "body": Body(encoding="json", data=asked.body().decode()),
        "priority": asked.priority,
        "session_id": asked.session_id,
        "deadline": asked.deadline,
        "accepted_at": EPOCH,
    }
    return Message(**{**standard, **fields})


def row(request_id: str = "r1", *, tenant: str = "default", **fields: Any) -> Row:
    standard = {
        "digest": f"digest-of-{request_id}",
        "stage": Stage.ROUTE,
        "queue": "requests",
        "message": "{}",
        "accepted_at": NOW,
    }
    return Row(tenant=tenant, id=request_id, **{**standard, **fields})


def ref(row: Row) -> str:
    return keys.ref(row.tenant, row.id)


def result(asked: Request | None = None, **fields: Any) -> Result:
    asked = asked or request()
    standard = {
        "request_id": asked.id,
        "tenant": asked.tenant,
        "status": Status.SUCCEEDED,
        "output": "done",
        "timings": Timings(accepted_at=EPOCH, finished_at=EPOCH),
        "session_id": asked.session_id,
        "request_digest": asked.digest(),
        "attempt": new_id(),
    }
    return Result(**{**standard, **fields})


def event(**fields: Any) -> Event:
    standard = {
        "action": Action.REQUEST_ACCEPTED,
        "actor": "tester",
        "tenant": "default",
        "request_id": "r1",
        "resource": "requests",
    }
    return Event(**{**standard, **fields})


def intent(label: str = "answer_question") -> IntentInfo:
    return IntentInfo(label=label, confidence=0.9, model_version="m1")


__all__ = ["EPOCH", "NOW", "event", "intent", "message", "ref", "request", "result", "row"]
