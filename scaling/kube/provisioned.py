"""What Terraform made, read from ``terraform output -json``; docs/terraform.md has the shape."""

from __future__ import annotations

import msgspec

from scaling.kube.render import Provisioned
from tasks import keys
from tasks.contracts.base import told
from tasks.errors import InvalidInput


class _Queue(msgspec.Struct):
    url: str


class _Pool(msgspec.Struct):
    queues: dict[str, _Queue]
    role_arn: str | None = None


class _Environment(msgspec.Struct, frozen=True):
    pools: dict[str, dict[str, str]] = {}


class _Value(msgspec.Struct):
    region: str
    pools: dict[str, _Pool]
    registry: dict[str, str]
    environment: _Environment = _Environment()


class _Output(msgspec.Struct):
    value: _Value


class _Outputs(msgspec.Struct):
    sluice: _Output


def from_terraform(data: bytes, *, tag: str) -> Provisioned:
    """Return what the outputs in ``data`` name; images get ``tag``.

    Raises:
        InvalidInput: they are not those of the example configurations; the message names the field.
    """
    try:
        value = msgspec.json.decode(data, type=_Outputs).sluice.value
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"terraform outputs: {told(error)}") from error
    urls = {
        keys.queue(pool, priority): queue.url
        for pool, made in value.pools.items()
        for priority, queue in made.queues.items()
    }
    return Provisioned(
        region=value.region,
        queue_urls=urls,
        role_arns={pool: made.role_arn for pool, made in value.pools.items() if made.role_arn},
        environment=value.environment.pools,
        images={name: f"{url}:{tag}" for name, url in value.registry.items()},
    )
