"""The watch of a prefix: what is new is taken once, also after a restart."""

import pytest

from handlers.events.notices import Created
from handlers.events.watch import Place, Watch, places
from tasks.errors import QuotaExceeded, StoreError
from tasks.settings import BucketSource, EventSettings, Settings
from tasks.stores.objects import MemoryObjectStore
from tasks.stores.watched import MemoryWatched

HERE = Place("data", "uploads/")


class Bucket:
    """A bucket, what was seen of it, and what was taken."""

    def __init__(self) -> None:
        self.store = MemoryObjectStore()
        self.marks = MemoryWatched()
        self.taken: list[Created] = []
        self.fail: Exception | None = None

    async def take(self, created: Created) -> None:
        if self.fail:
            raise self.fail
        self.taken.append(created)

    def watch(self, *, existing: bool = False) -> Watch:
        """Return the watch of a new process."""
        return Watch([HERE], bucket=lambda _: self.store, marks=self.marks, take=self.take, existing=existing)

    @property
    def names(self) -> list[str]:
        return [created.key.removeprefix("uploads/") for created in self.taken]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


async def test_only_what_is_new_is_taken_and_once(bucket: Bucket) -> None:
    await bucket.store.create("uploads/old.txt", b"old")
    watch = bucket.watch()
    assert await watch.look(HERE) == 0
    await bucket.store.create("uploads/b.txt", b"b")
    await bucket.store.create("uploads/a.jsonl", b"{}")
    await bucket.store.create("results/r.json", b"{}")
    await bucket.store.create("uploads/picture.png", b"")
    assert await watch.look(HERE) == 2
    assert await watch.look(HERE) == 0
    assert bucket.names == ["a.jsonl", "b.txt"]
    assert bucket.taken[1].size == 1
    assert bucket.taken[0].version


async def test_what_came_while_nobody_watched_is_taken_at_the_next_start(bucket: Bucket) -> None:
    await bucket.watch().look(HERE)
    await bucket.store.create("uploads/a.txt", b"a")
    assert await bucket.watch().look(HERE) == 1
    assert await bucket.watch().look(HERE) == 0


async def test_an_empty_prefix_that_was_watched_counts_as_watched(bucket: Bucket) -> None:
    await bucket.watch().look(HERE)
    assert await bucket.marks.seen(*HERE) == {}


async def test_existing_objects_are_taken_where_that_is_asked_for(bucket: Bucket) -> None:
    await bucket.store.create("uploads/a.txt", b"a")
    await bucket.watch().look(HERE)
    again = bucket.watch(existing=True)
    assert await again.look(HERE) == 1
    assert await again.look(HERE) == 0


async def test_another_content_is_another_object(bucket: Bucket) -> None:
    watch = bucket.watch()
    await watch.look(HERE)
    for body in (b"one", b"two", b"two"):
        await bucket.store.replace("uploads/a.txt", body)
        await watch.look(HERE)
    assert len({created.version for created in bucket.taken}) == len(bucket.taken) == 2


@pytest.mark.parametrize("fault", [StoreError("away"), QuotaExceeded("full", retry_seconds=1)])
async def test_what_could_not_be_taken_is_taken_at_the_next_look(bucket: Bucket, fault: Exception) -> None:
    watch = bucket.watch()
    await watch.look(HERE)
    await bucket.store.create("uploads/a.txt", b"a")
    bucket.fail = fault
    assert await watch.look(HERE) == 0
    assert await bucket.marks.seen(*HERE) == {}
    bucket.fail = None
    assert await watch.look(HERE) == 1


async def test_who_dies_before_the_mark_takes_the_object_again(bucket: Bucket) -> None:
    await bucket.watch().look(HERE)
    await bucket.store.create("uploads/a.txt", b"a")
    bucket.fail = RuntimeError("killed")
    with pytest.raises(RuntimeError):
        await bucket.watch().look(HERE)
    bucket.fail = None
    assert await bucket.watch().look(HERE) == 1


async def test_what_is_gone_is_forgotten(bucket: Bucket) -> None:
    watch = bucket.watch()
    await watch.look(HERE)
    await bucket.store.create("uploads/a.txt", b"a")
    await watch.look(HERE)
    del bucket.store.objects["uploads/a.txt"]
    await watch.look(HERE)
    assert await bucket.marks.seen(*HERE) == {}


def test_a_prefix_inside_another_is_watched_with_that() -> None:
    sources = (
        BucketSource(prefix="uploads/", tenant="all"),
        BucketSource(prefix="uploads/acme/", tenant="acme"),
        BucketSource(bucket="partners", prefix="uploads/acme/", tenant=None),
        BucketSource(prefix="other/"),
    )
    named = places(Settings(events=EventSettings(buckets=sources)))
    assert named == [
        Place("partners", "uploads/acme/"),
        Place("sluice-data", "other/"),
        Place("sluice-data", "uploads/"),
    ]
