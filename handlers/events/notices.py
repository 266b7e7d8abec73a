"""What buckets say: which objects were created. Notifications of S3, also inside SNS, and events of EventBridge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

import orjson

from tasks.errors import InvalidInput

_TEST: Final = "s3:TestEvent"


class Created(NamedTuple):
    """An object that was created. ``version`` is its version id, else its ETag: another content has another."""

    bucket: str
    key: str
    version: str
    size: int


def created(event: Mapping[str, Any] | str | bytes) -> list[Created]:
    """Return the objects that ``event`` says were created; other events of a bucket are left out.

    Raises:
        InvalidInput: it is no event of a bucket.
    """
    return list(_read(_object(event)))


def _object(event: Mapping[str, Any] | str | bytes) -> Mapping[str, Any]:
    if isinstance(event, Mapping):
        return event
    try:
        found = orjson.loads(event)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise InvalidInput(f"event: is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise InvalidInput("event: must be an object")
    return found


def _read(event: Mapping[str, Any]) -> Iterator[Created]:
    if event.get("Event") == _TEST:  # what S3 sends when a notification is set up
        return
    if event.get("Type") == "Notification" and isinstance(event.get("Message"), str):
        yield from _read(_object(event["Message"]))
    elif "detail" in event:
        yield from _from_eventbridge(event)
    elif isinstance(event.get("Records"), list):
        for number, record in enumerate(event["Records"]):
            yield from _from_s3(record, f"Records.{number}")
    else:
        raise InvalidInput("event: is neither an S3 notification (Records) nor an EventBridge event (detail)")


def _from_s3(record: Any, where: str) -> Iterator[Created]:
    name = _text(record, where, "eventName")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return
    bucket = _text(record, where, "s3", "bucket", "name")
    key = unquote_plus(_text(record, where, "s3", "object", "key"))
    yield _checked(bucket, key, record["s3"]["object"], where, "versionId", "eTag")


def _from_eventbridge(event: Mapping[str, Any]) -> Iterator[Created]:
    if event.get("source") != "aws.s3" or event.get("detail-type") != "Object Created":
        return
    bucket = _text(event, "event", "detail", "bucket", "name")
    key = _text(event, "event", "detail", "object", "key")  # not quoted, unlike S3's own
    yield _checked(bucket, key, event["detail"]["object"], "event", "version-id", "etag")


def _checked(bucket: str, key: str, found: Mapping[str, Any], where: str, *versions: str) -> Created:
    version = next((found[name] for name in versions if isinstance(found.get(name), str) and found[name]), None)
    if version is None:
        raise InvalidInput(f"{where}: names neither {' nor '.join(versions)} of the object")
    size = found.get("size", 0)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidInput(f"{where}: size must be a number of bytes")
    return Created(bucket, key, version, size)


def _text(value: Any, where: str, *path: str) -> str:
    """Return the text at ``path`` inside ``value``; raise :class:`InvalidInput` where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{where}: {'.'.join(path)} is missing")
    return value
