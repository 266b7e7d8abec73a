"""What travels: encoding, claim check, versions."""

import base64

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.asked import Asked
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import COMPRESS_ABOVE, MAX_BODY_BYTES, Body, Message, decode_body, encode_body
from tasks.contracts.result import Result
from tasks.errors import MalformedMessage, NewerSchema
from tasks.stores.bodies import BodyStore, to_request
from tasks.stores.objects import MemoryObjectStore
from tests.support import build

SMALL = b'{"text":"hello"}'
LARGE = b'{"text":"' + b"hello " * 1000 + b'"}'


def packed(data: bytes) -> Body:
    return Body(encoding="zstd", data=base64.b64encode(zstandard.ZstdCompressor().compress(data)).decode())


def test_a_small_body_travels_as_it_is() -> None:
    assert encode_body(SMALL, 10) == Body(encoding="json", data=SMALL.decode())


def test_a_large_body_travels_compressed() -> None:
    body = encode_body(LARGE, 64 * 1024)
    assert body.encoding == "zstd"
    assert len(body.data) < len(LARGE) / 10
    assert decode_body(body) == LARGE


def test_a_body_over_the_limit_leaves_no_trace_of_itself_in_the_message() -> None:
    assert encode_body(LARGE, 10) == Body(encoding="object", data="")


def test_a_body_that_nobody_would_unpack_does_not_travel_packed() -> None:
    assert encode_body(b" " * MAX_BODY_BYTES, 1 << 20).encoding == "zstd"
    assert encode_body(b" " * (MAX_BODY_BYTES + 1), 1 << 20) == Body(encoding="object")


@given(st.text(st.characters(codec="utf-8"), max_size=3 * COMPRESS_ABOVE))
def test_what_is_encoded_decodes(text: str) -> None:
    assert decode_body(encode_body(text.encode(), 1 << 20)) == text.encode()


def test_a_bomb_does_not_go_off() -> None:
    bomb = packed(b"\0" * 50_000_000)
    assert len(bomb.data) < 100_000
    with pytest.raises(MalformedMessage, match=str(MAX_BODY_BYTES)):
        decode_body(bomb)


def test_a_body_of_the_greatest_size_decodes() -> None:
    assert len(decode_body(packed(b"x" * MAX_BODY_BYTES))) == MAX_BODY_BYTES
    with pytest.raises(MalformedMessage, match=str(MAX_BODY_BYTES)):
        decode_body(packed(b"x" * (MAX_BODY_BYTES + 1)))


def test_a_bomb_that_does_not_say_how_large_it_is_does_not_go_off_either() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * 50_000_000)
    with pytest.raises(MalformedMessage, match="how large"):
        decode_body(Body(encoding="zstd", data=base64.b64encode(silent).decode()))


def test_a_frame_that_says_less_than_it_holds_is_malformed() -> None:
    frame = bytearray(zstandard.ZstdCompressor().compress(b"\0" * 100_000))
    declared = frame.index((100_000).to_bytes(4, "little"))
    frame[declared : declared + 4] = (10).to_bytes(4, "little")
    with pytest.raises(MalformedMessage):
        decode_body(Body(encoding="zstd", data=base64.b64encode(frame).decode()))


@pytest.mark.parametrize("more", [b"x", zstandard.ZstdCompressor().compress(b"more")])
def test_what_stands_behind_the_body_is_malformed(more: bytes) -> None:
    frame = zstandard.ZstdCompressor().compress(LARGE) + more
    with pytest.raises(MalformedMessage):
        decode_body(Body(encoding="zstd", data=base64.b64encode(frame).decode()))


@given(st.integers(1, 40))
def test_a_truncated_body_is_malformed(cut: int) -> None:
    whole = zstandard.ZstdCompressor().compress(LARGE)
    short = base64.b64encode(whole[: max(len(whole) - cut, 0)]).decode()
    with pytest.raises(MalformedMessage):
        decode_body(Body(encoding="zstd", data=short))


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_what_was_never_compressed_is_malformed(data: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_body(Body(encoding="zstd", data=data))


def test_base64_that_is_not_ascii_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        decode_body(Body(encoding="zstd", data="é"))


def test_a_body_that_lies_elsewhere_does_not_decode() -> None:
    with pytest.raises(MalformedMessage):
        decode_body(Body(encoding="object"))


# Claim check --------------------------------------------------------------------------------------------


async def test_a_large_body_lies_where_tenant_id_and_digest_say() -> None:
    store = MemoryObjectStore()
    bodies = BodyStore(store, inline_bytes=10)
    asked = build.request("hello " * 1000, tenant="acme", id="r1")
    body = await bodies.pack(asked, asked.digest())
    assert store.objects == {f"bodies/acme/r1~{asked.digest()}.json": asked.body()}
    assert await bodies.pack(asked, asked.digest()) == body
    message = build.message(asked, body=body)
    assert await bodies.unpack(message) == asked.body()
    assert await bodies.unpack(message.changed(tenant="another")) is None


async def test_a_small_body_needs_no_object() -> None:
    store = MemoryObjectStore()
    asked = build.request()
    await BodyStore(store, inline_bytes=1 << 16).pack(asked, asked.digest())
    assert store.objects == {}


def test_a_request_comes_back_from_its_message() -> None:
    asked = build.request("hello", id="r1", tenant="acme", metadata={"a": None}, priority="high", traceparent="00-1")
    message = build.message(asked, traceparent=asked.traceparent)
    back = to_request(message, asked.body())
    assert back.to_dict() == asked.model_dump(mode="json", exclude_defaults=True)
    assert all(getattr(back, name) == getattr(asked, name) for name in Asked.__struct_fields__)


def test_a_field_that_a_newer_door_knows_does_not_stop_an_older_worker() -> None:
    asked = build.request("hello")
    newer = asked.body()[:-1] + b',"language":"en"}'
    assert to_request(build.message(asked), newer).text == "hello"


# Versions -----------------------------------------------------------------------------------------------


def test_a_message_survives_its_trip() -> None:
    message = build.message(build.request("hello", session_id="s"), intent=build.intent(), agent_type="planner")
    assert parse_versioned(Message, message.to_json()) == message
    assert parse_versioned(Message, orjson.loads(message.to_json())) == message


def test_a_message_does_not_spell_out_what_it_has_not() -> None:
    assert "null" not in build.message().to_json()


def test_unknown_fields_of_a_newer_minor_version_are_ignored() -> None:
    raw = {**orjson.loads(build.message().to_json()), "schema_version": "1.9", "colour": "blue"}
    assert parse_versioned(Message, raw).schema_version == "1.9"
    assert parse_versioned(Result, {**build.result().to_dict(), "mood": "good"}).output == "done"


@pytest.mark.parametrize("version", ["2.0", "2", "10.0", 2])
def test_a_newer_major_version_is_for_a_newer_worker(version: object) -> None:
    with pytest.raises(NewerSchema):
        parse_versioned(Message, {"schema_version": version, "shape": "unknown"})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"[1]",
        b'"1.0"',
        b"1",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"schema_version":null}',
        b'{"schema_version":"one"}',
        b'{"schema_version":{}}',
        b'{"schema_version":"1.0"}',
        b'{"schema_version":"1.0","id":1}',
        b"[" * 5000,
    ],
)
def test_garbage_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_versioned(Message, raw)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=5))
def test_any_map_is_a_message_or_a_known_error(raw: dict[str, object]) -> None:
    with pytest.raises((MalformedMessage, NewerSchema)):
        parse_versioned(Message, {**raw, "body": 1})
