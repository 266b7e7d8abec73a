"""Which client answers to a model's name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from tasks.settings import EMBEDDED, AgentSettings, ModelSettings, Settings

if TYPE_CHECKING:
    import httpx

    from tasks.agents.models.base import ModelClient
    from tasks.agents.models.endpoint import Endpoint

EXTRACTIVE: Final = "extractive"
EXTRACTIVE_LABEL: Final = "extractive (no language model)"
CANNED: Final = "canned"
CANNED_LABEL: Final = "canned (no language model)"
EMBEDDED_MODEL: Final = "smollm2-135m-instruct"
EMBEDDED_KEY_ENV: Final = "SLUICE_EMBEDDED_MODEL_KEY"

_EMBEDDED_MAX_TOKENS: Final = 64
# On two cores it reads about 130 tokens a second and writes about 70: what it may read is what a caller waits
# for.
_EMBEDDED_CONTEXT: Final = 768
_EMBEDDED_TIMEOUT: Final = 600.0
_LABELS: Final = {EXTRACTIVE: EXTRACTIVE_LABEL, CANNED: CANNED_LABEL}
"""What results call the providers that are no language model."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a name leads. Results name the model by ``label``; its endpoint calls it ``model``."""

    label: str
    model: str
    settings: ModelSettings


class ModelRegistry:
    """Makes clients; keeps one endpoint for each event loop and model. ``transport`` is for tests."""

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._environ = os.environ if environ is None else environ
        self._transport = transport
        self._endpoints: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Resolved, Endpoint]] = WeakKeyDictionary()
        self._extractive: ModelClient | None = None

    def resolve(self, name: str | None) -> Resolved:
        """Return where ``name`` leads; ``None`` is the default model. Any name leads somewhere.

        An entry of ``models`` wins; then ``embedded`` and ``extractive``; anything else is a model of the
        default endpoint.
        """
        name = name or self._settings.default_model
        entry = self._settings.models.get(name)
        if entry is not None:
            label = _LABELS.get(entry.provider) or entry.model or name
            return Resolved(label, entry.model or name, entry)
        if name == EMBEDDED and self._settings.embedded_model_url:
            return Resolved(f"{EMBEDDED_MODEL} (embedded)", EMBEDDED_MODEL, self._embedded())
        if name in {EMBEDDED, EXTRACTIVE}:
            return Resolved(EXTRACTIVE_LABEL, EXTRACTIVE, ModelSettings(provider=EXTRACTIVE))
        return Resolved(name, name, ModelSettings())

    def client(self, agent: AgentSettings, override: str | None = None) -> tuple[ModelClient, str]:
        """Return a client for ``agent``, and the label of its model. Call it on the loop that will use it."""
        resolved = self.resolve(override or agent.model)
        if resolved.settings.provider == EXTRACTIVE:
            return self._extracting(), resolved.label
        if resolved.settings.provider == CANNED:
            from tasks.agents.models.canned import CannedClient

            return CannedClient(resolved.settings.delay_seconds), resolved.label
        from tasks.agents.models.openai import OpenAIClient

        limit = agent.max_tokens
        if resolved.model == EMBEDDED_MODEL and limit is not None:
            # A limit meant for a large model would hold the only small one for minutes.
            limit = min(limit, resolved.settings.max_tokens)
        client = OpenAIClient(
            self._endpoint(resolved), resolved.settings, temperature=agent.temperature, max_tokens=limit
        )
        if (override or agent.model or self._settings.default_model) != EMBEDDED:
            return client, resolved.label
        from tasks.agents.models.patient import PatientClient

        patience = self._settings.embedded_patience_seconds
        return PatientClient(client, label=resolved.label, seconds=patience), resolved.label

    async def close(self) -> None:
        """Close the endpoints of the running loop. Another loop's sockets are not ours to touch."""
        for endpoint in self._endpoints.pop(asyncio.get_running_loop(), {}).values():
            await endpoint.close()

    def _embedded(self) -> ModelSettings:
        url = (self._settings.embedded_model_url or "").rstrip("/")
        return ModelSettings(
            base_url=url if url.endswith("/v1") else f"{url}/v1",
            model=EMBEDDED_MODEL,
            api_key_env=EMBEDDED_KEY_ENV,
            native_tools=False,
            max_tokens=_EMBEDDED_MAX_TOKENS,
            context_tokens=_EMBEDDED_CONTEXT,
            timeout_seconds=_EMBEDDED_TIMEOUT,
        )

    def _extracting(self) -> ModelClient:
        if self._extractive is None:
            from tasks.agents.models.extractive import ExtractiveClient

            self._extractive = ExtractiveClient()
        return self._extractive

    def _endpoint(self, resolved: Resolved) -> Endpoint:
        from tasks.agents.models.endpoint import Endpoint

        endpoints = self._endpoints.setdefault(asyncio.get_running_loop(), {})
        if resolved not in endpoints:
            endpoints[resolved] = Endpoint(
                resolved.settings, resolved.model, environ=self._environ, transport=self._transport
            )
        return endpoints[resolved]
