"""Objects that appear in a bucket that tells nobody of them: a listing is compared with what was seen before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from handlers.events.documents import is_document
from handlers.events.notices import Created
from tasks.errors import SluiceError
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.stores.objects import ObjectStore
from tasks.stores.watched import Watched

log = get_logger()

PAUSE_SECONDS: Final = 1.0
"""From the end of one look to the next, at least."""
_SHARE: Final = 10
"""Of the time at most the part that listing may take: a prefix with very many objects is looked at less often."""


class Place(NamedTuple):
    """A prefix of a bucket."""

    bucket: str
    prefix: str


def places(settings: Settings) -> list[Place]:
    """Return what ``events.buckets`` names; a prefix inside another of the same bucket is watched with that."""
    named = {Place(source.bucket or settings.data_bucket, source.prefix) for source in settings.events.buckets}
    return sorted(place for place in named if not any(_inside(place, other) for other in named))


def _inside(place: Place, other: Place) -> bool:
    return place != other and place.bucket == other.bucket and place.prefix.startswith(other.prefix)


class Watch:
    """Hands each object that is new, or has another content, to ``take``.

    What was taken is marked when that is done. Who dies in between takes the object again: that doubles no request.
    What lies there when a prefix is watched for the first time is left alone, unless it is asked for with ``existing``,
    which takes whatever is there. What comes while nobody watches is taken at the next start.
    """

    def __init__(
        self,
        watched: Iterable[Place],
        *,
        bucket: Callable[[str], ObjectStore],
        marks: Watched,
        take: Callable[[Created], Awaitable[None]],
        existing: bool = False,
    ) -> None:
        self._places = list(watched)
        self._bucket = bucket
        self._marks = marks
        self._take = take
        self._existing = existing
        self._seen: dict[Place, dict[str, str]] = {}

    async def run(self) -> None:
        """Look until cancelled. What fails is tried again at the next look."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            for place in self._places:
                try:
                    await self.look(place)
                except SluiceError as error:
                    log.warning("cannot look", bucket=place.bucket, prefix=place.prefix, error=str(error))
            await asyncio.sleep(max(PAUSE_SECONDS, (loop.time() - begun) * (_SHARE - 1)))

    async def look(self, place: Place) -> int:
        """Take what is new; return how many objects were."""
        found = {
            item.key: item async for item in self._bucket(place.bucket).scan(place.prefix) if is_document(item.key)
        }
        seen = await self._known(place, {key: item.version for key, item in found.items()})
        taken = 0
        for key, item in found.items():
            if seen.get(key) == item.version:
                continue
            try:
                await self._take(Created(place.bucket, key, item.version, item.size))
            except SluiceError as error:
                log.warning("to be taken again", bucket=place.bucket, key=key, error=str(error))
                continue
            await self._marks.mark(*place, {key: item.version})
            seen[key] = item.version
            taken += 1
        if gone := seen.keys() - found.keys():
            await self._marks.forget(*place, gone)
            for key in gone:
                del seen[key]
        return taken

    async def _known(self, place: Place, there: dict[str, str]) -> dict[str, str]:
        """Return what was seen of ``place``: remembered here, else by the marks, else what is there now."""
        if place not in self._seen:
            seen = await self._marks.seen(*place)
            if self._existing:
                seen = {}
            elif seen is None:
                seen = there
            await self._marks.mark(*place, seen)
            log.info("watching", bucket=place.bucket, prefix=place.prefix, objects=len(there), left_alone=len(seen))
            self._seen[place] = dict(seen)
        return self._seen[place]
