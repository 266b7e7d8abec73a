"""What every contract shares: strictness, schema versions, canonical bytes and digests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from tasks.errors import InvalidInput, MalformedMessage, NewerSchema

SCHEMA_VERSION: Final = "1.0"
_MAJOR: Final = int(SCHEMA_VERSION.partition(".")[0])

ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$"
TENANT_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

Identifier = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Tenant = Annotated[str, StringConstraints(pattern=TENANT_PATTERN)]
UtcDatetime = Annotated[AwareDatetime, AfterValidator(lambda value: value.astimezone(UTC))]

M = TypeVar("M", bound=BaseModel)


class Contract(BaseModel):
    """A frozen record that ignores what a later minor version added. For readers and between hops."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StrictContract(BaseModel):
    """A frozen record in which an unknown field or a wrong type is an error. For doors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def utc_now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


def canonical(value: Any) -> bytes:
    """Return the one JSON spelling of ``value``: sorted keys, no spaces, UTF-8."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def explain(error: ValidationError) -> str:
    """Return pydantic's findings as ``field: what is wrong``, joined by semicolons, never the value."""
    return "; ".join(
        f"{'.'.join(str(part) for part in e['loc']) or 'body'}: {e['msg'].removeprefix('Value error, ')}"
        for e in error.errors()
    )


def parse_strict(model: type[M], data: bytes | str | dict[str, Any]) -> M:
    """Read ``data`` at a door.

    Raises:
        InvalidInput: the message names every field that is wrong.
    """
    try:
        raw = orjson.dumps(data) if isinstance(data, dict) else data
    except (orjson.JSONEncodeError, TypeError) as error:
        raise InvalidInput(f"body: not expressible as JSON ({error})") from error
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidInput(explain(error)) from error


def parse_versioned(model: type[M], data: bytes | str | dict[str, Any]) -> M:
    """Read what another hop wrote; unknown fields of this major version are ignored.

    Raises:
        NewerSchema: the major version is newer than this code's.
        MalformedMessage: it is not such a record at all.
    """
    try:
        raw = data if isinstance(data, dict) else orjson.loads(data)
        major = int(str(raw["schema_version"]).partition(".")[0])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise MalformedMessage(f"{model.__name__}: no readable schema_version") from error
    if major > _MAJOR:
        raise NewerSchema(f"{model.__name__} has schema_version {raw['schema_version']}, this is {SCHEMA_VERSION}")
    try:
        return model.model_validate(raw) if isinstance(data, dict) else model.model_validate_json(data)
    except ValidationError as error:
        raise MalformedMessage(f"{model.__name__}: {explain(error)}") from error
