"""The Redis transport of workers: a message that Celery could not survive is made readable before Celery sees it.

Celery and kombu take what lies on a queue for their own: bytes that are no task message end a worker, some for ever,
because it is put back in front. Here such bytes become a task message that says so, and the hop quarantines it like
any other that no door wrote.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

import kombu.transport.redis
import orjson

from tasks import keys
from tasks.contracts.base import canonical
from tasks.contracts.request import new_id
from tasks.stores.broker import Parcel
from tasks.stores.redis_broker import headers, task_body

_TASKS: Final = frozenset({keys.ROUTE_TASK, keys.WORK_TASK})
_MUST_BE_NULL: Final = ("eta", "expires", "group", "chord")


class ScreeningChannel(kombu.transport.redis.Channel):
    """A channel that looks at each message between its pop and its delivery."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)  # type: ignore[misc]  # missing in the stubs
        if asynchronous:
            client.parse_response = _screened(client.parse_response)
        return client


class Transport(kombu.transport.redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = ScreeningChannel


def _screened(parse: Callable[..., Any]) -> Callable[..., Any]:
    def parse_response(connection: Any, command_name: str, **options: Any) -> Any:
        answer = parse(connection, command_name, **options)
        if command_name != "BRPOP" or not answer:
            return answer
        queue, item = answer
        return queue, item if is_task_message(item) else wrapped(queue, item)

    return parse_response


def is_task_message(item: bytes) -> bool:
    """Tell whether ``item`` is a message that a worker can receive; what it asks for is another matter."""
    try:
        message = orjson.loads(item)
        header, properties = message["headers"], message["properties"]
        body = message["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body, validate=True)
        args, kwargs, embed = orjson.loads(body)
        return (
            isinstance(args, list)
            and isinstance(kwargs, dict)
            and isinstance(embed, dict)
            and not any(embed.values())
            and message["content-type"] == keys.CONTENT_TYPE
            and message["content-encoding"] == "utf-8"
            and header["task"] in _TASKS
            and isinstance(header["id"], str)
            and all(header.get(name) is None for name in _MUST_BE_NULL)
            and header.get("timelimit") in ([None, None], None)
            and isinstance(properties["delivery_tag"], str)
            and isinstance(properties["delivery_info"]["routing_key"], str)
            and isinstance(properties["delivery_info"]["exchange"], str)
        )
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError):
        return False


def wrapped(queue: bytes | str, item: bytes) -> bytes:
    """Return a task message whose one argument holds ``item``, base64, as ``unreadable``."""
    name = queue.decode() if isinstance(queue, bytes) else queue
    raw = canonical({"unreadable": base64.b64encode(item).decode()}).decode()
    parcel = Parcel(name, keys.ROUTE_TASK, "", raw, 0.0)
    return orjson.dumps(
        {
            "body": task_body(raw),
            "content-type": keys.CONTENT_TYPE,
            "content-encoding": "utf-8",
            "headers": headers(parcel),
            "properties": {
                "delivery_tag": new_id(),
                "delivery_info": {"exchange": "", "routing_key": name},
                "delivery_mode": 2,
                "priority": 0,
            },
        }
    )
