"""Published versions: written once, checked on both ways, kept in a folder."""

import asyncio
import os
from pathlib import Path

import pytest

from intent.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE
from intent.promotions import Pinned
from intent.versions import VersionStore, cache_folder
from tasks import keys
from tasks.contracts.base import sha256
from tasks.errors import IntegrityError, NotFound, NotReady, StoreError
from tests.support import models
from tests.support.world import FlakyStore


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def versions(store: FlakyStore) -> VersionStore:
    return VersionStore(store, "intent")


@pytest.fixture
async def pinned(versions: VersionStore, tmp_path: Path) -> Pinned:
    models.fake(tmp_path / "model")
    return (await versions.publish(tmp_path / "model"))[0]


async def test_the_manifest_is_published_last(versions: VersionStore, store: FlakyStore, tmp_path: Path) -> None:
    version = models.fake(tmp_path / "model")
    pinned, fresh = await versions.publish(tmp_path / "model")
    assert fresh
    assert pinned == Pinned("intent", version, sha256((tmp_path / "model" / MANIFEST_FILE).read_bytes()))
    assert [key.rpartition("/")[2] for key in store.writes] == [MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE]
    assert await versions.names() == [version]
    assert await versions.find(version) == pinned


async def test_publishing_again_changes_nothing(versions: VersionStore, pinned: Pinned, tmp_path: Path) -> None:
    assert await versions.publish(tmp_path / "model") == (pinned, False)


async def test_what_was_cut_off_is_published_by_the_next_try(
    versions: VersionStore, store: FlakyStore, tmp_path: Path
) -> None:
    version = models.fake(tmp_path / "model")
    await store.create(keys.model_file("intent", version, MODEL_FILE), b"graph")
    assert await versions.names() == []
    with pytest.raises(NotFound, match="not published"):
        await versions.find(version)
    assert (await versions.publish(tmp_path / "model"))[1]
    assert await versions.names() == [version]


async def test_other_bytes_where_a_version_belongs_are_not_passed_over(
    versions: VersionStore, store: FlakyStore, tmp_path: Path
) -> None:
    version = models.fake(tmp_path / "model")
    await store.create(keys.model_file("intent", version, MODEL_FILE), b"something else")
    with pytest.raises(IntegrityError, match="other bytes"):
        await versions.publish(tmp_path / "model")
    assert await versions.names() == []


async def test_a_damaged_directory_is_not_published(versions: VersionStore, store: FlakyStore, tmp_path: Path) -> None:
    models.fake(tmp_path / "model")
    (tmp_path / "model" / MODEL_FILE).write_bytes(b"grapf")
    with pytest.raises(IntegrityError):
        await versions.publish(tmp_path / "model")
    with pytest.raises(NotReady):
        await versions.publish(tmp_path / "none")
    assert not store.objects


async def test_what_is_fetched_is_what_was_published(versions: VersionStore, pinned: Pinned, tmp_path: Path) -> None:
    folder = await versions.fetch(pinned, tmp_path / "cache")
    for name in (MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE):
        assert (folder / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert [path.name for path in folder.parent.iterdir()] == [pinned.version]


async def test_what_was_fetched_is_not_fetched_again_unless_asked_for(
    versions: VersionStore, store: FlakyStore, pinned: Pinned, tmp_path: Path
) -> None:
    folder = await versions.fetch(pinned, tmp_path)
    store.objects.clear()
    assert await versions.fetch(pinned, tmp_path) == folder
    with pytest.raises(NotFound):
        await versions.fetch(pinned, tmp_path, anew=True)


async def test_a_cached_manifest_of_another_version_is_thrown_away(
    versions: VersionStore, pinned: Pinned, tmp_path: Path
) -> None:
    folder = await versions.fetch(pinned, tmp_path / "cache")
    right = (folder / MANIFEST_FILE).read_bytes()
    models.write_manifest(folder, threshold=0.9)
    assert await versions.fetch(pinned, tmp_path / "cache") == folder
    assert (folder / MANIFEST_FILE).read_bytes() == right


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
async def test_a_damaged_file_is_refused_and_leaves_nothing_behind(
    versions: VersionStore, store: FlakyStore, pinned: Pinned, tmp_path: Path, name: str, damage: str
) -> None:
    key = keys.model_file("intent", pinned.version, name)
    data = store.objects.pop(key)
    if damage != "missing":
        store.objects[key] = data[:-1] + (b"!" if damage == "changed" else b"")
    with pytest.raises(NotFound if damage == "missing" else IntegrityError):
        await versions.fetch(pinned, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "intent").iterdir())


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"\xff" * 20])
async def test_a_malformed_manifest_is_refused(
    versions: VersionStore, store: FlakyStore, pinned: Pinned, tmp_path: Path, data: bytes
) -> None:
    store.objects[keys.model_file("intent", pinned.version, MANIFEST_FILE)] = data
    with pytest.raises(IntegrityError, match="manifest"):
        await versions.find(pinned.version)
    with pytest.raises(IntegrityError, match="not the one that was promoted"):
        await versions.fetch(pinned, tmp_path)
    with pytest.raises(IntegrityError, match="manifest"):
        await versions.fetch(Pinned("intent", pinned.version, sha256(data)), tmp_path)


async def test_the_manifest_of_another_version_is_refused(
    versions: VersionStore, store: FlakyStore, pinned: Pinned, tmp_path: Path
) -> None:
    models.fake(tmp_path / "other", graph=b"other")
    key = keys.model_file("intent", pinned.version, MANIFEST_FILE)
    store.objects[key] = (tmp_path / "other" / MANIFEST_FILE).read_bytes()
    with pytest.raises(IntegrityError, match="is that of"):
        await versions.find(pinned.version)


async def test_two_who_fetch_at_once_share_one_folder(versions: VersionStore, pinned: Pinned, tmp_path: Path) -> None:
    folders = await asyncio.gather(*(versions.fetch(pinned, tmp_path / "cache") for _ in range(4)))
    assert len(set(folders)) == 1
    assert [path.name for path in folders[0].parent.iterdir()] == [pinned.version]


async def test_the_folder_does_not_grow_for_ever(versions: VersionStore, tmp_path: Path) -> None:
    for number in range(10):
        models.fake(tmp_path / str(number), graph=str(number).encode())
        pinned, _ = await versions.publish(tmp_path / str(number))
        folder = await versions.fetch(pinned, tmp_path / "cache")
    assert len(list(folder.parent.iterdir())) == 8
    assert folder.is_dir()


async def test_what_a_killed_fetch_left_behind_goes_after_a_while(
    versions: VersionStore, pinned: Pinned, tmp_path: Path
) -> None:
    family = tmp_path / "cache" / "intent"
    for name in ("old", "new"):
        (family / f".fetching-{name}").mkdir(parents=True)
    os.utime(family / ".fetching-old", (0, 0))
    await versions.fetch(pinned, tmp_path / "cache")
    assert {path.name for path in family.iterdir()} == {".fetching-new", pinned.version}


async def test_a_store_that_fails_is_no_judgement_of_the_version(versions: VersionStore, tmp_path: Path) -> None:
    class Away(FlakyStore):
        async def get(self, key: str) -> bytes:
            raise StoreError("away")

    with pytest.raises(StoreError, match="away"):
        await VersionStore(Away(), "intent").fetch(Pinned("intent", "v", "d"), tmp_path)


def test_the_default_folder_is_this_users_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = cache_folder(None)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder(None) == folder
    assert cache_folder(tmp_path / "mine") == tmp_path / "mine"
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(NotReady, match="cache_dir"):
        cache_folder(None)
