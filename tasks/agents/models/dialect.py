"""What one model of an API calls its parameters: newer ones know fewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Dialect:
    """Learns from refusals. Newer models know ``max_completion_tokens`` only, and some no temperature."""

    def __init__(self) -> None:
        self._unsupported: set[str] = set()

    def learn(self, payload: Mapping[str, Any], detail: str) -> bool:
        """Remember the parameter that ``detail`` calls unsupported, and tell whether to try without it."""
        for name, sign in (("max_tokens", "max_completion_tokens"), ("temperature", "temperature")):
            if name in payload and sign in detail and "unsupported" in detail.lower():
                self._unsupported.add(name)
                return True
        return False

    def spoken(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return ``payload`` in words that the model knows."""
        if not self._unsupported:
            return payload
        kept = {name: value for name, value in payload.items() if name not in self._unsupported}
        if "max_tokens" in self._unsupported and "max_tokens" in payload:
            kept["max_completion_tokens"] = payload["max_tokens"]
        return kept
