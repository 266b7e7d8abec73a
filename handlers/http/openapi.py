"""The OpenAPI 3.1 document. The schemas are those that the door itself reads by."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final

import msgspec
from pydantic import Field

from tasks.contracts.base import ID_CHARACTERS
from tasks.contracts.request import Request
from tasks.contracts.result import Result, Status
from tasks.contracts.strict import StrictContract
from tasks.contracts.words import MAX_TEXT_BYTES
from tasks.settings import HttpSettings

PAGE: Final = 100
MAX_PAGE: Final = 1000
"""Escalations on a page, by default and at most."""


class AnswerBody(StrictContract):
    """What a person answers."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_BYTES)]


ROUTES: Final = (
    ("/v1/requests", "POST", "submit"),
    ("/v1/requests/{id}", "GET", "standing"),
    ("/v1/requests/{id}", "DELETE", "cancel"),
    ("/v1/requests/{id}/events", "GET", "events"),
    ("/v1/escalations", "GET", "escalations"),
    ("/v1/escalations/{id}", "GET", "escalation"),
    ("/v1/escalations/{id}/answer", "POST", "answer"),
    ("/healthz", "GET", "health"),
    ("/readyz", "GET", "readiness"),
    ("/openapi.json", "GET", "document"),
)
_SUMMARIES: Final = {
    "submit": "Submit a request",
    "standing": "Where a request stands, and its result",
    "cancel": "Cancel a request that has not ended",
    "events": "Each step of a request and of its plan, as server-sent events",
    "escalations": "What waits for a person, or was answered by one",
    "escalation": "What was asked, why it waits, the brief, and the answer",
    "answer": "Answer for a person: the result of the request's next revision",
    "health": "Whether the process runs",
    "readiness": "Whether calls can be served",
    "document": "This document",
}
_OPEN: Final = frozenset({"health", "readiness", "document"})
_PROBLEMS: Final = {
    400: "The call is not valid; the detail names the field",
    401: "The call carries no token that holds",
    403: "The roles of the caller do not allow it",
    404: "There is no such request",
    409: "In conflict with what is there",
    413: "The body is too large",
    415: "The body is of another type",
    429: "Too many calls, or the tenant has as much as it may",
    503: "A store does not answer",
}
_FAULTS: Final = {
    "submit": (400, 401, 403, 409, 413, 415, 429, 503),
    "standing": (401, 403, 404, 429, 503),
    "cancel": (401, 403, 404, 409, 429, 503),
    "events": (401, 403, 404, 429, 503),
    "escalations": (400, 401, 403, 429, 503),
    "escalation": (401, 403, 404, 429, 503),
    "answer": (400, 401, 403, 404, 409, 413, 415, 429, 503),
    "readiness": (503,),
}
_WAIT: Final[dict[str, Any]] = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: answer with the end where it comes within N seconds",
    "schema": {"type": "string"},
}
_IDENTIFIER: Final = {"type": "string", "pattern": f"^{ID_CHARACTERS}$"}
_ID: Final[dict[str, Any]] = {"name": "id", "in": "path", "required": True, "schema": _IDENTIFIER}
_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The id of the request: submitted again it is the same request",
    "schema": _IDENTIFIER,
}


_PAGING: Final[list[dict[str, Any]]] = [
    {
        "name": "open",
        "in": "query",
        "description": "true: those without an answer; false: those with one",
        "schema": {"type": "boolean"},
    },
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
    },
    {
        "name": "after",
        "in": "query",
        "description": "The next page: what the one before calls `next`",
        "schema": {"type": "string"},
    },
]
_BY_ID: Final = frozenset({"standing", "cancel", "events", "escalation", "answer"})
_PARAMETERS: Final = {"submit": [_KEY, _WAIT], "standing": [_WAIT], "escalations": _PAGING}


@cache
def document(settings: HttpSettings) -> dict[str, Any]:
    """Return the document of a door with ``settings``."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method, name in ROUTES:
        paths.setdefault(path, {})[method.lower()] = _operation(name)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sluice", "version": "1", "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"token": []}] if settings.jwt else [{}],
    }


def _operation(name: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": _SUMMARIES[name],
        "responses": {**_answers(name), **{str(status): _problem(status) for status in _FAULTS.get(name, ())}},
    }
    parameters = [*([_ID] if name in _BY_ID else []), *_PARAMETERS.get(name, [])]
    if parameters:
        operation["parameters"] = parameters
    if name in _BODIES:
        kinds = {kind: {"schema": _ref(schema)} for kind, schema in _BODIES[name].items()}
        operation["requestBody"] = {"required": True, "content": kinds}
    if name in _OPEN:
        operation["security"] = [{}]
    return operation


_BODIES: Final = {
    "submit": {"application/json": "Body", "application/cloudevents+json": "Event"},
    "answer": {"application/json": "Answer"},
}
_SCHEMAS: Final = {
    "standing": "Standing",
    "cancel": "Standing",
    "escalations": "Escalations",
    "escalation": "Escalation",
}


def _answers(name: str) -> dict[str, Any]:
    if name == "events":
        return {"200": _answer("The steps", {"type": "string"}, "text/event-stream")}
    if name == "submit":
        return {
            "200": _answer("Accepted before, or ended within the time waited for", _ref("Standing")),
            "202": _answer("Accepted: it is durable and will have one result", _ref("Standing")),
        }
    if name == "answer":
        return {
            "200": _answer("Answered before, with the same text", _ref("Answered")),
            "202": _answer("Answered: it is durable, and on its way to be the result", _ref("Answered")),
        }
    schema = _ref(_SCHEMAS[name]) if name in _SCHEMAS else {"type": "object"}
    return {"200": _answer("The answer", schema)}


def _answer(description: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _problem(status: int) -> dict[str, Any]:
    return _answer(_PROBLEMS[status], _ref("Problem"), "application/problem+json")


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    template = "#/components/schemas/{model}"
    asked = Request.model_json_schema(ref_template=template)
    _, results = msgspec.json.schema_components([Result], ref_template="#/components/schemas/{name}")
    standing = {
        "type": "object",
        "required": ["id", "status", "links"],
        "properties": {
            "id": {"type": "string"},
            "status": {"enum": ["accepted", "routed", "running", *(status.value for status in Status)]},
            "links": {"type": "object", "additionalProperties": {"type": "string"}},
            "result": _ref("Result"),
        },
    }
    problem = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }
    event = {
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1},
            "source": {"type": "string", "minLength": 1},
            "type": {"type": "string", "minLength": 1},
            "datacontenttype": {"type": "string"},
            "data": _ref("Body"),
            "data_base64": {"type": "string"},
        },
    }
    return {
        **asked.pop("$defs", {}),
        **results,
        "Body": asked,
        "Event": event,
        "Standing": standing,
        "Answer": AnswerBody.model_json_schema(),
        **_escalation_schemas(),
        "Problem": problem,
    }


def _escalation_schemas() -> dict[str, Any]:
    text, number, time = {"type": "string"}, {"type": "integer"}, {"type": "string", "format": "date-time"}
    links = {"type": "object", "additionalProperties": text}
    return {
        "Escalations": _object(
            {
                "escalations": {
                    "type": "array",
                    "items": _object(
                        {"request_id": text, "revision": number, "opened_at": time, "links": links},
                        answered_at={"type": ["string", "null"], "format": "date-time"},
                    ),
                }
            },
            next=text,
        ),
        "Escalation": _object(
            {
                "request_id": text,
                "revision": number,
                "tenant": text,
                "opened_at": time,
                "reason": text,
                "brief": text,
                "text": text,
                "answer": {"type": ["object", "null"]},
                "newest": {"type": "object"},
                "links": links,
            }
        ),
        "Answered": _object({"id": text, "revision": number, "answered_by": text, "links": links}),
    }


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}
