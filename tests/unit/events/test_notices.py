import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.events.notices import Created, created
from tasks.errors import InvalidInput


def record(key: str = "uploads/a.txt", name: str = "ObjectCreated:Put", **found: Any) -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": "b"}, "object": {"key": key, "eTag": "e", "size": 3} | found}}


def test_a_notification_names_its_objects() -> None:
    event = {"Records": [record("uploads/a+b%C3%BC.txt"), record(versionId="v")]}
    assert created(event) == [Created("b", "uploads/a bü.txt", "e", 3), Created("b", "uploads/a.txt", "v", 3)]


def test_an_event_of_eventbridge_names_its_object() -> None:
    detail = {"bucket": {"name": "b"}, "object": {"key": "uploads/a+b.txt", "etag": "e", "size": 3}}
    assert created({"source": "aws.s3", "detail-type": "Object Created", "detail": detail}) == [
        Created("b", "uploads/a+b.txt", "e", 3)
    ]


def test_a_notification_may_come_through_a_topic() -> None:
    inside = orjson.dumps({"Records": [record()]}).decode()
    assert len(created(orjson.dumps({"Type": "Notification", "Message": inside}))) == 1


@pytest.mark.parametrize(
    "event",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent"},
        {"Records": []},
        {"Records": [record(name="ObjectRemoved:Delete")]},
        {"source": "aws.s3", "detail-type": "Object Deleted", "detail": {}},
    ],
)
def test_other_events_create_nothing(event: dict[str, Any]) -> None:
    assert created(event) == []


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ("nonsense", "JSON"),
        ("[]", "object"),
        ({}, "Records"),
        ({"Records": [7]}, "Records.0: eventName"),
        ({"Records": [{"eventName": "ObjectCreated:Put"}]}, "s3.bucket.name"),
        ({"Records": [record(key="")]}, "s3.object.key"),
        ({"Records": [record(eTag=None)]}, "versionId nor eTag"),
        ({"Records": [record(size="3")]}, "size"),
        ({"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": "b"}}}, "object.key"),
    ],
)
def test_what_is_no_event_says_why(event: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        created(event)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Records", "s3", "detail"]), inner),
    max_leaves=8,
)


@given(JSON)
def test_whatever_comes_is_objects_or_a_clear_error(event: Any) -> None:
    with contextlib.suppress(InvalidInput):
        assert isinstance(created(orjson.dumps(event)), list)
