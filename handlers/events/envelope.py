"""A request as it stands in a message: plain JSON, or a CloudEvents 1.0 structured event around it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final

import orjson

from tasks.contracts.request import Request
from tasks.contracts.strict import parse_strict
from tasks.errors import InvalidInput

_SPEC: Final = "1.0"
_NEEDED: Final = ("id", "source", "type")


def read_request(body: bytes | str, *, tenant: str | None, fallback_id: str | None = None) -> Request:
    """Return the request in ``body``: its fields as JSON, or a CloudEvent whose data they are.

    Where the request names no id it gets that of its event, derived from source and id, else ``fallback_id``: the same
    delivery is the same request. ``tenant`` is the one that the source speaks for; None where each request names its
    own.

    Raises:
        InvalidInput: names the field and the mend.
    """
    fields = _object(body)
    if "specversion" in fields:
        fields = _opened(fields)
    elif fallback_id is not None:
        fields = {"id": fallback_id, **fields}
    return parse_strict(Request, _of_tenant(fields, tenant))


def _of_tenant(fields: dict[str, Any], tenant: str | None) -> dict[str, Any]:
    if tenant is None:
        if "tenant" not in fields:
            raise InvalidInput("tenant: is missing; this source speaks for no single one")
        return fields
    if fields.get("tenant", tenant) != tenant:
        raise InvalidInput(f"tenant: this source speaks for {tenant!r} only; leave the field out")
    return {**fields, "tenant": tenant}


def derived_id(*parts: str) -> str:
    """Return the id of what a source told: the same parts give the same id, and it fits into an id's characters."""
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
    return f"event-{digest[:40]}"


def _object(body: bytes | str) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise InvalidInput(f"body: is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise InvalidInput('body: must be an object such as {"text": "…"}')
    return found


def _opened(event: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the request in a CloudEvent."""
    if event["specversion"] != _SPEC:
        raise InvalidInput(f"specversion: must be {_SPEC!r}")
    for name in _NEEDED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise InvalidInput(f"{name}: a CloudEvent needs it, as a text that is not empty")
    data = _data(event)
    trace = {"traceparent": event["traceparent"]} if "traceparent" in event else {}
    return {"id": derived_id(event["source"], event["id"]), **trace, **data}


def _data(event: dict[str, Any]) -> dict[str, Any]:
    kind = event.get("datacontenttype", "application/json")
    if not isinstance(kind, str) or kind.partition(";")[0].strip().lower() != "application/json":
        raise InvalidInput("datacontenttype: must be application/json")
    if "data_base64" in event:
        if "data" in event:
            raise InvalidInput("data: stands beside data_base64; an event has one of them")
        try:
            return _object(base64.b64decode(event["data_base64"], validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise InvalidInput("data_base64: is not base64") from error
    data = event.get("data")
    if not isinstance(data, dict):
        raise InvalidInput('data: must be the request as an object such as {"text": "…"}')
    return data
