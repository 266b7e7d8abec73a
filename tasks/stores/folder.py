"""A copy of a bucket in a folder: what ``aws s3 sync`` makes. Keys are the paths of its files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tasks.errors import AlreadyExists, NotFound, StoreError
from tasks.stores.objects import Found

_PIECE_BYTES: Final = 1 << 20


class FolderObjectStore:
    """An object store in ``folder``. For copies that one process writes or many read."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, key)  # noqa: PTH118  Path takes ten times as long, for each object

    async def create(self, key: str, data: bytes) -> None:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        file = Path(self._path(key))
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("xb") as output:  # noqa: ASYNC230  as in get
                output.write(data)
        except FileExistsError:
            raise AlreadyExists(key) from None

    async def replace(self, key: str, data: bytes) -> None:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        Path(self._path(key)).write_bytes(data)  # noqa: ASYNC240  as in get

    async def get(self, key: str) -> bytes:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        return b"".join([piece async for piece in self.read(key)])

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        try:
            # On the loop: a local file is read faster than a thread is told to.
            with open(self._path(key), "rb") as file:  # noqa: ASYNC230, PTH123  as above
                while piece := file.read(_PIECE_BYTES):
                    yield piece
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(key) from None
        except OSError as error:
            raise StoreError(f"read {self._path(key)}: {error.strerror}") from error

    async def exists(self, key: str) -> bool:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        return os.path.isfile(self._path(key))  # noqa: ASYNC240, PTH113  as above

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        for key in _walk(self._path(prefix), prefix):
            if key > after:
                yield key

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[Found]:
        """See :class:`tasks.stores.objects.ObjectStore`."""
        async for key in self.list(prefix, after=after):
            about = os.stat(self._path(key))  # noqa: PTH116  as above
            yield Found(key, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC))


def _walk(folder: str, prefix: str) -> Iterator[str]:
    """Yield the keys below ``folder`` in the order of their spelling, one folder's names in memory at a time."""
    try:
        with os.scandir(folder) as entries:
            # With its slash a folder's name sorts as its keys do.
            # A link is no folder of a bucket, and may lead in a circle.
            names = sorted(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "") for entry in entries)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"list {folder}: {error.strerror}") from error
    for name in names:
        if name.endswith("/"):
            yield from _walk(os.path.join(folder, name), prefix + name)  # noqa: PTH118  as above
        else:
            yield prefix + name
