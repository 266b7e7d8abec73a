"""Holds KEDA's objects against a package of its models, strictly, and triggers against what its pages say of them."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Any

from cloudcoil.models.keda import v1alpha1
from pydantic import BaseModel

BEHAVIOURS = {"static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"}
"""Of a fallback: newer than the models, whose last version for this Python is KEDA 2.16's."""


class Kind(StrEnum):
    """What the value of a trigger's metadata, always a string, stands for."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"


TRIGGERS: dict[str, dict[str, Kind]] = {
    "redis": {"listName": Kind.TEXT, "listLength": Kind.NUMBER, "activationListLength": Kind.NUMBER},
    "aws-sqs-queue": {
        "queueURL": Kind.TEXT,
        "queueLength": Kind.NUMBER,
        "activationQueueLength": Kind.NUMBER,
        "awsRegion": Kind.TEXT,
        "scaleOnInFlight": Kind.BOOLEAN,
    },
    "rabbitmq": {
        "protocol": Kind.TEXT,
        "queueName": Kind.TEXT,
        "mode": Kind.TEXT,
        "value": Kind.NUMBER,
        "activationValue": Kind.NUMBER,
        "excludeUnacknowledged": Kind.BOOLEAN,
    },
}
FROM_AUTHENTICATION = {"redis": {"address"}, "aws-sqs-queue": set(), "rabbitmq": {"host"}}
"""What a trigger needs beside its metadata, from the TriggerAuthentication."""


@cache
def _models() -> Any:
    """Return the models, which by themselves ignore what they do not know."""
    found = [one for one in vars(v1alpha1).values() if isinstance(one, type) and issubclass(one, BaseModel)]
    for model in found:
        model.model_config["extra"] = "forbid"
    for model in found:
        model.model_rebuild(force=True)
    return v1alpha1


def validate(one: dict[str, Any]) -> None:
    """Raise ``ValidationError`` or ``AssertionError`` where KEDA would not take ``one``."""
    spec = dict(one["spec"])
    if fallback := spec.get("fallback"):
        assert fallback["behavior"] in BEHAVIOURS
        spec["fallback"] = {key: value for key, value in fallback.items() if key != "behavior"}
    getattr(_models(), one["kind"]).model_validate({**one, "spec": spec})
    for trigger in spec.get("triggers", ()):
        known = TRIGGERS[trigger["type"]]
        assert set(trigger["metadata"]) == set(known), trigger
        for name, value in trigger["metadata"].items():
            assert _is(known[name], value), (name, value)


def _is(kind: Kind, value: Any) -> bool:
    if kind is Kind.NUMBER:
        return isinstance(value, str) and float(value) >= 0
    return value in {"true", "false"} if kind is Kind.BOOLEAN else isinstance(value, str) and bool(value)
