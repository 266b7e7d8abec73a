"""What Celery could not survive never reaches it."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import keys
from tasks.pool import _payload
from tasks.stores.broker import Parcel
from tasks.stores.redis_broker import headers, task_body
from tasks.stores.transport import is_task_message, wrapped

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def proper(**fields: Any) -> dict[str, Any]:
    """A message as a producer's kombu writes it."""
    parcel = Parcel("requests", keys.ROUTE_TASK, "acme/r1", '{"schema_version":"1.0"}', 1.0)
    return {
        "body": base64.b64encode(task_body(parcel.message).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers(parcel),
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "t",
            "delivery_info": {"exchange": "", "routing_key": "requests"},
        },
        **fields,
    }


def test_a_proper_message_passes() -> None:
    assert is_task_message(orjson.dumps(proper()))


@pytest.mark.parametrize(
    "fields",
    [
        {"body": 7},
        {"body": "not base64!"},
        {"body": base64.b64encode(b"\xff").decode()},
        {"body": base64.b64encode(b"[[]]").decode()},
        {"body": base64.b64encode(b"[{}, {}, {}]").decode()},
        {"body": base64.b64encode(b'[[], {}, {"chord": {"task": "x"}}]').decode()},
        {"content-type": "application/x-python-serialize"},
        {"content-encoding": "binary"},
        {"headers": []},
        {"headers": {"task": "os.system", "id": "x"}},
        {"headers": {"task": keys.WORK_TASK}},
        {"headers": {"task": keys.WORK_TASK, "id": "x", "eta": "2030-01-01T00:00:00Z"}},
        {"headers": {"task": keys.WORK_TASK, "id": "x", "timelimit": "junk"}},
        {"properties": None},
        {"properties": {"delivery_tag": 1, "delivery_info": {"exchange": "", "routing_key": "requests"}}},
        {"properties": {"delivery_tag": "t", "delivery_info": "requests"}},
    ],
)
def test_what_a_worker_could_not_receive_does_not_pass(fields: dict[str, Any]) -> None:
    assert not is_task_message(orjson.dumps(proper(**fields)))


@given(st.binary(max_size=60) | json_values.map(orjson.dumps))
def test_any_bytes_become_a_message_that_holds_them(item: bytes) -> None:
    assert not is_task_message(item)
    made = wrapped(b"agents.planner", item)
    assert is_task_message(made)
    raw = _payload(orjson.loads(made)["body"])
    assert base64.b64decode(raw["unreadable"]) == item


@given(json_values, json_values)
def test_no_shape_of_headers_and_properties_is_an_error(header: Any, properties: Any) -> None:
    assert not is_task_message(orjson.dumps(proper(headers=header, properties=properties)))
