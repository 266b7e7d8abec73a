"""Says where in the settings a fault is: the line of the file, or the variable of the environment.

Only imported when there is a fault: cold start counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.settings.base import Place, Problem


def report(problems: Sequence[Problem], file: Path | None, overridden: Sequence[Place], *, prefix: str) -> str:
    """Return the problems in one text, each behind its place.

    ``file`` is what was read, ``overridden`` are the keys that variables set, whose names begin with ``prefix``.
    """
    root = _nodes(file) if file else None
    return "; ".join(f"{_source(place, file, root, overridden, prefix)}: {text}" for place, text in problems)


def spelt(place: Place, text: str) -> str:
    """Return ``text`` behind the name of the key."""
    return f"{'.'.join(place)}: {text}" if place else text


def line_of(root: Any, place: Place) -> int | None:
    """Return the line of the key at ``place``, or of the nearest one above it that is there; the first is 1."""
    node, line = root, None
    for key in place:
        found = _child(node, key)
        if found is None:
            break
        line, node = found
    return line


def _source(place: Place, file: Path | None, root: Any, overridden: Sequence[Place], prefix: str) -> str:
    for over in overridden:
        if place and place[: len(over)] == over[: len(place)]:
            return prefix + "__".join(over).upper()
    if file is None:
        return "the environment" if overridden else "the settings"
    line = line_of(root, place)
    return f"{file}:{line}" if line else str(file)


def _nodes(file: Path) -> Any:
    """Return the tree of ``file``, whose nodes know their lines. JSON is read as YAML, which it nearly is."""
    import yaml

    try:
        return yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return None


def _child(node: Any, key: str) -> tuple[int, Any] | None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
        item = node.value[int(key)]
        return item.start_mark.line + 1, item
    return None
