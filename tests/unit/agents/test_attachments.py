"""Attachments: only the request's own, only the tenant's, of a type and size that may be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import keys
from tasks.access.gate import Caller
from tasks.access.policy import load_policy
from tasks.agents.tools.attachments import AttachmentStore
from tasks.contracts.result import Status
from tasks.errors import Denied, InvalidInput, StoreError, ToolError, ToolRefused, ToolUnavailable
from tasks.settings import AgentSettings, AttachmentSettings, Settings
from tasks.stores.objects import MemoryObjectStore
from tests.support import build, trust
from tests.support.clock import Clock
from tests.support.replay import ReplayModels, runner, wants
from tests.support.world import World

NOTE = "attachments/acme/note.md"
EXECUTOR = keys.agent_pool("executor")


@pytest.fixture
def store() -> MemoryObjectStore:
    store = MemoryObjectStore()
    store.objects = {
        NOTE: "Größe\n".encode(),
        "attachments/acme/large.txt": b"x" * 101,
        "attachments/acme/program.exe": b"MZ",
        "attachments/acme/binary.txt": b"\xff\xfe\x00",
        "attachments/acme/nul.csv": b"a\0b",
        "attachments/other/secret.txt": b"theirs",
        "results/acme/r1.json": b"{}",
    }
    return store


async def test_what_is_allowed_is_read(store: MemoryObjectStore) -> None:
    reader = AttachmentStore(store, AttachmentSettings(max_bytes=100))
    assert await reader.read("acme", [NOTE], NOTE) == "Größe\n".encode()


@pytest.mark.parametrize(
    ("name", "named", "problem"),
    [
        (NOTE, (), "has no attachment"),
        ("attachments/acme/large.txt", None, "larger than 100 bytes"),
        ("attachments/acme/program.exe", None, "of no type that can be read"),
        ("attachments/other/secret.txt", None, "does not lie under attachments/acme/"),
        ("attachments/acme/../other/secret.txt", None, "does not lie under"),
        ("attachments/acme//note.md", None, "does not lie under"),
        ("attachments/acme/./note.md", None, "does not lie under"),
        ("/attachments/acme/note.md", None, "does not lie under"),
        ("attachments/acmeevil/note.md", None, "does not lie under"),
        ("results/acme/r1.json", None, "does not lie under"),
        ("attachments/acme/a\nb.md", None, "does not lie under"),
    ],
)
async def test_what_is_not_is_refused(
    store: MemoryObjectStore, name: str, named: tuple[str, ...] | None, problem: str
) -> None:
    reader = AttachmentStore(store, AttachmentSettings(max_bytes=100))
    with pytest.raises(ToolRefused, match=problem):
        await reader.read("acme", (name,) if named is None else named, name)


async def test_a_missing_one_and_a_store_that_is_away_are_told_apart(store: MemoryObjectStore) -> None:
    reader = AttachmentStore(store, AttachmentSettings())
    with pytest.raises(ToolError, match="is not there"):
        await reader.read("acme", ["attachments/acme/gone.txt"], "attachments/acme/gone.txt")

    class Away(MemoryObjectStore):
        async def get(self, key: str) -> bytes:
            raise StoreError("away")

    with pytest.raises(ToolUnavailable):
        await AttachmentStore(Away(), AttachmentSettings()).read("acme", [NOTE], NOTE)


async def read(world: World, store: MemoryObjectStore, *names: str, wanted: str, offset: int = 0) -> list[str]:
    world.settings = Settings(agents=(AgentSettings(type="executor", tools=("read_attachment",)),))
    models = ReplayModels(wants("read_attachment", name=wanted, offset=offset), "done", "done")
    asked = await world.accept(intent="call_api", tenant="acme", attachments=list(names))
    await world.deliver(world.route(), "requests")
    assert await world.deliver(world.work(runner(world.settings, models, data=store), pool=EXECUTOR), EXECUTOR)
    result = await world.result(asked)
    assert result is not None
    assert result.status is Status.SUCCEEDED, result.error
    return models.read


async def test_an_agent_reads_the_requests_attachments_and_no_others(world: World, store: MemoryObjectStore) -> None:
    [text] = await read(world, store, NOTE, wanted=NOTE)
    assert json.loads(text) == {"text": "Größe\n", "characters": 6}
    [text] = await read(world, store, NOTE, wanted="attachments/other/secret.txt")
    assert "this request has no attachment" in text
    for name in ("attachments/acme/binary.txt", "attachments/acme/nul.csv"):
        [text] = await read(world, store, name, wanted=name)
        assert "is not text" in text


async def test_a_long_attachment_is_read_in_pages(world: World, store: MemoryObjectStore) -> None:
    store.objects[NOTE] = b"a" * 7000
    [first] = await read(world, store, NOTE, wanted=NOTE)
    assert (len(json.loads(first)["text"]), json.loads(first)["next_offset"]) == (6000, 6000)
    [last] = await read(world, store, NOTE, wanted=NOTE, offset=6000)
    assert json.loads(last) == {"text": "a" * 1000, "characters": 7000}


async def test_without_attachments_the_tool_is_not_offered(world: World, store: MemoryObjectStore) -> None:
    [text] = await read(world, store, wanted=NOTE)
    assert "'read_attachment' not found" in text


@pytest.mark.parametrize("key", ["attachments/other/a.txt", "results/acme/r1.json", "attachments/acme/../x.txt"])
async def test_a_door_refuses_attachments_of_others(world: World, key: str) -> None:
    with pytest.raises(InvalidInput, match=r"attachments\.1: .* does not lie under attachments/acme/"):
        await world.accept(tenant="acme", attachments=[NOTE, key])
    assert await world.accept(tenant="acme", attachments=[NOTE])


def test_who_may_not_read_attachments_may_not_bring_any(tmp_path: Path) -> None:
    (tmp_path / "own.cedar").write_text(
        '@id("ask") permit (principal in Role::"user", action == Action::"request:submit", resource);'
    )
    gate = trust.gate(trust.keys(), Clock(), policies=load_policy(tmp_path))
    caller = Caller("alice", ("user",))
    gate.admit(build.request(), caller)
    with pytest.raises(Denied, match="attachment:read"):
        gate.admit(build.request(attachments=["attachments/default/a.txt"]), caller)
