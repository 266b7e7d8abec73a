"""The in-memory broker keeps the contract of letters; what stands in a letter is read whatever it is."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.letter import DEAD, EVENTS, QUARANTINE, Standing, read
from tasks.stores.broker import Broker, Letter, MemoryBroker, Parcel, envelope, opened
from tests.support.letters_contract import CHECKS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("check", CHECKS)
async def test_the_contract(check: Callable[[Broker], Awaitable[None]]) -> None:
    await check(MemoryBroker())


@given(st.binary(max_size=200) | JSON.map(lambda value: repr(value).encode()), st.sampled_from([DEAD, QUARANTINE]))
def test_any_bytes_are_a_letter(data: bytes, box: str) -> None:
    letter = read(box, Letter("tag", data))
    assert letter.standing in {Standing.REFUSED, Standing.OPEN}
    assert letter.told()["digest"] == letter.digest


@given(JSON, st.text(max_size=50))
def test_any_message_is_a_letter_with_its_reason(message: Any, reason: str) -> None:
    try:
        text = orjson.dumps(message).decode()
    except orjson.JSONEncodeError:  # whole numbers beyond 64 bits
        return
    letter = read(QUARANTINE, Letter("tag", envelope(Parcel(QUARANTINE, "r", text, 1.5, reason))))
    assert (letter.queued_at, letter.standing, letter.owner) == (1.5, Standing.REFUSED, "*")
    assert not reason or letter.reason == reason
    assert isinstance(opened(letter.data), dict)


def test_an_event_has_its_reason_from_the_queue() -> None:
    letter = read(EVENTS, Letter("tag", b"junk", "invalid_input: body: is not valid JSON"))
    assert (letter.code, letter.reason) == ("invalid_input", "body: is not valid JSON")
    assert (letter.standing, letter.owner) == (Standing.EVENT, "*")
