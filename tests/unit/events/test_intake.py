import asyncio
from collections.abc import Sequence

import orjson
import pytest

from handlers.door import Acceptance, Accepted, Outcome
from handlers.events.intake import Delivery, Taken, take_messages, take_object
from handlers.events.notices import Created
from tasks import keys
from tasks.contracts.request import Request
from tasks.errors import Conflict, Denied, InvalidInput, QuotaExceeded, StoreError
from tasks.stores.objects import MemoryObjectStore

CREATED = Created("b", "uploads/many.jsonl", "v1", 10)


class FakeDoor:
    """Accepts each id once; ``refusals`` and ``fault`` say otherwise."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.refusals: dict[str, Outcome] = {}
        self.fault: Exception | None = None

    async def __call__(self, requests: Sequence[Request]) -> list[Outcome]:
        await asyncio.sleep(0)
        if self.fault:
            raise self.fault
        if any(request.intent == "unknown" for request in requests):
            raise InvalidInput("intent: has no route")
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Outcome:
        if request.text in self.refusals:
            return self.refusals[request.text]
        is_new = request.id not in self.seen
        self.seen += [request.id] * is_new
        return Accepted(request.id, request.tenant, Acceptance.NEW if is_new else Acceptance.SAME)


class Letters:
    """Keeps dead letters; ``full`` makes it fail."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.full = False

    async def put(self, body: str, *, message_id: str, reason: str) -> None:
        if self.full:
            raise StoreError("no")
        self.kept[message_id] = reason


def bucket_of(*rows: object) -> MemoryObjectStore:
    bucket = MemoryObjectStore()
    bucket.objects[CREATED.key] = b"\n".join(map(orjson.dumps, rows))
    return bucket


async def taken(bucket: MemoryObjectStore, door: FakeDoor) -> Taken:
    return await take_object(CREATED, tenant="acme", bucket=bucket, manifests=bucket, accept=door)


def manifest_of(bucket: MemoryObjectStore) -> list[dict[str, object]]:
    [key] = [key for key in bucket.objects if key.startswith("manifests/")]
    return [orjson.loads(line) for line in bucket.objects[key].splitlines()]


async def test_an_object_becomes_requests_and_a_manifest() -> None:
    bucket, door = bucket_of({"text": "one"}, {"text": 2}, {"id": "c", "text": "taken"}), FakeDoor()
    door.refusals["taken"] = Conflict("id: in use")
    assert await taken(bucket, door) == Taken(accepted=1, same=0, refused=2)
    head, first, second, third = manifest_of(bucket)
    assert head == {"bucket": "b", "key": CREATED.key, "version": "v1"}
    assert first == {"line": 1, "id": door.seen[0]}
    assert second["error"]["code"] == "invalid_input"  # type: ignore[index]
    assert third["id"] == "c"
    assert third["error"]["code"] == "conflict"  # type: ignore[index]


async def test_delivered_five_times_at_once_it_is_taken_once() -> None:
    bucket, door = bucket_of(*({"text": f"t{number}"} for number in range(250))), FakeDoor()
    found = await asyncio.gather(*(taken(bucket, door) for _ in range(5)))
    assert len(door.seen) == sum(one.accepted for one in found) == 250
    assert sum(one.same for one in found) == 4 * 250
    assert len(manifest_of(bucket)) == 251


async def test_an_intent_without_a_route_fails_its_own_line_only() -> None:
    bucket, door = bucket_of({"text": "one"}, {"text": "two", "intent": "unknown"}, {"text": "three"}), FakeDoor()
    assert await taken(bucket, door) == Taken(accepted=2, refused=1)


async def test_a_full_tenant_has_the_event_delivered_again() -> None:
    bucket, door = bucket_of({"text": "one"}, {"text": "full"}), FakeDoor()
    door.refusals["full"] = QuotaExceeded("later", retry_seconds=5)
    with pytest.raises(QuotaExceeded):
        await taken(bucket, door)
    door.refusals.clear()
    assert await taken(bucket, door) == Taken(accepted=1, same=1)


async def test_a_large_object_has_a_manifest_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.events.intake.MANIFEST_LINES", 100)
    bucket, door = bucket_of(*({"text": f"t{number}"} for number in range(250))), FakeDoor()
    await taken(bucket, door)
    parts = sorted(key for key in bucket.objects if key.startswith("manifests/"))
    assert [len(bucket.objects[part].splitlines()) for part in parts] == [101, 101, 51]
    assert parts[0] == keys.manifest(parts[0].split("/")[1], 1)


async def test_long_texts_are_accepted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.events.intake.BATCH_BYTES", 100)
    bucket, door = bucket_of(*({"text": "t" * 40, "id": f"r{number}"} for number in range(7))), FakeDoor()
    sizes: list[int] = []

    async def accept(requests: Sequence[Request]) -> list[Outcome]:
        sizes.append(len(requests))
        return await door(requests)

    found = await take_object(CREATED, tenant="acme", bucket=bucket, manifests=bucket, accept=accept)
    assert found == Taken(accepted=7)
    assert sizes == [3, 3, 1]


async def messages(door: FakeDoor, letters: Letters, *bodies: str) -> list[str]:
    deliveries = [Delivery(f"m{number}", body) for number, body in enumerate(bodies)]
    return await take_messages(deliveries, tenant="acme", accept=door, dead_letters=letters)


async def test_only_what_a_retry_mends_comes_back() -> None:
    door, letters = FakeDoor(), Letters()
    door.refusals = {"full": QuotaExceeded("later", retry_seconds=5), "not mine": Denied("no")}
    again = await messages(
        door, letters, '{"text": "fine"}', "junk", '{"text": "full"}', '{"text": "not mine"}', '{"text": ""}'
    )
    assert again == ["m2"]
    assert list(letters.kept) == ["m1", "m4", "m3"]
    assert letters.kept["m3"] == "denied: no"
    assert len(door.seen) == 1


async def test_delivered_again_it_is_the_same_request() -> None:
    door, letters = FakeDoor(), Letters()
    await messages(door, letters, '{"text": "fine"}')
    assert await messages(door, letters, '{"text": "fine"}') == []
    assert len(door.seen) == 1


async def test_while_a_store_is_away_all_come_back_but_junk() -> None:
    door, letters = FakeDoor(), Letters()
    door.fault = StoreError("away")
    assert await messages(door, letters, '{"text": "fine"}', "junk", '{"text": "also"}') == ["m0", "m2"]
    assert list(letters.kept) == ["m1"]


async def test_a_dead_letter_that_cannot_be_kept_comes_back() -> None:
    letters = Letters()
    letters.full = True
    assert await messages(FakeDoor(), letters, "junk") == ["m0"]
