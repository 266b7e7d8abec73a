"""The intent models that a worker serves with: it notices promotions, and changes models while requests run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from intent.cache import ModelCache
from intent.canary import CANARY, STABLE, Counts, Tally, gets_canary
from intent.classifier import import_runtime
from intent.loading import Model, ModelLoader
from intent.promotions import PACKAGED, Pinned, Promotion, PromotionLog
from tasks import keys
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.result import IntentInfo
from tasks.errors import NotFound, StoreError
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.stores.objects import ObjectStore

log = get_logger()

_START_SECONDS: Final = 3.0
"""So long a starting worker waits for the bucket to say what is promoted. Then it serves with the packaged model."""
_UNKNOWN: Final = -1


class _Serving(Struct, frozen=True):
    """What a family serves with; ``number`` is that of the last entry of its log that was looked at.

    ``stable`` is None where the family has nothing of its own. A canary's counts go to ``counted``'s hash.
    """

    number: int
    stable: Pinned | None = None
    canary: Pinned | None = None
    share: float = 0.0
    counted: int = 0


class LiveModels:
    """Classifies with what is promoted. Use it from one event loop only.

    Every change is made aside: fetched, verified, loaded and warmed. Then one assignment makes it what the next request
    gets, and what it replaces is given up once its requests have their answers. A version that cannot be served is
    refused, and what served before goes on.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        counts: Counts,
        *,
        worker: str,
        report: Callable[[Event], object],
        load: Callable[[Pinned], Awaitable[tuple[Model, int]]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Read versions from ``store``; ``report`` puts an event on record. ``clock`` gives seconds."""
        chosen = settings.intent
        self._settings = settings
        self._counts = counts
        self._worker = worker
        self._report = report
        self._clock = clock
        self._logs = {family: PromotionLog(store, family) for family in (chosen.family, *chosen.tenants.values())}
        self._serving = {family: _Serving(_UNKNOWN) for family in self._logs}
        self.cache: ModelCache[Pinned, Model] = ModelCache(
            load or ModelLoader(settings, store), int(chosen.cache_mb * 2**20)
        )
        self._tally = Tally()
        self._refused: dict[str, str] = {}
        self._watching: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """Return the name of the model that serves whoever has none of their own."""
        model = self.cache.peek(self._stable(self._settings.intent.family))
        return model.version if model else ""

    @property
    def facts(self) -> dict[str, Any]:
        """Return what a worker's beacon says: versions by family, canaries with their share, and what was refused."""
        return {
            "model_version": self.version,
            "models": {family: str(serving.stable) for family, serving in self._serving.items() if serving.stable},
            "canaries": {
                family: {"version": str(serving.canary), "share": serving.share}
                for family, serving in self._serving.items()
                if serving.canary
            },
            "refused": dict(self._refused),
        }

    async def start(self) -> None:
        """Load what serves first, then watch for changes.

        Raises:
            NotReady: ONNX Runtime is not installed, or the configured model is not there.
            IntegrityError: the configured or packaged model is damaged.
        """
        if self._settings.intent.model_dir:
            await self.cache.preload([PACKAGED])
            return
        # The bucket answers while the imports take their time.
        looking = asyncio.create_task(self._look_first())
        try:
            await asyncio.to_thread(import_runtime)
            await looking
        finally:
            looking.cancel()
        await self._load_or_fall_back(self._settings.intent.family)
        self._watching = asyncio.create_task(self._watch(), name="watch models")

    async def close(self) -> None:
        """Stop watching, pass on what was counted, answer what waits, and free the models."""
        if self._watching:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self.flush()
        await self.cache.close()

    async def classify(self, request: Asked) -> IntentInfo:
        """Return the intent of ``request``, by its tenant's model or that model's canary."""
        family = self._family(request.tenant)
        serving = self._serving[family]
        canary = serving.canary
        tried = canary is not None and gets_canary(canary.version, request.id, serving.share)
        pinned = canary if canary and tried else self._stable(family)
        if pinned not in self.cache:
            pinned = await self._made_ready(family, pinned)
        begun = self._clock()
        abstained = False

        async def ask(model: Model) -> IntentInfo:
            nonlocal abstained
            found = await model.submit(request.text)
            abstained = found.confidence < model.floor
            return IntentInfo(label=found.label, confidence=found.confidence, model_version=found.model_version)

        intent = await self.cache.use(pinned, ask)
        if canary:
            side = CANARY if pinned == canary else STABLE
            took = (self._clock() - begun) * 1000
            counted = keys.canary(family, serving.counted)
            self._tally.saw(counted, side, intent.label, intent.confidence, took, abstained=abstained)
        return intent

    async def flush(self) -> None:
        """Add what was counted of canaries to what other workers counted."""
        await self._tally.flush(self._counts)

    async def refresh(self) -> None:
        """Look once at every family's log, and change what has to be changed."""
        for family in self._logs:
            try:
                await self._look(family)
            except StoreError as error:
                log.warning("promotions cannot be read or a version cannot be fetched, trying again",
                            family=family, error=str(error))  # fmt: skip
            except Exception as error:  # noqa: BLE001  a watcher that ends would never see the next promotion
                log.error("promotion not understood", family=family, error=str(error))  # noqa: TRY400

    def _family(self, tenant: str) -> str:
        chosen = self._settings.intent
        family = chosen.tenants.get(tenant, chosen.family)
        return family if self._serving[family].stable else chosen.family

    def _stable(self, family: str) -> Pinned:
        return self._serving[family].stable or PACKAGED

    async def _look_first(self) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.gather(*map(self._look_up, self._logs))
        except (TimeoutError, StoreError) as error:
            log.warning("promotions cannot be read, trying again later", error=str(error) or "no answer")
        except Exception as error:  # noqa: BLE001  what is in the bucket must not keep a worker from starting
            log.error("promotion not understood", error=str(error))  # noqa: TRY400

    async def _look_up(self, family: str) -> None:
        """Note what is stable; the watcher makes canaries ready."""
        last = await self._logs[family].latest()
        if last is None:
            self._serving[family] = _Serving(0)
        else:
            number = last.number - 1 if last.canary else last.number
            self._serving[family] = _Serving(number, last.stable)

    async def _load_or_fall_back(self, family: str) -> None:
        pinned = self._stable(family)
        try:
            await self.cache.preload([pinned])
        except Exception as error:
            if pinned == PACKAGED:
                raise
            number = self._serving[family].number
            if isinstance(error, StoreError) and not isinstance(error, NotFound):
                log.warning("version cannot be fetched, trying again later", version=str(pinned), error=str(error))
                self._serving[family] = _Serving(number - 1)
            else:
                self._serving[family] = _Serving(number)
                self._refuse(family, pinned, error)
            await self.cache.preload([PACKAGED])

    async def _made_ready(self, family: str, pinned: Pinned) -> Pinned:
        """Load what is not loaded now; return what to use, which is something else where that cannot be served."""
        try:
            await self.cache.preload([pinned])
        except StoreError as error:
            if not isinstance(error, NotFound):
                raise
            self._fall_back(family, pinned, error)
        except Exception as error:
            if pinned == PACKAGED:
                raise
            self._fall_back(family, pinned, error)
        else:
            return pinned
        return self._stable(family if self._serving[family].stable else self._settings.intent.family)

    def _fall_back(self, family: str, pinned: Pinned, error: Exception) -> None:
        serving = self._serving[family]
        if pinned == serving.canary:
            self._serving[family] = _Serving(serving.number, serving.stable)
        elif pinned == serving.stable:
            self._serving[family] = _Serving(serving.number)
        self._refuse(family, pinned, error)

    async def _watch(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._settings.intent.refresh_seconds)

    async def _look(self, family: str) -> None:
        number = self._serving[family].number
        last = await (self._logs[family].latest() if number == _UNKNOWN else self._logs[family].since(number))
        if last:
            await self._follow(family, last)
        elif number == _UNKNOWN:
            self._serving[family] = _Serving(0)

    async def _follow(self, family: str, entry: Promotion) -> None:
        self._refused.pop(family, None)
        with self.cache.holding([pinned for pinned in (entry.stable, entry.canary) if pinned]):
            if not await self._ready(family, entry.stable):
                # What served goes on; this promotion is not looked at again.
                serving = self._serving[family]
                self._serving[family] = msgspec.structs.replace(serving, number=entry.number)
                return
            canary = entry.canary if entry.canary and await self._ready(family, entry.canary) else None
            share = entry.share if canary else 0.0
            self._serving[family] = _Serving(entry.number, entry.stable, canary, share, entry.number)
        log.info("model changed", family=family, version=str(entry.stable), canary=str(canary or ""), share=share)
        await self.flush()
        await self.cache.keep(set(self._wanted()))

    async def _ready(self, family: str, pinned: Pinned) -> bool:
        """Load and warm ``pinned`` aside; tell whether it can be served."""
        try:
            await self.cache.preload([pinned])
        except StoreError as error:
            if not isinstance(error, NotFound):
                raise
            self._refuse(family, pinned, error)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a version, the old one goes on
            self._refuse(family, pinned, error)
        else:
            return True
        return False

    def _wanted(self) -> Iterable[Pinned]:
        yield self._stable(self._settings.intent.family)
        for serving in self._serving.values():
            if serving.stable:
                yield serving.stable
            if serving.canary:
                yield serving.canary

    def _refuse(self, family: str, pinned: Pinned, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        self._refused[family] = f"{pinned}: {reason}"
        log.error("model version refused", family=family, version=str(pinned), reason=reason)
        self._report(
            Event(
                action=Action.MODEL_REFUSED,
                actor=self._worker,
                tenant="",
                request_id="",
                resource=f"{family}/{pinned.version}",
                decision=Decision.DENY,
                reason=reason,
            )
        )
