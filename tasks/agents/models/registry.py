"""Which client answers to a model's name."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tasks.agents.models.backend import Backend
from tasks.agents.models.cache import ModelCache
from tasks.errors import SluiceError
from tasks.log import get_logger
from tasks.settings import EMBEDDED, ModelSettings, Settings

if TYPE_CHECKING:
    import httpx

    from tasks.agents.models.base import ModelClient

log = get_logger()

EXTRACTIVE: Final = "extractive"
EXTRACTIVE_LABEL: Final = "extractive (no language model)"
CANNED: Final = "canned"
CANNED_LABEL: Final = "canned (no language model)"
EMBEDDED_MODEL: Final = "smollm2-135m-instruct"
EMBEDDED_KEY_ENV: Final = "SLUICE_EMBEDDED_MODEL_KEY"

_EXTENSIONS: Final = {"anthropic", "azure"}
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
    """Makes clients, and keeps the connections of those models that were used last. For one event loop.

    ``environ`` holds the keys; ``transport`` is for tests.
    """

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
        self._cache = ModelCache[Resolved](self._open, size=settings.model_cache.size)

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

    @contextlib.asynccontextmanager
    async def using(
        self, name: str | None, *, temperature: float, max_tokens: int | None = None
    ) -> AsyncIterator[tuple[ModelClient, str]]:
        """Yield a client of the model ``name``, and the model's label. Its connections stay open inside the block.

        Raises:
            NotReady: its provider is not installed.
            ModelRefused: its provider wants a key to begin with, and there is none.
        """
        resolved = self.resolve(name)
        if resolved.model == EMBEDDED_MODEL and max_tokens is not None:
            # A limit meant for a large model would hold the only small one for minutes.
            max_tokens = min(max_tokens, resolved.settings.max_tokens)
        patient = resolved.model == EMBEDDED_MODEL and (name or self._settings.default_model) == EMBEDDED
        async with self._cache.using(resolved) as backend:
            client = backend.client(temperature, max_tokens)
            if patient:
                from tasks.agents.models.patient import PatientClient

                client = PatientClient(client, label=resolved.label, seconds=self._settings.embedded_patience_seconds)
            yield client, resolved.label

    async def preload(self, names: Iterable[str]) -> None:
        """Make the clients of ``names`` and open a connection for each. What fails is tried again when it is used."""
        for name in names:
            resolved = self.resolve(name)
            try:
                async with self._cache.using(resolved) as backend:
                    await backend.warm()
            except SluiceError as error:
                log.warning("model not preloaded", model=name, error=str(error))

    async def configure(self, settings: Settings) -> None:
        """Let names lead where ``settings`` say from now on. Running requests keep their clients until they end."""
        before = {self.resolve(name) for name in self._names()}
        self._settings = settings
        gone = before - {self.resolve(name) for name in self._names()}
        # A key of an SDK is read when its client is made.
        stale = [key for key in self._cache.keys if key in gone or key.settings.provider in _EXTENSIONS]
        await self._cache.retire(tuple(stale))
        await self._cache.resize(settings.model_cache.size)

    async def close(self) -> None:
        """Close all connections. Safe to call twice."""
        await self._cache.close()

    def _names(self) -> set[str]:
        """Return the names that the settings give a meaning. All others lead to the same place for ever."""
        return {*self._settings.models, self._settings.default_model, EMBEDDED, EXTRACTIVE}

    def _embedded(self) -> ModelSettings:
        url = (self._settings.embedded_model_url or "").rstrip("/")
        return ModelSettings(
            base_url=url if url.endswith("/v1") else f"{url}/v1",
            model=EMBEDDED_MODEL,
            api_key_env=EMBEDDED_KEY_ENV,
            native_tools=False,
            plans=False,
            max_tokens=_EMBEDDED_MAX_TOKENS,
            context_tokens=_EMBEDDED_CONTEXT,
            timeout_seconds=_EMBEDDED_TIMEOUT,
            # It gives each open connection a thread: idle ones would keep others out.
            keep_alive_seconds=0,
        )

    async def _open(self, resolved: Resolved) -> Backend:
        settings = resolved.settings
        if settings.provider == EXTRACTIVE:
            from tasks.agents.models.extractive import ExtractiveClient

            return Backend(lambda *_: ExtractiveClient())
        if settings.provider == CANNED:
            from tasks.agents.models.canned import CannedClient

            return Backend(lambda *_: CannedClient(settings.delay_seconds))
        if settings.provider in _EXTENSIONS:
            return await asyncio.to_thread(self._open_extension, resolved)
        from tasks.agents.models.endpoint import Endpoint
        from tasks.agents.models.openai import open_endpoint

        endpoint = Endpoint(settings, resolved.model, environ=self._environ, transport=self._transport)
        return open_endpoint(endpoint, settings)

    def _open_extension(self, resolved: Resolved) -> Backend:
        from tasks.agents.models.extension import open_extension

        return open_extension(resolved.model, resolved.settings, self._environ)
