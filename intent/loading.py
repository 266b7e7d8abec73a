"""From a version's name to a model that answers: fetched, verified, loaded, warmed; and what it costs."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

from intent.batching import Batcher, batch_classifier
from intent.classifier import Classifier, Prediction
from intent.encoding import Encoders
from intent.gentle import gently
from intent.manifest import HALF, MODEL_FILE, default_dir
from intent.promotions import PACKAGED, Pinned
from intent.routes import warn_unrouted
from intent.versions import VersionStore, cache_folder
from tasks.errors import IntegrityError, NotReady
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.stores.objects import ObjectStore

log = get_logger()

_MEMORY_FACTOR: Final = 1.6
"""Resident bytes for each byte of the graph: 1.25 when it is loaded, the rest are buffers of ordinary batches."""
_WARM_SHAPE: Final = (8, 16)
"""Texts and tokens. The first run of any size costs a millisecond more; after one of this size, none does."""


class Model:
    """A loaded classifier with its batcher."""

    def __init__(self, classifier: Classifier, batcher: Batcher[str, Prediction], floor: float) -> None:
        """Below ``floor`` (0..1) the classifier abstains."""
        self.classifier: Classifier | None = classifier
        self.batcher: Batcher[str, Prediction] | None = batcher
        self.version = classifier.version
        self.floor = floor
        self.submit = batcher.submit

    async def close(self) -> None:
        """Answer what waits, then let the memory go."""
        batcher, self.batcher, self.classifier = self.batcher, None, None
        if batcher:
            await batcher.close()
            del self.submit


class ModelLoader:
    """Loads models of one process. Versions with the same tokeniser share it."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        """Fetch from ``store``."""
        self._settings = settings
        self._store = store
        self._encoders = Encoders()
        self._any_loaded = False

    async def __call__(self, pinned: Pinned) -> tuple[Model, int]:
        """Return the model and the bytes of memory that it takes.

        Raises:
            StoreError: it cannot be fetched; trying again may help, unless it is :class:`NotFound`.
            NotReady: ONNX Runtime is not installed, or the packaged or configured model is not there.
            IntegrityError: it is damaged, or does not run.
        """
        directory, classifier = await self._classifier(pinned)
        chosen = self._settings.intent
        floor = self._settings.routing.threshold
        batcher = batch_classifier(classifier, chosen, threshold=floor)
        warn_unrouted(classifier.version, classifier.labels, self._settings.routing)
        self._any_loaded = True
        _tell(classifier)
        cost = round((directory / MODEL_FILE).stat().st_size * _MEMORY_FACTOR)
        return Model(classifier, batcher, classifier.threshold if floor is None else floor), cost

    async def _classifier(self, pinned: Pinned) -> tuple[Path, Classifier]:
        if pinned == PACKAGED:
            directory = self._settings.intent.model_dir or default_dir()
            return directory, await self._load(directory)
        versions = VersionStore(self._store, pinned.family)
        cache = cache_folder(self._settings.intent.cache_dir)
        for anew in (False, True):
            directory = await versions.fetch(pinned, cache, anew=anew)
            try:
                classifier = await self._load(directory)
            except (IntegrityError, NotReady) as error:  # damaged since, or swept away with other temporary files
                if anew:
                    raise
                log.warning("fetched version does not hold, fetching it again", version=str(pinned), error=str(error))
                continue
            if classifier.version != pinned.version:
                raise IntegrityError(f"{directory}: holds {classifier.version} in place of {pinned.version}")
            return directory, classifier
        raise AssertionError  # the second time either returns or raises

    async def _load(self, directory: Path) -> Classifier:
        aside = self._any_loaded  # at the start nobody would be spared: the first request would wait for this
        chosen = self._settings.intent
        load = partial(Classifier.load, directory, chosen.threads, encoders=self._encoders, gentle=aside)
        classifier = await asyncio.to_thread(load)
        if aside:
            try:
                await gently(warm, classifier)
            except Exception as error:  # ONNX Runtime has no public base class of its errors
                raise IntegrityError(f"{directory}: does not run: {error}") from error
        return classifier


def _tell(classifier: Classifier) -> None:
    """Log what runs a model: where one made for GPUs runs on the CPU, it is slower than its int8 twin."""
    misplaced = classifier.manifest.recipe.get("precision") == HALF and classifier.provider == "CPUExecutionProvider"
    (log.warning if misplaced else log.info)("model loaded", version=classifier.version, provider=classifier.provider)


def warm(classifier: Classifier) -> None:
    """Run an ordinary batch, so that the memory for it is there: nothing else depends on the shape of a batch."""
    texts, tokens = _WARM_SHAPE
    some = classifier.encode("a")[1:-1] or [0]
    classifier.classify_ids([some * min(tokens, classifier.manifest.max_length)] * texts)
