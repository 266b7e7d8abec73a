"""What doors add: models in which a wrong type or an unknown field is an error that names the field.

Only doors, training and the agents' tools import this: it needs pydantic, which is slow to import.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from tasks.contracts.base import ID_CHARACTERS, LABEL_CHARACTERS, TENANT_CHARACTERS, in_utc
from tasks.errors import InvalidInput

Identifier = Annotated[str, StringConstraints(pattern=f"^{ID_CHARACTERS}$")]
Tenant = Annotated[str, StringConstraints(pattern=f"^{TENANT_CHARACTERS}$")]
Label = Annotated[str, StringConstraints(pattern=f"^{LABEL_CHARACTERS}$")]
UtcDatetime = Annotated[AwareDatetime, AfterValidator(in_utc)]

M = TypeVar("M", bound=BaseModel)


class StrictContract(BaseModel):
    """A frozen record in which an unknown field or a wrong type is an error. For doors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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
