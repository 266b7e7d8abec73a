import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.events.envelope import derived_id, read_request
from tasks.contracts.request import Request
from tasks.contracts.strict import parse_strict
from tasks.errors import InvalidInput


def event(**fields: Any) -> bytes:
    whole = {
        "specversion": "1.0",
        "id": "1",
        "source": "/crm",
        "type": "question.asked",
        "data": {"text": "hello"},
        **fields,
    }
    return orjson.dumps({name: value for name, value in whole.items() if value is not None})


def test_plain_fields_are_a_request() -> None:
    assert read_request('{"text": "hello", "id": "a"}', tenant="acme").id == "a"


def test_an_event_is_the_request_in_it() -> None:
    found = read_request(event(traceparent="00-1-2-3", time="2026-01-01T00:00:00Z", subject="s"), tenant="acme")
    assert (found.text, found.tenant, found.traceparent) == ("hello", "acme", "00-1-2-3")
    assert found.id == derived_id("/crm", "1")


def test_the_same_event_is_the_same_request_and_an_id_of_its_own_goes_first() -> None:
    assert read_request(event(), tenant="a").id == read_request(event(time="later"), tenant="a").id
    assert read_request(event(source="/erp"), tenant="a").id != read_request(event(), tenant="a").id
    assert read_request(event(data={"text": "t", "id": "mine"}), tenant="a").id == "mine"


def test_data_may_be_bytes() -> None:
    packed = base64.b64encode(b'{"text": "packed"}').decode()
    assert read_request(event(data=None, data_base64=packed), tenant="a").text == "packed"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": None}, "id"),
        ({"source": ""}, "source"),
        ({"type": 7}, "type"),
        ({"data": None}, "data"),
        ({"data": "text"}, "data"),
        ({"data": {"text": "t", "colour": "red"}}, "colour"),
        ({"datacontenttype": "text/xml"}, "datacontenttype"),
        ({"data_base64": "e30="}, "data"),
        ({"data": None, "data_base64": "%%%"}, "data_base64"),
        ({"data": None, "data_base64": 7}, "data_base64"),
    ],
)
def test_an_event_that_is_none_names_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        read_request(event(**fields), tenant="a")


@given(st.one_of(st.binary(), st.text()))
def test_whatever_comes_is_a_request_or_a_clear_error(body: bytes | str) -> None:
    with pytest.raises(InvalidInput):
        read_request(body, tenant="a")


@given(st.lists(st.text(), min_size=1))
def test_a_derived_id_is_an_id(parts: list[str]) -> None:
    found = derived_id(*parts)
    assert parse_strict(Request, {"id": found, "text": "t"}).id == found
