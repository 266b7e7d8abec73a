"""Published versions of intent models in object storage: written once, the manifest last, checked on both ways."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from intent.gentle import gently
from intent.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, Manifest, check_model
from intent.promotions import Pinned
from tasks import keys
from tasks.contracts.base import sha256, told
from tasks.errors import AlreadyExists, IntegrityError, NotFound, NotReady
from tasks.stores.objects import ObjectStore

_FILES: Final = (MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE)
_MOST_KEPT: Final = 8
"""So many fetched versions of a family stay in the cache folder: those used last."""
_STAGING: Final = ".fetching-"
_FORGOTTEN_SECONDS: Final = 3600.0


class VersionStore:
    """The versions of one family. A version without its manifest was never published."""

    def __init__(self, store: ObjectStore, family: str) -> None:
        self.family = family
        self._store = store

    async def publish(self, model_dir: Path) -> tuple[Pinned, bool]:
        """Write the model in ``model_dir``; return it, and whether it was not there yet. May be called again.

        Raises:
            NotReady: a file of the model is missing.
            IntegrityError: a file does not match its digest, or other bytes lie where this version belongs.
        """
        manifest, _ = await asyncio.to_thread(check_model, model_dir)
        fresh = False
        for name in _FILES:
            data = await asyncio.to_thread((model_dir / name).read_bytes)
            digest = sha256(data)
            if name != MANIFEST_FILE and digest != manifest.files[name]:
                raise IntegrityError(f"{model_dir / name}: was replaced while it was being published")
            fresh = await self._create(keys.model_file(self.family, manifest.version, name), name, data)
        # Where somebody published it before, theirs is the manifest: figures in it may differ, what decides does not.
        return await self.find(manifest.version), fresh

    async def find(self, version: str) -> Pinned:
        """Return a published version by its name.

        Raises:
            NotFound: it is not published.
            IntegrityError: its manifest is malformed, or that of another version.
        """
        data = await self._manifest(version)
        _parsed(data, version)
        return Pinned(self.family, version, sha256(data))

    async def manifest(self, pinned: Pinned) -> Manifest:
        """Return the manifest of a published version; errors as for :meth:`find`."""
        data = await self._manifest(pinned.version)
        if sha256(data) != pinned.manifest:
            raise IntegrityError(f"{pinned}: its manifest is not the one that was promoted")
        return _parsed(data, pinned.version)

    async def names(self) -> list[str]:
        """Return the names of the published versions, sorted."""
        found = [key.split("/") async for key in self._store.list(keys.model_versions(self.family))]
        return sorted(parts[-2] for parts in found if parts[-1] == MANIFEST_FILE)

    async def fetch(self, pinned: Pinned, cache: Path, *, anew: bool = False) -> Path:
        """Return a folder below ``cache`` with the files of ``pinned``, fetching them unless they are there.

        What is fetched is checked. What is there may have been damaged since: whoever loads it checks it again, and
        asks for it ``anew`` where it does not hold.

        Raises:
            NotFound: it is not published, or a file of it is missing.
            IntegrityError: a file is not the one that was promoted.
        """
        folder = cache / self.family / pinned.version
        if anew:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        elif await asyncio.to_thread(_is_there, folder, pinned):
            return folder
        await self.manifest(pinned)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_STAGING))
        try:
            for name in _FILES:
                await self._download(keys.model_file(self.family, pinned.version, name), staging / name)
            await gently(_settle, staging, folder, pinned)
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        return folder

    async def _manifest(self, version: str) -> bytes:
        try:
            return await self._store.get(keys.model_file(self.family, version, MANIFEST_FILE))
        except NotFound:
            raise NotFound(f"version {version!r} of {self.family} is not published") from None

    async def _create(self, key: str, name: str, data: bytes) -> bool:
        try:
            await self._store.create(key, data)
        except AlreadyExists:
            if name != MANIFEST_FILE and sha256(await self._store.get(key)) != sha256(data):
                raise IntegrityError(
                    f"{key}: other bytes lie there; whoever looks after the bucket must say why"
                ) from None
            return False
        return True

    async def _download(self, key: str, file: Path) -> None:
        out = await asyncio.to_thread(file.open, "wb")
        try:
            await _written(self._store.read(key), out)
        finally:
            await asyncio.to_thread(out.close)


async def _written(pieces: AsyncIterator[bytes], out: IO[bytes]) -> None:
    async for piece in pieces:
        await asyncio.to_thread(out.write, piece)


def _parsed(data: bytes, version: str) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"the manifest of {version}: {told(error)}") from error
    if manifest.version != version:
        raise IntegrityError(f"the manifest of {version} is that of {manifest.version}")
    return manifest


def _is_there(folder: Path, pinned: Pinned) -> bool:
    try:
        if sha256((folder / MANIFEST_FILE).read_bytes()) != pinned.manifest:
            shutil.rmtree(folder, ignore_errors=True)
            return False
        os.utime(folder)
    except OSError:
        return False
    return True


def _check(folder: Path, pinned: Pinned) -> None:
    manifest, _ = check_model(folder)
    found = sha256((folder / MANIFEST_FILE).read_bytes())
    if manifest.version != pinned.version or found != pinned.manifest:
        raise IntegrityError(f"{folder}: does not hold {pinned}")


def _settle(staging: Path, folder: Path, pinned: Pinned) -> None:
    try:
        _check(staging, pinned)
    except NotReady as error:
        raise IntegrityError(f"{pinned}: {error}") from error
    if not folder.exists():
        with suppress(OSError):  # another process was faster
            staging.rename(folder)
    if not folder.exists():
        raise NotReady(f"{folder}: cannot be made")
    with suppress(OSError):  # another process does the same
        _prune(folder)


def _prune(fresh: Path) -> None:
    """Delete the versions that were not used for longest, and what fetches that were killed left behind."""
    others = [path for path in fresh.parent.iterdir() if path != fresh]
    folders = [path for path in others if not path.name.startswith(_STAGING)]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    forgotten = time.time() - _FORGOTTEN_SECONDS
    left = [path for path in others if path.name.startswith(_STAGING) and path.stat().st_mtime < forgotten]
    for old in (*folders[_MOST_KEPT - 1 :], *left):
        shutil.rmtree(old, ignore_errors=True)


def cache_folder(chosen: Path | None) -> Path:
    """Return where fetched versions are kept: ``chosen``, else a folder of this user's among the temporary ones.

    Raises:
        NotReady: somebody else owns that folder.
    """
    if chosen:
        return chosen
    folder = Path(tempfile.gettempdir()) / f"sluice-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise NotReady(f"{folder} belongs to somebody else: set intent.cache_dir")
    return folder
