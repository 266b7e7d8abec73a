"""What a producer may ask for, and how wrong input is answered."""

import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.base import canonical
from tasks.contracts.message import MAX_STORED_BYTES, decode_body, encode_body
from tasks.contracts.request import Request
from tasks.contracts.strict import parse_strict
from tasks.contracts.words import MAX_METADATA_BYTES, MAX_TEXT_BYTES, Intent, Priority, new_id
from tasks.errors import InvalidInput
from tests.support import build


def asked(**fields: Any) -> Request:
    return parse_strict(Request, {"text": "hello", **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", ""),
        ("text", " \n\t"),
        ("text", 5),
        ("text", None),
        ("text", ["hello"]),
        ("text", "x" * (MAX_TEXT_BYTES + 1)),
        ("id", ""),
        ("id", "a b"),
        ("id", "a/b"),
        ("id", "a\n"),
        ("id", "é"),
        ("id", "x" * 129),
        ("id", 7),
        ("id", "report.r2"),
        ("tenant", ""),
        ("tenant", "-a"),
        ("tenant", "a/b"),
        ("tenant", ".."),
        ("tenant", "x" * 64),
        ("session_id", "a/b"),
        ("session_id", 1),
        ("intent", "Order pizza"),
        ("intent", 1),
        ("model", ""),
        ("model", "x" * 129),
        ("priority", "urgent"),
        ("priority", 1),
        ("deadline", "tomorrow"),
        ("deadline", "2030-01-01T00:00:00"),
        ("callback", "not a url"),
        ("callback", "ftp://example.org/"),
        ("traceparent", "x" * 129),
        ("attachments", "one.txt"),
        ("attachments", [1]),
        ("attachments", [""]),
        ("attachments", ["a"] * 17),
        ("metadata", []),
        ("metadata", "a"),
        ("metadata", {"a": "x" * MAX_METADATA_BYTES}),
        ("schema_version", "2.0"),
        ("schema_version", 1),
        ("txet", "a misspelt field"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=rf"(^|; |: |, ){field}\b"):
        asked(**{field: value})


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        asked(priority="urgent", id="a b", wat=1)
    assert all(f"{name}: " in str(refused.value) for name in ("priority", "id", "wat"))


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(InvalidInput) as refused:
        asked(priority="hunter2-hunter2", metadata="hunter2-hunter2", id="hunter2 hunter2")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"text"', b"null", b"\xff", b'{"text":"\\ud800"}', b"{}"])
def test_what_is_not_a_request_at_all_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_strict(Request, raw)


@pytest.mark.parametrize("fields", [{"text": "\ud800"}, {"metadata": {"a": object()}}, {"metadata": {1: 2}}])
def test_what_json_cannot_say_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        asked(**fields)


def test_an_integer_that_canonical_json_cannot_spell_is_refused() -> None:
    with pytest.raises(InvalidInput, match="metadata"):
        parse_strict(Request, b'{"text":"a","metadata":{"n":123456789012345678901234567890}}')


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e400"])
def test_a_number_that_json_does_not_know_is_refused(number: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_strict(Request, b'{"text":"a","metadata":{"n":%s}}' % number)


@pytest.mark.parametrize("deadline", [5, 5.5, "5"])
def test_a_deadline_is_a_time_and_not_a_number(deadline: object) -> None:
    with pytest.raises(InvalidInput, match="deadline"):
        asked(deadline=deadline)


def test_only_the_text_is_needed() -> None:
    request = asked()
    assert (request.tenant, request.priority, request.session_id, request.metadata) == (
        "default",
        Priority.NORMAL,
        None,
        {},
    )
    assert request.id != asked().id


def test_ids_sort_by_the_time_they_were_made() -> None:
    ids = [new_id() for _ in range(200)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 200


def test_every_field_is_read() -> None:
    request = asked(
        id="order:17",
        tenant="acme",
        session_id="s.1",
        attachments=["acme/a.txt"],
        intent="query_data",
        model="gpt-x",
        priority="high",
        deadline="2030-01-01T02:00:00+02:00",
        callback="https://example.org/done",
        traceparent="00-1-2-01",
        metadata={"a": [1, None, {"b": 1.5}]},
        schema_version="1.7",
    )
    assert (request.intent, request.priority) == (Intent.QUERY_DATA, Priority.HIGH)
    assert request.deadline == datetime(2030, 1, 1, tzinfo=UTC)
    assert request.attachments == ("acme/a.txt",)


@pytest.mark.parametrize("text", ["x" * MAX_TEXT_BYTES, "é" * (MAX_TEXT_BYTES // 2), "😀" * (MAX_TEXT_BYTES // 4)])
def test_the_limit_of_the_text_counts_bytes(text: str) -> None:
    assert asked(text=text).text == text
    with pytest.raises(InvalidInput, match=f"text: .*is {MAX_TEXT_BYTES + 1} bytes"):
        asked(text=text + "x")


def test_the_limit_of_the_metadata_counts_bytes() -> None:
    around = len(canonical({"a": ""}))
    assert asked(metadata={"a": "x" * (MAX_METADATA_BYTES - around)})
    with pytest.raises(InvalidInput, match="metadata"):
        asked(metadata={"a": "é" * (MAX_METADATA_BYTES // 2)})


@pytest.mark.parametrize("request_id", ["a", "x" * 128, "A.b_c:d-9", "..", "a.r", "r2", "a.r2b", new_id()])
def test_a_producers_own_id(request_id: str) -> None:
    assert asked(id=request_id).id == request_id


@given(st.text(alphabet=string.printable + "é\x00", max_size=12))
def test_an_id_is_accepted_exactly_if_its_pattern_says_so(request_id: str) -> None:
    allowed = set(string.ascii_letters + string.digits + "._:-")
    is_id = bool(request_id) and set(request_id) <= allowed
    reserved = ".r" in request_id and request_id.rpartition(".r")[2].isdigit()
    if is_id and not reserved:
        assert asked(id=request_id).id == request_id
    else:
        with pytest.raises(InvalidInput, match=r"^id: "):
            asked(id=request_id)


# The digest ---------------------------------------------------------------------------------------------


def test_the_digest_leaves_out_who_carries_it() -> None:
    one = asked(id="a", traceparent="00-1-2-01")
    assert one.digest() == asked(id="b").digest() == asked(schema_version="1.3").digest()


def test_defaults_spelt_out_do_not_change_the_digest() -> None:
    assert asked().digest() == asked(tenant="default", priority="normal", metadata={}, session_id=None).digest()


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "hello "},
        {"tenant": "acme"},
        {"session_id": "s"},
        {"attachments": ["default/a"]},
        {"intent": "query_data"},
        {"model": "m"},
        {"priority": "high"},
        {"deadline": "2030-01-01T00:00:00Z"},
        {"callback": "https://example.org/"},
        {"metadata": {"a": None}},
    ],
)
def test_every_other_field_changes_the_digest(fields: dict[str, Any]) -> None:
    assert asked(**fields).digest() != asked().digest()


def test_the_order_of_keys_and_the_time_zone_do_not_change_the_digest() -> None:
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    elsewhere = noon.astimezone(timezone(timedelta(hours=5)))
    one = asked(metadata={"a": 1, "b": {"c": 2, "d": 3}}, deadline=noon.isoformat())
    two = asked(metadata={"b": {"d": 3, "c": 2}, "a": 1}, deadline=elsewhere.isoformat())
    assert one.digest() == two.digest()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab é", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=400).filter(lambda text: bool(text.strip())),
    metadata=st.dictionaries(st.text("abc", max_size=3), json_values, max_size=3),
)
def test_a_body_is_the_same_after_any_number_of_trips(text: str, metadata: dict[str, Any]) -> None:
    body = asked(text=text, metadata=metadata).body()
    again = parse_strict(Request, body)
    assert (again.text, again.body()) == (text, body)
    assert decode_body(encode_body(body, 1 << 20)) == body
    assert orjson.loads(body).get("metadata", {}) == metadata


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build.request().text = "another"  # type: ignore[misc]


def test_the_largest_valid_request_can_be_read_back() -> None:
    metadata = {"m": "\x01" * (MAX_METADATA_BYTES // 6 - 10)}
    body = asked(text="\x01" * MAX_TEXT_BYTES, attachments=["\x01" * 1024] * 16, metadata=metadata).body()
    assert encode_body(body, 1 << 20).encoding == "object"
    assert 6 * MAX_TEXT_BYTES < len(body) < MAX_STORED_BYTES
