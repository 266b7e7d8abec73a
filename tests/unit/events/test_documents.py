import gzip
from collections.abc import AsyncIterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.events.documents import MAX_LINE_BYTES, Line, read_lines
from tasks.contracts.request import Request
from tasks.errors import InvalidInput


async def cut(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def lines_of(key: str, data: bytes, *, size: int = 1 << 20, tenant: str | None = "acme") -> list[Line]:
    return [line async for line in read_lines(key, cut(data, size), origin="o", tenant=tenant)]


def request_of(line: Line) -> Request:
    assert isinstance(line.found, Request), line.found
    return line.found


def error_of(line: Line) -> str:
    assert isinstance(line.found, InvalidInput)
    return str(line.found)


async def test_a_text_is_one_request() -> None:
    [line] = await lines_of("uploads/note.txt", "Grüße,\nwrite back".encode())
    assert request_of(line).text == "Grüße,\nwrite back"
    assert request_of(line).tenant == "acme"


async def test_a_document_may_be_one_request() -> None:
    [line] = await lines_of("a.json", b'{"id": "mine", "text": "hello",\n "priority": "high"}')
    assert (request_of(line).id, request_of(line).priority) == ("mine", "high")


async def test_each_line_stands_for_itself() -> None:
    found = await lines_of("a.jsonl", b'{"text": "one"}\n\n{"text": 2}\nnonsense\n{"id": "x", "text": "three"}')
    assert [line.number for line in found] == [1, 3, 4, 5]
    assert request_of(found[0]).text == "one"
    assert "text" in error_of(found[1])
    assert "JSON" in error_of(found[2])
    assert request_of(found[3]).id == "x"


async def test_an_id_follows_from_content_and_line() -> None:
    first = await lines_of("a.jsonl", b'{"text": "one"}\n{"text": "one"}')
    again = await lines_of("a.jsonl", b'{"text": "one"}\n{"text": "one"}')
    assert [request_of(line).id for line in first] == [request_of(line).id for line in again]
    assert request_of(first[0]).id != request_of(first[1]).id


async def test_a_line_without_end_is_one_error_and_the_next_is_read() -> None:
    found = await lines_of("a.jsonl", b"x" * (MAX_LINE_BYTES + 1) + b'\n{"text": "after"}', size=1000)
    assert "over" in error_of(found[0])
    assert request_of(found[1]).text == "after"


@pytest.mark.parametrize("key", ["a.txt", "a.json"])
async def test_an_object_that_is_too_long_is_an_error(key: str) -> None:
    [line] = await lines_of(key, b"x" * (MAX_LINE_BYTES + 1))
    assert "attachment" in error_of(line)


async def test_a_text_that_is_no_text_is_an_error() -> None:
    [line] = await lines_of("a.txt", b"ab\xff")
    assert "byte 2" in error_of(line)


@pytest.mark.parametrize("tenant", ["other", "", 7])
async def test_a_line_cannot_speak_for_another_tenant(tenant: object) -> None:
    [line] = await lines_of("a.jsonl", orjson.dumps({"text": "t", "tenant": tenant}))
    assert error_of(line).startswith("tenant: this source speaks for 'acme' only")


async def test_a_source_of_many_tenants_has_each_line_name_its_own() -> None:
    named, unnamed = await lines_of("a.jsonl", b'{"text": "t", "tenant": "b"}\n{"text": "t"}', tenant=None)
    assert request_of(named).tenant == "b"
    assert "tenant: is missing" in error_of(unnamed)


async def test_another_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="ends in none of"):
        await lines_of("a.csv", b"")


@pytest.mark.parametrize("data", [b"", b"not gzip at all", gzip.compress(b'{"text": "t"}')[:-9]])
async def test_a_broken_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="gzip"):
        await lines_of("a.jsonl.gz", data)


async def test_a_bomb_is_one_error_and_takes_no_memory() -> None:
    found = await lines_of("a.jsonl.gz", gzip.compress(b"0" * 50_000_000))
    assert "over" in error_of(found[0])


@given(
    st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")), max_size=8),
    st.integers(1, 9),
    st.integers(0, 3),
)
async def test_how_an_object_is_cut_does_not_matter(rows: list[bytes], size: int, members: int) -> None:
    data = b"\n".join(rows)
    whole = [(line.number, str(line.found)) for line in await lines_of("a.jsonl", data)]
    assert [(line.number, str(line.found)) for line in await lines_of("a.jsonl", data, size=size)] == whole
    half = len(data) // 2
    packed = gzip.compress(data) if members < 2 else gzip.compress(data[:half]) + gzip.compress(data[half:])
    assert [(line.number, str(line.found)) for line in await lines_of("a.jsonl.gz", packed, size=size)] == whole
