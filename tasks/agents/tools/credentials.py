"""Secrets that a tool sends and no model sees: taken from the environment by name, struck out of what comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

from tasks.errors import SettingsError

STRUCK: Final = "[redacted]"
_NAME: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LEAST: Final = 4
"""Characters of a value that is worth striking out: shorter ones stand everywhere by chance."""


def filled(template: str, environ: Mapping[str, str], *, where: str) -> str:
    """Return ``template`` with each ``${NAME}`` replaced by that variable. ``where`` is the key of the settings.

    Raises:
        SettingsError: a variable is not set. It names the key and the variable.
    """
    for name in _NAME.findall(template):
        if not environ.get(name):
            raise SettingsError(f"{where}: the environment variable {name} is not set")
    return _NAME.sub(lambda found: environ[found[1]], template)


def values(template: str, environ: Mapping[str, str]) -> list[str]:
    """Return what ``filled`` puts into ``template``."""
    return [environ[name] for name in _NAME.findall(template) if environ.get(name)]


def strike(text: str, secrets: Iterable[str], *, cut: bool = False) -> str:
    """Return ``text`` without ``secrets``, also as JSON and URLs spell them: services repeat what they were sent.

    Where ``text`` was ``cut``, the beginning of one at its end goes too.
    """
    for secret in secrets:
        if len(secret) >= _LEAST:
            for spelling in {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}:
                text = text.replace(spelling, STRUCK)
                begun = (spelling[:end] for end in range(len(spelling) - 1, _LEAST - 1, -1)) if cut else ()
                if left := next(filter(text.endswith, begun), ""):
                    text = text.removesuffix(left) + STRUCK
    return text
