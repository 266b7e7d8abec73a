"""The providers' schema: what was kept of it in ``schema.json``, as typed shapes.

A type is written as ``string``, ``number``, ``bool``, ``any``, ``list(string)``, with ``!`` in front where the argument
is required and ``=`` where the provider sets it and nobody else may.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).parent / "schema.json"

_TEXT_MATCH: Final = {"priority": "!number", "type": "!string"}
WAF_STATEMENT: Final[dict[str, Any]] = {
    "attributes": {},
    "nesting": "list",
    "min": 1,
    "max": 1,
    "blocks": {
        "size_constraint_statement": {
            "attributes": {"comparison_operator": "!string", "size": "!number"},
            "nesting": "list",
            "max": 1,
            "blocks": {
                "field_to_match": {
                    "attributes": {},
                    "nesting": "list",
                    "max": 1,
                    "blocks": {"body": {"attributes": {"oversize_handling": "string"}, "nesting": "list", "max": 1}},
                },
                "text_transformation": {"attributes": _TEXT_MATCH, "nesting": "set", "min": 1},
            },
        },
        "rate_based_statement": {
            "attributes": {"aggregate_key_type": "string", "evaluation_window_sec": "number", "limit": "!number"},
            "nesting": "list",
            "max": 1,
            "blocks": {
                "custom_key": {
                    "attributes": {},
                    "nesting": "list",
                    "blocks": {
                        "header": {
                            "attributes": {"name": "!string"},
                            "nesting": "list",
                            "max": 1,
                            "blocks": {"text_transformation": {"attributes": _TEXT_MATCH, "nesting": "set", "min": 1}},
                        },
                    },
                },
            },
        },
        "managed_rule_group_statement": {
            "attributes": {"name": "!string", "vendor_name": "!string", "version": "string"},
            "nesting": "list",
            "max": 1,
            "blocks": {
                "rule_action_override": {
                    "attributes": {"name": "!string"},
                    "nesting": "list",
                    "blocks": {
                        "action_to_use": {
                            "attributes": {},
                            "nesting": "list",
                            "min": 1,
                            "max": 1,
                            "blocks": {"count": {"attributes": {}, "nesting": "list", "max": 1}},
                        },
                    },
                },
            },
        },
    },
}
"""The statements of WAF rules that are used here, by the provider's documentation: the bindings flatten them."""


@dataclass(frozen=True)
class Shape:
    """What stands in a block: arguments, blocks, and objects that are written as arguments."""

    attributes: dict[str, str]
    blocks: dict[str, Shape] = field(default_factory=dict)
    objects: dict[str, Shape] = field(default_factory=dict)
    nesting: str = "list"
    least: int = 0
    most: int | None = None
    computed: bool = False

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Shape:
        """Return the shape that ``schema.json`` spells."""
        return cls(
            raw["attributes"],
            {name: cls.of(inner) for name, inner in raw.get("blocks", {}).items()},
            {name: cls.of(inner) for name, inner in raw.get("objects", {}).items()},
            raw.get("nesting", "list"),
            raw.get("min", 0),
            raw.get("max"),
            raw.get("computed", False),
        )

    @cached_property
    def readable(self) -> frozenset[str]:
        """Return every name that a reference may have."""
        return frozenset((*self.attributes, *self.blocks, *self.objects))


class Schema:
    """The shapes of resources, data sources, ephemeral resources and providers, by mode and type."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self._shapes: dict[tuple[str, str], Shape] = {}

    @classmethod
    def load(cls, file: Path = FILE) -> Schema:
        """Return what is kept in ``file``."""
        raw = json.loads(file.read_text("utf-8"))
        rule = raw["resource"]["aws_wafv2_web_acl"]["blocks"]["rule"]
        rule["attributes"].pop("statement", None)
        rule["blocks"]["statement"] = WAF_STATEMENT
        return cls(raw)

    def shape(self, mode: str, kind: str) -> Shape | None:
        """Return the shape of a type, or None where it is not in the extract."""
        raw = self.raw.get(mode, {}).get(kind)
        if raw is None:
            return None
        if (mode, kind) not in self._shapes:
            self._shapes[mode, kind] = Shape.of(raw)
        return self._shapes[mode, kind]
