"""What every contract shares: schema versions, canonical bytes and digests. Light: every process imports this.

The contracts are msgspec Structs. What comes from a queue or a store is checked when it is parsed; what our own code
builds is not checked again. A field whose default is ``None`` is left out of the JSON while it is ``None``; any other
default is given by :func:`always` and written.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, Self, TypeVar, cast

import msgspec
import orjson

from tasks.errors import MalformedMessage, NewerSchema

SCHEMA_VERSION: Final = "1.0"
_MAJOR: Final = int(SCHEMA_VERSION.partition(".")[0])

ID_CHARACTERS: Final = r"[A-Za-z0-9._:-]{1,128}"
TENANT_CHARACTERS: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"

LABEL_CHARACTERS: Final = "[a-z][a-z0-9_]{0,63}"
"""The name of an intent."""

Identifier = Annotated[str, msgspec.Meta(pattern=rf"\A{ID_CHARACTERS}\Z")]
Tenant = Annotated[str, msgspec.Meta(pattern=rf"\A{TENANT_CHARACTERS}\Z")]
Label = Annotated[str, msgspec.Meta(pattern=rf"\A{LABEL_CHARACTERS}\Z")]
UtcDatetime = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone; a contract brings it to UTC, see :func:`to_utc`."""

T = TypeVar("T")
C = TypeVar("C", bound="Contract")

_SORTED: Final = msgspec.json.Encoder(order="sorted")
_FAULT: Final = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


class Contract(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frozen record that ignores what a later minor version added. For readers and between hops."""

    def changed(self, **changes: Any) -> Self:
        """Return a copy with other values for these fields."""
        return msgspec.structs.replace(self, **changes)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes that are stored and hashed."""
        return _SORTED.encode(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values, in the order of its fields."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


class _Head(msgspec.Struct, frozen=True):
    schema_version: Any


_HEAD: Final = msgspec.json.Decoder(_Head)


def always(value: T) -> T:
    """Return the default ``value`` of a field that is written also while it has its default."""
    return msgspec.field(default_factory=lambda: value)


def utc_now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


def to_utc(record: msgspec.Struct, *fields: str) -> None:
    """Bring the times in ``fields`` of a record that is being made to UTC; raise :class:`ValueError` without a zone."""
    for name in fields:
        time = getattr(record, name)
        if time is None or time.tzinfo is UTC:
            continue
        if time.tzinfo is None:
            raise ValueError(f"{name} has no time zone")
        msgspec.structs.force_setattr(record, name, in_utc(time))


def in_utc(time: datetime) -> datetime:
    """Return an aware ``time`` in UTC; raise :class:`ValueError` where that is outside of the years 1 to 9999."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside of the years 1 to 9999 in UTC") from None


def canonical(value: Any) -> bytes:
    """Return the one JSON spelling of ``value``: sorted keys, no spaces, UTF-8."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def told(error: Exception) -> str:
    """Return what msgspec found as ``field: what is wrong``, never the value."""
    if not isinstance(error, msgspec.ValidationError):
        return f"body: is not valid JSON ({error})"
    found = _FAULT.fullmatch(str(error))
    what, path = (found["what"], found["path"] or "") if found else ("is wrong", "")
    missing = _MISSING.fullmatch(what)
    if missing:
        what, path = "is missing", f"{path}.{missing[1]}"
    elif what.startswith("Invalid enum value"):
        what = "is not one of the values that are known here"
    field = re.sub(r"\[(\d+)\]", r".\1", path.removeprefix("$").replace("[...]", "")).strip(".")
    return f"{field or 'body'}: {what}"


def parse_versioned(model: type[C], data: bytes | str | dict[str, Any]) -> C:
    """Read what another hop wrote; unknown fields of this major version are ignored.

    Raises:
        NewerSchema: the major version is newer than this code's.
        MalformedMessage: it is not such a record at all.
    """
    try:
        version = data["schema_version"] if isinstance(data, dict) else _HEAD.decode(data).schema_version
        major = _MAJOR if version == SCHEMA_VERSION else int(str(version).partition(".")[0])
    except (KeyError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"{model.__name__}: no readable schema_version") from error
    if major > _MAJOR:
        raise NewerSchema(f"{model.__name__} has schema_version {version}, this is {SCHEMA_VERSION}")
    try:
        return msgspec.convert(data, model) if isinstance(data, dict) else _decoder(model).decode(data)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"{model.__name__}: {told(error)}") from error


@cache
def _decoder(model: type[C]) -> msgspec.json.Decoder[C]:
    return msgspec.json.Decoder(model)
