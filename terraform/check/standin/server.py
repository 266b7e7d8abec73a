"""A provider for Terraform that has the real one's schema and no cloud behind it.

Terraform itself then checks every argument, evaluates every expression, plans, applies and destroys; AWS's own answers
are invented by :mod:`terraform.check.standin.values`. It shows what the configuration says, not what AWS thinks of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent import futures
from typing import Any, Final

import grpc
import msgpack

from terraform.check.standin import values

_NESTING: Final = {"struct": 1, "list": 2, "set": 3, "map": 4}
_UNKNOWN: Final = msgpack.ExtType(0, b"\0")
_WORDS: Final = {"string": "string", "number": "number", "bool": "bool", "any": "dynamic"}

Shape = Mapping[str, Any]


def serve(schema: Shape, provider: str) -> tuple[grpc.Server, int]:
    """Start a server for ``provider`` on a free port of this machine; the caller stops it."""
    protos, services = grpc.protos_and_services("terraform/check/standin/tfplugin6.proto")
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 64 << 20)])
    services.add_ProviderServicer_to_server(Provider(protos, schema, provider), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def reattach(ports: Mapping[str, int], pid: int) -> str:
    """Return ``TF_REATTACH_PROVIDERS``: where Terraform finds the servers, instead of downloading providers."""
    return json.dumps(
        {
            f"registry.terraform.io/hashicorp/{name}": {
                "Protocol": "grpc",
                "ProtocolVersion": 6,
                "Pid": pid,
                "Test": True,
                "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
            }
            for name, port in ports.items()
        }
    )


# Schema ---------------------------------------------------------------------------------------------


def _type(spelt: str) -> Any:
    outer, _, inner = spelt.rstrip(")").partition("(")
    return [outer, _WORDS[inner]] if inner else _WORDS[outer]


def _hidden(name: str, spelt: str) -> bool:
    """Return whether an argument is write-only: given to the provider, and never kept."""
    return name.endswith("_wo") and not spelt.startswith("=")


def object_type(shape: Shape) -> list[Any]:
    """Return the type of a nested object as Terraform spells it in JSON."""
    fields = {name: _type(spelt.lstrip("=!")) for name, spelt in shape["attributes"].items()}
    for name, inner in shape.get("objects", {}).items():
        fields[name] = ["list", object_type(inner)] if inner["nesting"] == "list" else object_type(inner)
    return ["object", fields]


class Provider:
    """One provider, as the protocol has it. Every method takes a request and a context, and returns an answer."""

    def __init__(self, protos: Any, schema: Shape, name: str) -> None:
        self._protos = protos
        self._schema = schema
        self._name = name
        self._region = "us-east-1"

    def _shapes(self, mode: str) -> dict[str, Shape]:
        return {
            kind: shape for kind, shape in self._schema.get(mode, {}).items() if kind.partition("_")[0] == self._name
        }

    def GetProviderSchema(self, _request: Any, _context: Any) -> Any:
        answer = self._protos.GetProviderSchema.Response(provider=self._spelt(self._schema["provider"][self._name]))
        answer.server_capabilities.plan_destroy = False
        for mode, field in (
            ("resource", answer.resource_schemas),
            ("data", answer.data_source_schemas),
            ("ephemeral", answer.ephemeral_resource_schemas),
        ):
            for kind, shape in self._shapes(mode).items():
                field[kind].CopyFrom(self._spelt(shape, write_only=mode == "resource"))
        return answer

    def _spelt(self, shape: Shape, *, write_only: bool = False) -> Any:
        return self._protos.Schema(version=0, block=self._block(shape, write_only=write_only))

    def _block(self, shape: Shape, *, write_only: bool) -> Any:
        attributes = [
            self._attribute(name, spelt, write_only) for name, spelt in shape["attributes"].items() if name != "alias"
        ]
        blocks = []
        for name, inner in shape.get("objects", {}).items():
            if inner.get("computed"):
                kind = ["list", object_type(inner)]
                attributes.append(
                    self._protos.Schema.Attribute(name=name, type=json.dumps(kind).encode(), computed=True)
                )
            else:
                attributes.append(self._object(name, inner))
        for name, inner in shape.get("blocks", {}).items():
            nested = self._protos.Schema.NestedBlock(type_name=name, nesting=_NESTING[inner["nesting"]])
            nested.block.CopyFrom(self._block(inner, write_only=write_only))
            if inner["nesting"] != "struct":
                nested.min_items, nested.max_items = inner.get("min", 0), inner.get("max", 0)
            blocks.append(nested)
        return self._protos.Schema.Block(attributes=attributes, block_types=blocks)

    def _attribute(self, name: str, spelt: str, write_only: bool) -> Any:
        required, computed = spelt.startswith("!"), spelt.startswith("=")
        hidden = write_only and _hidden(name, spelt)
        return self._protos.Schema.Attribute(
            name=name,
            type=json.dumps(_type(spelt.lstrip("=!"))).encode(),
            required=required,
            optional=not required and not computed,
            computed=not required and not hidden,
            write_only=hidden,
        )

    def _object(self, name: str, shape: Shape) -> Any:
        inner = [self._attribute(field, spelt, write_only=False) for field, spelt in shape["attributes"].items()]
        inner += [self._object(field, below) for field, below in shape.get("objects", {}).items()]
        for field in inner:
            field.computed = field.computed and not field.optional
        nested = self._protos.Schema.Object(attributes=inner, nesting=_NESTING[shape["nesting"]])
        required = shape.get("min", 0) > 0
        return self._protos.Schema.Attribute(name=name, nested_type=nested, required=required, optional=not required)

    # Values ---------------------------------------------------------------------------------------------

    def _read(self, value: Any) -> Any:
        return msgpack.unpackb(value.msgpack, strict_map_key=False) if value.msgpack else None

    def _written(self, value: Any) -> Any:
        return self._protos.DynamicValue(msgpack=msgpack.packb(value))

    def _known(self, kind: str, shape: Shape, planned: dict[str, Any], region: str) -> dict[str, Any]:
        made = dict(planned)
        asked = {name: value for name, value in planned.items() if value != _UNKNOWN}
        for name in planned.keys() - asked.keys():
            made[name] = self._invented(kind, name, shape, asked, region)
        for name, inner in shape.get("blocks", {}).items():
            if isinstance(made.get(name), list):
                made[name] = [
                    self._known(kind, inner, {**dict.fromkeys(inner["attributes"]), **item}, region)
                    for item in made[name]
                ]
        return made

    def _invented(self, kind: str, name: str, shape: Shape, known: Mapping[str, Any], region: str) -> Any:
        inner = shape.get("objects", {}).get(name)
        if inner:
            return [self._object_of(kind, inner)]
        spelt = shape["attributes"][name].lstrip("=!")
        if spelt == "string":
            return values.invent(kind, name, known, region)
        if spelt in {"number", "bool"}:
            return 1 if spelt == "number" else False
        return None if spelt == "any" else {} if spelt.startswith("map") else []

    def _object_of(self, kind: str, shape: Shape) -> dict[str, Any]:
        made = {name: self._invented(kind, name, shape, {}, self._region) for name in shape["attributes"]}
        return made | {name: [self._object_of(kind, inner)] for name, inner in shape.get("objects", {}).items()}

    # What Terraform asks ----------------------------------------------------------------------------------

    def ValidateProviderConfig(self, _request: Any, _context: Any) -> Any:
        return self._protos.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, _request: Any, _context: Any) -> Any:
        return self._protos.ValidateConfig.Response()

    ValidateDataResourceConfig = ValidateEphemeralResourceConfig = ValidateResourceConfig

    def ConfigureProvider(self, request: Any, _context: Any) -> Any:
        config = self._read(request.config) or {}
        self._region = config.get("region") or self._region
        return self._protos.ConfigureProvider.Response()

    def UpgradeResourceState(self, request: Any, _context: Any) -> Any:
        return self._protos.UpgradeResourceState.Response(
            upgraded_state=self._protos.DynamicValue(json=request.raw_state.json)
        )

    def ReadResource(self, request: Any, _context: Any) -> Any:
        return self._protos.ReadResource.Response(new_state=request.current_state)

    def PlanResourceChange(self, request: Any, _context: Any) -> Any:
        prior, proposed = self._read(request.prior_state), self._read(request.proposed_new_state)
        if proposed is None:
            return self._protos.PlanResourceChange.Response(planned_state=request.proposed_new_state)
        shape = self._schema["resource"][request.type_name]
        if prior is None:
            computed = [name for name, spelt in shape["attributes"].items() if spelt.startswith("=") or name == "id"]
            computed += ["name"] if proposed.get("name_prefix") else []
            computed += [name for name, inner in shape.get("objects", {}).items() if inner.get("computed")]
            proposed |= {name: _UNKNOWN for name in computed if proposed.get(name) is None}
            for name, inner in shape.get("blocks", {}).items():
                reads = [field for field, spelt in inner["attributes"].items() if spelt.startswith("=")]
                if reads and isinstance(proposed.get(name), list):
                    proposed[name] = [{**item, **dict.fromkeys(reads, _UNKNOWN)} for item in proposed[name]]
        planned = self._without_write_only(shape, proposed)
        return self._protos.PlanResourceChange.Response(planned_state=self._written(planned), legacy_type_system=True)

    def ApplyResourceChange(self, request: Any, _context: Any) -> Any:
        planned = self._read(request.planned_state)
        if planned is None:
            return self._protos.ApplyResourceChange.Response(new_state=request.planned_state)
        shape = self._schema["resource"][request.type_name]
        made = self._without_write_only(shape, self._known(request.type_name, shape, planned, self._region))
        return self._protos.ApplyResourceChange.Response(new_state=self._written(made), legacy_type_system=True)

    @staticmethod
    def _without_write_only(shape: Shape, value: dict[str, Any]) -> dict[str, Any]:
        hidden = {name for name, spelt in shape["attributes"].items() if _hidden(name, spelt)}
        return {name: None if name in hidden else item for name, item in value.items()}

    def ReadDataSource(self, request: Any, _context: Any) -> Any:
        config = self._read(request.config)
        shape = self._schema["data"][request.type_name]
        answer = values.data(request.type_name, config, self._region)
        for name, inner in shape.get("objects", {}).items():
            if inner.get("computed"):
                given = (answer.get(name) or [{}])[0]
                answer[name] = [{**self._empty(inner), **given}]
        return self._protos.ReadDataSource.Response(state=self._written({**config, **answer}))

    def _empty(self, shape: Shape) -> dict[str, Any]:
        empty: dict[str, Any] = dict.fromkeys(shape["attributes"])
        return empty | dict.fromkeys(shape.get("objects", {}))

    def OpenEphemeralResource(self, request: Any, _context: Any) -> Any:
        config = self._read(request.config)
        shape = self._schema["ephemeral"][request.type_name]
        made = {
            name: "made-up" if spelt == "=string" else config.get(name) for name, spelt in shape["attributes"].items()
        }
        return self._protos.OpenEphemeralResource.Response(result=self._written(made))

    def CloseEphemeralResource(self, _request: Any, _context: Any) -> Any:
        return self._protos.CloseEphemeralResource.Response()

    def StopProvider(self, _request: Any, _context: Any) -> Any:
        return self._protos.StopProvider.Response()
