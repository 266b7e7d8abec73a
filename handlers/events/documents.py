"""An object that is one request, or many: read in pieces, so that its size does not matter."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import orjson

from handlers.events.envelope import derived_id, read_request
from tasks.contracts.request import Request
from tasks.errors import InvalidInput

MAX_LINE_BYTES: Final = 2 * 1024 * 1024
"""Above the longest text as JSON spells it usually. What is longer is one error, and is not kept in memory."""
_INFLATED_BYTES: Final = 1 << 20
SUFFIXES: Final = (".txt", ".json", ".jsonl", ".jsonl.gz")


class Line(NamedTuple):
    """What stands in line ``number`` of a document, from 1: a request, or why it is none."""

    number: int
    found: Request | InvalidInput


def is_document(key: str) -> bool:
    """Tell whether the name of an object says that it holds requests."""
    return key.endswith(SUFFIXES)


async def read_lines(key: str, pieces: AsyncIterator[bytes], *, origin: str, tenant: str | None) -> AsyncIterator[Line]:
    """Yield what the object ``key`` asks for, in its order. Empty lines ask for nothing.

    ``origin`` names this very content: requests without an id of their own get one from it and the line's number.

    Raises:
        InvalidInput: its name ends in none of :data:`SUFFIXES`, or it is not what its name says.
    """
    if not is_document(key):
        raise InvalidInput(f"key: ends in none of {', '.join(SUFFIXES)}")
    if key.endswith(".gz"):
        pieces = _inflated(pieces)
    if key.endswith((".txt", ".json")):
        yield _whole(await _all(pieces), origin=origin, tenant=tenant, plain=key.endswith(".txt"))
        return
    async for number, line in _split(pieces):
        if line is None:
            yield Line(number, InvalidInput(f"line {number}: is over {MAX_LINE_BYTES} bytes"))
        elif line.strip():
            yield _line(number, line, origin=origin, tenant=tenant)


def _line(number: int, line: bytes, *, origin: str, tenant: str | None) -> Line:
    try:
        return Line(number, read_request(line, tenant=tenant, fallback_id=derived_id(origin, str(number))))
    except InvalidInput as error:
        return Line(number, error)


def _whole(body: bytes | None, *, origin: str, tenant: str | None, plain: bool) -> Line:
    if body is None:
        return Line(1, InvalidInput(f"object: is over {MAX_LINE_BYTES} bytes: send the rest as an attachment"))
    if not plain:
        return _line(1, body, origin=origin, tenant=tenant)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        return Line(1, InvalidInput(f"object: is not UTF-8 (byte {error.start})"))
    return _line(1, orjson.dumps({"text": text}), origin=origin, tenant=tenant)


async def _all(pieces: AsyncIterator[bytes]) -> bytes | None:
    """Return the whole content; None where it is over :data:`MAX_LINE_BYTES`."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if len(held) > MAX_LINE_BYTES:
            return None
    return bytes(held)


async def _split(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes | None]]:
    """Yield each line with its number; None in place of one that is over :data:`MAX_LINE_BYTES`."""
    held, number, skipping = bytearray(), 1, False
    async for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for end in ended:
            too_long = skipping or len(held) + len(end) > MAX_LINE_BYTES
            yield number, None if too_long else bytes(held + end)
            held.clear()
            skipping = False
            number += 1
        skipping = skipping or len(held) + len(rest) > MAX_LINE_BYTES
        if skipping:
            held.clear()
        else:
            held += rest
    if held or skipping:
        yield number, None if skipping else bytes(held)


async def _inflated(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the content of a gzip file, of one member or several, never much of it at a time."""
    inflater = zlib.decompressobj(wbits=31)
    seen = False
    async for piece in pieces:
        left = piece
        while left:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)
            seen = True
            try:
                content = inflater.decompress(left, _INFLATED_BYTES)
            except zlib.error as error:
                raise InvalidInput(f"object: is not gzip ({error})") from error
            if content:
                yield content
            left = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if rest := inflater.flush():
        yield rest
    if not seen or not inflater.eof:
        raise InvalidInput("object: is cut short: it ends inside a gzip member")
