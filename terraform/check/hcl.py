"""Reads a folder of Terraform files into blocks and expressions that know their file and line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Final, NamedTuple

from lark import Token, Tree
from lark.exceptions import UnexpectedInput

Node = Tree[Token]
MODES: Final = ("resource", "data", "ephemeral")
"""The kinds of blocks that a provider answers for."""


class Finding(NamedTuple):
    """Something wrong: where, which rule says so, and the mend."""

    file: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        """Return it as a compiler says it."""
        return f"{self.file}:{self.line}: {self.rule}: {self.text}"


class Unreadable(Exception):
    """A file is not HCL."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True)
class Attribute:
    """``name = value``."""

    name: str
    value: Node
    line: int

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Return every reference in the value."""
        return tuple(references(self.value))

    @cached_property
    def calls(self) -> tuple[tuple[str, int], ...]:
        """Return the functions that the value calls, with their lines."""
        return tuple(calls(self.value))

    @cached_property
    def heredoc(self) -> bool:
        """Return whether there is a heredoc in the value."""
        return any(True for _ in self.value.find_pred(lambda node: str(node.data).startswith("heredoc")))


@dataclass(frozen=True)
class Block:
    """``kind "label" "label" { … }``."""

    kind: str
    labels: tuple[str, ...]
    file: Path
    line: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    twice: tuple[Attribute, ...] = ()
    """Arguments that are given a second time."""

    def of(self, kind: str) -> Iterator[Block]:
        """Yield the blocks of ``kind`` directly below, dynamic ones by their content."""
        for block in self.blocks:
            if block.kind == kind:
                yield block
            elif block.kind == "dynamic" and block.labels == (kind,):
                yield from block.of("content")

    @property
    def address(self) -> str:
        """Return what it is called in a reference."""
        words = self.labels if self.kind == "resource" else (self.kind, *self.labels)
        return ".".join(words)


@dataclass(frozen=True)
class Folder:
    """A module: the blocks of every ``.tf`` file of a folder, and the lines of those files."""

    path: Path
    blocks: tuple[Block, ...]
    lines: dict[Path, list[str]]

    def of(self, kind: str) -> Iterator[Block]:
        """Yield the blocks of ``kind``."""
        return (block for block in self.blocks if block.kind == kind)


def read_folder(path: Path, root: Path, instead: Mapping[Path, str] | None = None) -> Folder:
    """Return the module in ``path``; files are named from ``root`` on. Raises :class:`Unreadable`.

    ``instead`` has texts of files that are read in place of what they hold.
    """
    blocks: list[Block] = []
    lines = {}
    for file in sorted(path.glob("*.tf")):
        name = file.relative_to(root)
        text = (instead or {}).get(name) or file.read_text("utf-8")
        lines[name] = text.splitlines()
        blocks += _parse(text, name)
    return Folder(path, tuple(blocks), lines)


def modules(root: Path) -> list[Path]:
    """Return every folder below ``root`` that holds Terraform files."""
    return sorted({file.parent for file in root.rglob("*.tf") if ".terraform" not in file.parts})


@cache
def _parse(text: str, file: Path) -> tuple[Block, ...]:
    import hcl2

    try:
        body = hcl2.parses_to_tree(text if text.endswith("\n") else text + "\n").children[0]
    except UnexpectedInput as error:
        raise Unreadable(Finding(file, max(error.line, 1), "syntax", str(error).splitlines()[0])) from None
    return _block(file, "", (), 1, _node(body)).blocks


def _block(file: Path, kind: str, labels: tuple[str, ...], line: int, body: Node) -> Block:
    attributes: dict[str, Attribute] = {}
    twice, blocks = [], []
    for child in body.children:
        if not isinstance(child, Tree) or child.data not in {"attribute", "block"}:
            continue
        words = [node for node in child.children if isinstance(node, Tree)]
        if child.data == "attribute":
            attribute = Attribute(word(words[0]), words[-1], child.meta.line)
            if attribute.name in attributes:
                twice.append(attribute)
            attributes.setdefault(attribute.name, attribute)
            continue
        names = [word(node) for node in words if node.data not in {"body", "new_line_or_comment"}]
        blocks.append(_block(file, names[0], tuple(names[1:]), child.meta.line, words[-1]))
    return Block(kind, labels, file, line, attributes, tuple(blocks), tuple(twice))


def _node(child: Node | Token) -> Node:
    if not isinstance(child, Tree):
        raise TypeError(f"{child!r}: a tree was expected")
    return child


def word(node: Node) -> str:
    """Return an identifier, or a string without templates, as text."""
    return "".join(
        str(token) for token in node.scan_values(lambda token: isinstance(token, Token) and token.type != "DBLQUOTE")
    )


# Expressions ----------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """``root.path[…].path``: the names in order; an index or a splat is ``[]``."""

    path: tuple[str, ...]
    line: int


_CHAINS: Final = {"get_attr_expr_term", "index_expr_term", "attr_splat_expr_term", "full_splat_expr_term"}


def references(node: Node, bound: frozenset[str] = frozenset()) -> Iterator[Reference]:  # noqa: C901, PLR0912  a case each
    """Yield every reference in an expression, without those to the variables of its own ``for``."""
    if node.data in {"for_tuple_expr", "for_object_expr"}:
        intro = next(child for child in node.children if isinstance(child, Tree) and child.data == "for_intro")
        names = {word(child) for child in intro.children if isinstance(child, Tree) and child.data == "identifier"}
        for child in node.children:
            if not isinstance(child, Tree):
                continue
            if child is intro:
                yield from _in_children(child, bound, skip="identifier")
            else:
                yield from references(child, bound | names)
    elif node.data in _CHAINS:
        path, inner = _chain(node)
        if path and path[0] not in bound:
            yield Reference(tuple(path), node.meta.line)
        for other in inner:
            yield from references(other, bound)
    elif node.data == "identifier":
        if word(node) not in bound:
            yield Reference((word(node),), node.meta.line)
    elif node.data == "function_call":
        yield from _in_children(node, bound, skip="identifier")
    elif node.data == "object_elem_key":
        inner_node = _only(node)
        if inner_node.data != "identifier":  # a bare word is a key, not a reference
            yield from references(inner_node, bound)
    else:
        yield from _in_children(node, bound)


def _in_children(node: Node, bound: frozenset[str], skip: str = "") -> Iterator[Reference]:
    for child in node.children:
        if isinstance(child, Tree) and child.data != skip:
            yield from references(child, bound)


def _only(node: Node) -> Node:
    """Return what an expression is, below terms that hold nothing else."""
    while node.data in {"expr_term", "object_elem_key"}:
        inner = [child for child in node.children if isinstance(child, Tree) and child.data != "new_line_or_comment"]
        if len(inner) != 1 or any(isinstance(child, Token) and child.type == "LPAR" for child in node.children):
            return node
        node = inner[0]
    return node


def only(node: Node) -> Node:
    """Return the expression without the terms around it."""
    return _only(node)


def _chain(node: Node) -> tuple[list[str], list[Node]]:
    """Return the names of a chain, and the expressions in its indices (and its base, where that is no name)."""
    inner: list[Node] = []
    node = _only(node)
    if node.data == "identifier":
        return [word(node)], inner
    if node.data not in _CHAINS:
        return [], [node]
    base, *rest = [child for child in node.children if isinstance(child, Tree)]
    path, inner = _chain(base)
    for step in rest:
        for part in [step] if step.data in {"get_attr", "braces_index", "short_index"} else step.children:
            if not isinstance(part, Tree):
                path = [*path, "[]"] if path else path
            elif part.data == "get_attr":
                path = [*path, word(part).lstrip(".")] if path else path
            else:
                path = [*path, "[]"] if path else path
                inner += [child for child in part.children if isinstance(child, Tree)]
    return path, inner


def calls(node: Node) -> Iterator[tuple[str, int]]:
    """Yield the functions that an expression calls, with their lines."""
    for call in node.find_data("function_call"):
        yield word(_node(call.children[0])), call.meta.line


def strings(node: Node) -> Iterator[tuple[str, int]]:
    """Yield every string without templates in an expression, with its line."""
    for found in node.find_data("string"):
        if not any(True for _ in found.find_data("interpolation")):
            yield word(found), found.meta.line


def every_block(block: Block) -> Iterator[Block]:
    """Yield a block and all below it."""
    yield block
    for inner in block.blocks:
        yield from every_block(inner)


def every_attribute(block: Block) -> Iterator[tuple[Block, Attribute]]:
    """Yield each argument of a block and of all below it, with the block that it stands in."""
    for inner in every_block(block):
        for attribute in inner.attributes.values():
            yield inner, attribute


def near(name: str, names: Iterable[str]) -> str:
    """Return which of ``names`` was meant, as the end of a message; or nothing."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]}?" if found else ""
