"""Holds the files against each other: references to nothing, modules called wrongly, what is unused or undescribed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from terraform.check.evaluate import evaluate
from terraform.check.hcl import (
    MODES,
    Attribute,
    Block,
    Finding,
    Folder,
    Reference,
    every_attribute,
    every_block,
    near,
    strings,
)
from terraform.check.schema import Schema, Shape

_CALL: Final = {"source", "version", "count", "for_each", "providers", "depends_on"}
_FUNCTIONS: Final = frozenset({
    "abs", "alltrue", "anytrue", "base64decode", "base64encode", "can", "ceil", "chunklist", "cidrhost",
    "cidrsubnet", "coalesce", "coalescelist", "compact", "concat", "contains", "distinct", "element",
    "endswith", "file", "filebase64sha256", "fileexists", "flatten", "floor", "format", "formatlist", "index",
    "join", "jsondecode", "jsonencode", "keys", "length", "log", "lookup", "lower", "max", "md5", "merge",
    "min", "nonsensitive", "one", "parseint", "range", "regex", "regexall", "replace", "reverse", "sensitive",
    "setintersection", "setproduct", "setsubtract", "setunion", "sha1", "sha256", "slice", "sort", "split",
    "startswith", "strcontains", "strrev", "substr", "sum", "templatefile", "timestamp", "title", "tobool",
    "tolist", "tomap", "tonumber", "toset", "tostring", "transpose", "trim", "trimprefix", "trimspace",
    "trimsuffix", "try", "upper", "values", "yamldecode", "yamlencode", "zipmap",
})  # fmt: skip
_TEXT: Final = {"var": "variable", "local": "local", "module": "module"}


class Module(NamedTuple):
    """A folder, and what is declared in it."""

    folder: Folder
    variables: dict[str, Block]
    outputs: dict[str, Block]
    locals: dict[str, tuple[Attribute, Block]]
    calls: dict[str, Block]
    resources: dict[tuple[str, str, str], Block]

    @classmethod
    def of(cls, folder: Folder) -> Module:
        """Return the module in ``folder``."""
        named = {
            kind: {block.labels[0]: block for block in folder.of(kind)} for kind in ("variable", "output", "module")
        }
        held = {name: (it, block) for block in folder.of("locals") for name, it in block.attributes.items()}
        made = {(mode, *block.labels): block for mode in MODES for block in folder.of(mode)}
        return cls(folder, named["variable"], named["output"], held, named["module"], made)  # type: ignore[arg-type]


def check(folders: Iterable[Folder], schema: Schema) -> Iterator[Finding]:
    """Yield what is declared, called or referred to wrongly."""
    known = {folder.path.resolve(): Module.of(folder) for folder in folders}
    for module in known.values():
        yield from _twice(module.folder)
        for block in module.folder.blocks:
            yield from _functions(block)
            if block.kind in {"variable", "output"}:
                yield from _described(block)
            if block.kind == "module":
                yield from _called(block, known.get(_source(module, block)))
        yield from _references(module, known, schema)
        yield from _unused(module)
        yield from _versions(module)
    yield from _unused_outputs(known)


# Declarations -------------------------------------------------------------------------------------------


def _twice(folder: Folder) -> Iterator[Finding]:
    seen: set[str] = set()
    for top in folder.blocks:
        if top.kind not in {"locals", "terraform", "provider"}:
            if top.address in seen:
                yield Finding(top.file, top.line, "declared-twice", f"{top.address} is there already")
            seen.add(top.address)
        for block in every_block(top):
            for attribute in block.twice:
                yield Finding(block.file, attribute.line, "declared-twice", f"{attribute.name} is given twice")


def _described(block: Block) -> Iterator[Finding]:
    for name in ("description", *(["type"] if block.kind == "variable" else ["value"])):
        if name not in block.attributes:
            yield Finding(block.file, block.line, "undescribed", f"{block.kind} {block.labels[0]} needs {name}")


def _functions(block: Block) -> Iterator[Finding]:
    for inner, attribute in every_attribute(block):
        if attribute.heredoc:
            yield Finding(
                inner.file, attribute.line, "heredoc", "write jsonencode or format: a heredoc is not looked into"
            )
        if block.kind == "variable" and attribute.name == "type":
            continue
        for name, line in attribute.calls:
            if name not in _FUNCTIONS:
                yield Finding(
                    inner.file, line, "unknown-function", f"there is no function {name}{near(name, _FUNCTIONS)}"
                )


def _source(module: Module, call: Block) -> Path:
    source = call.attributes.get("source")
    value = evaluate(source.value) if source else None
    return (module.folder.path / value).resolve() if isinstance(value, str) else Path()


def _called(call: Block, called: Module | None) -> Iterator[Finding]:
    if called is None:
        yield Finding(
            call.file, call.line, "unknown-module", f"{call.address}: source names no folder with Terraform files"
        )
        return
    for name, attribute in call.attributes.items():
        if name not in called.variables and name not in _CALL:
            meant = near(name, called.variables)
            yield Finding(
                call.file, attribute.line, "unknown-argument", f"{call.address} has no variable {name}{meant}"
            )
    for name, variable in called.variables.items():
        if "default" not in variable.attributes and name not in call.attributes:
            yield Finding(call.file, call.line, "missing-argument", f"{call.address} needs {name}")


def _unused(module: Module) -> Iterator[Finding]:
    used = {
        reference.path[:2]
        for top in module.folder.blocks
        for block, attribute in every_attribute(top)
        for reference in attribute.references
        if not (block.kind == "validation" and top.kind == "variable")
    }
    for name, variable in module.variables.items():
        if ("var", name) not in used:
            yield Finding(variable.file, variable.line, "unused", f"variable {name} is not read")
    for name, (attribute, block) in module.locals.items():
        if ("local", name) not in used:
            yield Finding(block.file, attribute.line, "unused", f"local {name} is not read")
    for (mode, kind, name), block in module.resources.items():
        read = any(path[:2] == ("data", kind) for path in used)
        if mode == "data" and not read:
            yield Finding(block.file, block.line, "unused", f"data {kind}.{name} is not read")


def _unused_outputs(known: dict[Path, Module]) -> Iterator[Finding]:
    """Yield the outputs of modules that no caller reads; those of one that is handed on as a whole are all read."""
    read: dict[Path, set[str]] = {}
    for module in known.values():
        for path, name in _outputs_read(module):
            read.setdefault(path, set()).add(name)
    for path, names in read.items():
        for name, block in known[path].outputs.items() if path in known and "*" not in names else ():
            if name not in names:
                yield Finding(block.file, block.line, "unused", f"output {name} is read by no caller")


def _outputs_read(module: Module) -> Iterator[tuple[Path, str]]:
    """Yield the folder and the name of each output that a module reads; ``*`` for all."""
    for top in module.folder.blocks:
        for _, attribute in every_attribute(top):
            for reference in attribute.references:
                if reference.path[0] == "module" and reference.path[1] in module.calls:
                    steps = [step for step in reference.path[2:] if step != "[]"]
                    yield _source(module, module.calls[reference.path[1]]), steps[0] if steps else "*"


def _versions(module: Module) -> Iterator[Finding]:
    settings = next(module.folder.of("terraform"), None)
    file = module.folder.blocks[0].file.parent / "versions.tf"
    if settings is None or "required_version" not in settings.attributes:
        yield Finding(file, 1, "unpinned", "the module needs terraform { required_version = … }")
        return
    named = {name for block in settings.of("required_providers") for name in block.attributes}
    for provider in sorted({kind.partition("_")[0] for _, kind, _ in module.resources} - named):
        yield Finding(settings.file, settings.line, "unpinned", f"required_providers does not name {provider}")
    for block in settings.of("required_providers"):
        for attribute in block.attributes.values():
            for text, line in strings(attribute.value):
                if re.match(r"[=~<>\d]", text) and "<" not in text:
                    yield Finding(block.file, line, "unpinned", f"{attribute.name} has no upper bound: {text}")


# References ------------------------------------------------------------------------------------------------


def _references(module: Module, known: dict[Path, Module], schema: Schema) -> Iterator[Finding]:
    for top in module.folder.blocks:
        yield from _in_block(top, top, frozenset(), module, known, schema)


def _in_block(
    top: Block, block: Block, bound: frozenset[str], module: Module, known: dict[Path, Module], schema: Schema
) -> Iterator[Finding]:
    for attribute in block.attributes.values():
        if top.kind == "variable" and attribute.name == "type":
            continue
        if attribute.name in {"ignore_changes", "providers"} or (block.kind == "required_providers"):
            continue
        for reference in attribute.references:
            if reference.path[0] not in bound and (text := _nothing(top, reference, module, known, schema)):
                yield Finding(block.file, reference.line, "undefined", text)
    for inner in block.blocks:
        iterator = {inner.labels[0]} if inner.kind == "dynamic" and inner.labels else set()
        yield from _in_block(top, inner, bound | iterator, module, known, schema)


def _nothing(top: Block, reference: Reference, module: Module, known: dict[Path, Module], schema: Schema) -> str:
    """Return why a reference leads nowhere, or nothing."""
    root, *rest = reference.path
    spelt = ".".join(reference.path)
    if root in {"path", "terraform", "self"}:
        return ""
    if root in {"each", "count"}:
        needed = "for_each" if root == "each" else "count"
        return "" if needed in top.attributes else f"{spelt}: {top.address} has no {needed}"
    if root in {"var", "local"}:
        names = module.variables if root == "var" else module.locals
        return (
            "" if rest and rest[0] in names else f"{spelt}: no such {_TEXT[root]}{near(rest[0] if rest else '', names)}"
        )
    if root == "module":
        return _nothing_in_module(spelt, rest, module, known)
    mode, path = (root, rest) if root in {"data", "ephemeral"} else ("resource", list(reference.path))
    if len(path) < 2 or (mode, path[0], path[1]) not in module.resources:
        made = [f"{kind}.{name}" for its, kind, name in module.resources if its == mode]
        return f"{spelt}: no such {mode}{near('.'.join(path[:2]), made)}"
    return _nothing_in_shape(spelt, path[2:], schema.shape(mode, path[0]))


def _nothing_in_module(spelt: str, rest: list[str], module: Module, known: dict[Path, Module]) -> str:
    if not rest or rest[0] not in module.calls:
        return f"{spelt}: no such module{near(rest[0] if rest else '', module.calls)}"
    called = known.get(_source(module, module.calls[rest[0]]))
    names = [step for step in rest[1:] if step != "[]"]
    if called is None or not names or names[0] in called.outputs:
        return ""
    return f"{spelt}: the module has no output {names[0]}{near(names[0], called.outputs)}"


def _nothing_in_shape(spelt: str, path: list[str], shape: Shape | None) -> str:
    for step in path:
        if shape is None or step == "[]":
            continue
        if step not in shape.readable:
            return f"{spelt}: there is no attribute {step}{near(step, shape.readable)}"
        shape = shape.blocks.get(step) or shape.objects.get(step)
    return ""
