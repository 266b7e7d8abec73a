"""Dresses in which a secret once came past the redactor, and texts that once held it up."""

import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from tasks.access.redact import Redactor

SECRET = "hunter2secretpw9"
TOKEN = "sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12Mn34"
NAMED = json.dumps({"api_key": SECRET})


def wide(text: str) -> str:
    """The same in the full-width letters of East Asian type."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor(["api_key", "password", "token"])


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": json.dumps({"b": NAMED})}),
        quote(NAMED),
        quote(quote(f"api_key={SECRET}")),
        f"api_key -> {SECRET}",
        f"api_key → {SECRET}",
        f"api_key{wide(':')}{SECRET}",
        f"{wide('api_key=')}{SECRET}",
        f"api\u200b_key={SECRET}",
        f"| api_key | {SECRET} |",
        f"api_key\t{SECRET}",
        f"user;api_key;{SECRET}",
        f"('api_key', '{SECRET}')",
        f"[(b'accept', b'*'), (b'X-Api-Key', b'{SECRET}')]",
        f"Headers([('api-key', '{SECRET}'), ('a', 'b')])",
        f"api_key: |\n  first line\n  {SECRET}\n",
        f"api_key: >-\n    {SECRET}",
        f"api_key&#61;{SECRET}",
        f"&quot;api_key&quot;:&quot;{SECRET}&quot;",
        f"api_key\\u003d{SECRET}",
        f"<api_key><![CDATA[{SECRET}]]></api_key>",
        f"CREATE USER u PASSWORD '{SECRET}'",
        f"api.key={SECRET}",
        f"curl -u admin:{SECRET} https://example.org",
        f"key {SECRET} {TOKEN[:9]}\u200b{TOKEN[9:]}".replace(SECRET, ""),
    ],
)
def test_no_dress_hides_a_secret(redactor: Redactor, text: str) -> None:
    clean = redactor.text(text)
    assert SECRET not in clean
    assert TOKEN not in clean.replace("\u200b", "")


@pytest.mark.parametrize(
    "card",
    ["4111_1111_1111_1111", "4111\u202f1111\u202f1111\u202f1111", "4111/1111/1111/1111", "4111  1111  1111  1111"],
)
def test_no_separator_hides_a_card(redactor: Redactor, card: str) -> None:
    assert redactor.text(f"paid with {card} today") == "paid with [redacted] today"


@pytest.mark.parametrize(
    "value",
    [
        {"api.key": SECRET},
        {wide("api_key"): SECRET},
        {"api\u200b_key": SECRET},
        ["run", "--api-key", SECRET, "--verbose"],
        {"args": {"argv": ["-password", SECRET]}},
        {TOKEN: 1},
        [("api_key", SECRET)],
    ],
)
def test_no_shape_of_a_value_hides_a_secret(redactor: Redactor, value: Any) -> None:
    clean = repr(redactor.value(value))
    assert SECRET not in clean
    assert TOKEN not in clean


@pytest.mark.parametrize(
    "text",
    [
        "the password | the user",
        "token\tcount",
        "fields: ['password', 'username', 'email']",
        "unexpected token 'else'",
        "größer → kleiner",
        "① ﬁrst ½ and a ﬂight",
        "docker run -u 1000:1000 image",
        "4111/11 of 2026",
        "👩\u200d💻 wrote it",
    ],
)
def test_what_looks_alike_is_left_alone(redactor: Redactor, text: str) -> None:
    assert redactor.text(text) == text


@pytest.mark.parametrize("value", [["--verbose", "--api-key"], ["--verbose", "yes"], ["-", "x"], ["api_key", "a", "b"]])
def test_a_flag_without_a_value_hides_nothing(redactor: Redactor, value: list[str]) -> None:
    assert redactor.value(value) == value


UNITS = [
    "api_key|",
    "api_key;",
    "api_key\t",
    "api_key: |\n ",
    "('api_key', '",
    "api_key&quot;",
    "api_key%25252525",
    "api_key\\\\\\\\",
    "api_key\\u003",
    "password 'a",
    "password  |  ",
    wide("password="),
    "<api_key><![CDATA[",
    "4111_",
    "4111  ",
    "-u a:",
    "\u200b",
    "ﷺ",
    "[b'",
]


@pytest.mark.parametrize("unit", UNITS)
def test_the_time_grows_with_the_length_and_no_faster(redactor: Redactor, unit: str) -> None:
    """32 KiB is the longest text of a request. Quadratic time was 3.5 s."""
    text = unit * (32_768 // len(unit.encode()))
    for worst in (text, f"{text}1a", f"x{text}="):
        began = time.process_time()
        redactor.text(worst)
        assert time.process_time() - began < 1.0
