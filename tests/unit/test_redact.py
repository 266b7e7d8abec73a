"""Secrets do not survive, and nothing else is touched."""

import string
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.access.redact import REDACTED, Redactor
from tasks.settings import AuditSettings

FIELDS = AuditSettings().sensitive_fields
redactor = Redactor(FIELDS)

secrets = st.text(string.ascii_letters + string.digits + "_-+/.", min_size=8, max_size=40).filter(
    lambda secret: secret not in REDACTED
)


def luhn_card(prefix: str) -> str:
    """Return ``prefix`` with its check digit."""
    for check in "0123456789":
        digits = [int(char) for char in prefix + check]
        if (sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])) % 10 == 0:
            return prefix + check
    raise AssertionError


@pytest.mark.parametrize(
    "text",
    [
        "api_key=SECRET",
        "api_key: SECRET",
        "API-KEY = SECRET",
        "apikey:SECRET",
        "my_api_key=SECRET",
        "x-api-key: SECRET",
        '{"api_key": "SECRET"}',
        "{'password': 'SECRET'}",
        '{"password":"SECRET with spaces"}',
        "https://host/path?token=SECRET&page=2",
        "Authorization: Bearer SECRET",
        "authorization=SECRET, other",
        "client_secret=SECRET;",
        "credit card: SECRET",
        "tokens: SECRET",
    ],
)
def test_the_value_of_a_sensitive_name_in_text(text: str) -> None:
    clean = redactor.text(text.replace("SECRET", "hunter2hunter2"))
    assert "hunter2" not in clean
    assert REDACTED in clean


@pytest.mark.parametrize(
    "text",
    ["Authorization: Basic aHVudGVyMg==", r"{\"api_key\": \"aHVudGVyMg==\"}", r'"password": "a\"aHVudGVyMg=="'],
)
def test_the_value_of_a_sensitive_name_in_less_simple_text(text: str) -> None:
    assert "aHVudGVyMg" not in redactor.text(text)


@pytest.mark.parametrize(
    "name",
    ["api_key", "API_KEY", "apiKey", "x-api-key", "api key", "Password", "db_password", "passwords", "auth.token"],
)
@pytest.mark.parametrize("value", ["hunter2", 2, ["hunter2"], {"a": "hunter2"}, None])
def test_the_value_of_a_sensitive_field_whatever_it_is(name: str, value: Any) -> None:
    assert redactor.value({"outer": [{name: value, "other": 1}]}) == {"outer": [{name: REDACTED, "other": 1}]}


@pytest.mark.parametrize(
    "token",
    [
        "sk-proj-abcdefghijklmnop1234",
        "pk-abcdefghijklmnop",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrst",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_token_anywhere(token: str) -> None:
    assert redactor.text(f"use {token}, please") == f"use {REDACTED}, please"


@pytest.mark.parametrize(
    "card",
    ["4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "378282246310005", "6304000000000000"],
)
def test_a_card_number_anywhere(card: str) -> None:
    assert redactor.text(f"my card is {card}.") == f"my card is {REDACTED}."
    assert redactor.text("4111111111111112") == "4111111111111112"


@given(st.sampled_from("3456"), st.text(string.digits, min_size=12, max_size=14))
def test_any_card_number_with_a_right_check_digit(first: str, rest: str) -> None:
    assert redactor.text(luhn_card(first + rest)) == REDACTED


@pytest.mark.parametrize("clock", ["1795355763020", "1795355763020294", "1795355763020294389"])
def test_a_clock_is_no_card_number(clock: str) -> None:
    assert all(redactor.text(clock[:-1] + last) == clock[:-1] + last for last in string.digits)


def test_a_card_number_that_is_a_number() -> None:
    assert redactor.value({"paid_with": 4111111111111111}) == {"paid_with": REDACTED}


@pytest.mark.parametrize(
    "text",
    [
        "Order 12345, 3 items at 19.99, call +49 30 1234567 on 2030-01-01 12:30:15.",
        "from 192.168.100.200 port 65535",
        "keyboard and monkey, secretary, tokenize, passwordless",
        "sk-1 and pk-2, the risk-averse",
        "0190f3a2-6e1b-7c3d-8e4f-a1b2c3d4e5f6",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "the secret of success is a password manager",
        "",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert redactor.text(text) == text


@pytest.mark.parametrize("value", [None, True, 0, 1.5, 1_700_000_000_000, [], {}, {"keys": ["a"], "monkey": 1}])
def test_ordinary_values_are_unchanged(value: Any) -> None:
    assert redactor.value(value) == value


@given(secrets, st.sampled_from(FIELDS), st.sampled_from(["{}={}", "{}: {}", '"{}": "{}"', "?a=b&{}={}&c=d"]))
def test_a_planted_secret_never_survives_in_text(secret: str, field: str, shape: str) -> None:
    assume(secret not in field)
    assert secret not in redactor.text(f"before {shape.format(field, secret)} after")


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text("abc xyz", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(documents, secrets, st.sampled_from(FIELDS), st.lists(st.sampled_from(["list", "map"]), max_size=4))
def test_a_planted_secret_never_survives_at_any_depth(document: Any, secret: str, field: str, path: list[str]) -> None:
    assume(secret not in repr([field, document]))
    planted: Any = {"around": document, field: secret}
    for kind in path:
        planted = [document, planted] if kind == "list" else {"inner": planted, "text": f"{field}={secret}"}
    assert secret not in repr(redactor.value(planted))


@given(documents)
def test_values_without_secrets_are_unchanged(document: Any) -> None:
    assert redactor.value(document) == document


@given(st.text(string.ascii_lowercase + " .,!?\n", max_size=200))
def test_words_are_unchanged(text: str) -> None:
    assert redactor.text(text) == text


@given(st.text(max_size=100))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redactor.text(text)
    assert redactor.text(once) == once


def test_without_fields_tokens_and_cards_are_still_found() -> None:
    bare = Redactor([])
    assert bare.value({"password": "x", "a": "4111111111111111"}) == {"password": "x", "a": REDACTED}


def test_a_field_name_is_no_pattern() -> None:
    assert Redactor(["a.b"]).value({"axb": "v", "a.b": "v"}) == {"axb": "v", "a.b": REDACTED}


@pytest.mark.parametrize("address", ["ana@example.org", "first.last+tag@mail.example.co.uk", "a@b.de"])
@pytest.mark.parametrize(
    "phone", ["+49 30 1234567", "0049 30 1234567", "(030) 1234567", "030 12345678", "555-123-4567"]
)
def test_personal_data_where_it_is_configured(address: str, phone: str) -> None:
    everything = Redactor(FIELDS, detect=("email", "phone"))
    assert everything.text(f"ask {address} or {phone}!") == f"ask {REDACTED} or {REDACTED}!"
    assert redactor.text(f"ask {address} or {phone}!") == f"ask {address} or {phone}!"
    assert everything.text(address) == REDACTED


@pytest.mark.parametrize(
    "text", ["max_tokens=2000", "input_tokens: 373.", "on 2030-01-01 12:30:15, 3 of 10", "1.2.3-4"]
)
def test_numbers_are_no_personal_data(text: str) -> None:
    assert Redactor(FIELDS, detect=("email", "phone")).text(text) == text


def test_a_count_of_tokens_is_no_token() -> None:
    assert redactor.value({"input_tokens": 12, "access_token": 12}) == {"input_tokens": 12, "access_token": REDACTED}


def test_a_private_key_that_was_cut_short_is_gone_whole() -> None:
    assert redactor.text("it is -----BEGIN PRIVATE KEY-----\nMIIEvQ") == f"it is {REDACTED}"


@pytest.mark.parametrize(
    "text", ["İİİ password=hunter2hunter2", "grüße, Passwort: password: hunter2hunter2", "\ud800 token=hunter2hunter2"]
)
def test_letters_that_change_their_length_hide_nothing(text: str) -> None:
    assert "hunter2" not in redactor.text(text)


def test_bytes_are_read_as_text() -> None:
    assert redactor.value({"raw": b"password=hunter2hunter2"}) == {"raw": f"password={REDACTED}"}
