"""What is cut leaves no half of a secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.access.cuts import redacted_start, whole_words
from tasks.access.redact import Redactor
from tasks.agents.tools.credentials import strike

SECRET = "sk-proj-" + "a1B2c3D4" * 6
redact = Redactor(["api_key"]).text


def test_the_whole_is_redacted_before_it_is_cut() -> None:
    text = f"{'x' * 285} {SECRET}"
    assert "sk-proj" in redact(text[:300]), "the test shows nothing: this half is known for a secret"
    assert redacted_start(text, 300, redact) == f"{'x' * 285} [redacted]"


@given(st.integers(4300, 4500), st.integers(0, 30))
def test_nor_does_a_secret_where_the_search_ends_survive(before: int, others: int) -> None:
    text = f"{f'{SECRET} ' * others}{'x ' * (before // 2)}{SECRET} and more {'y ' * 3000}"
    kept = redacted_start(text, 300, redact)
    assert len(kept) <= 300
    assert "sk-proj" not in kept


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=6000), st.integers(1, 500))
def test_what_has_no_secret_is_cut_and_nothing_else(text: str, most: int) -> None:
    assert redacted_start(text, most, lambda said: said) == text[:most]


def test_a_long_text_is_not_searched_to_its_end() -> None:
    searched: list[int] = []

    def look(text: str) -> str:
        searched.append(len(text))
        return text

    assert redacted_start("x" * 10**6, 300, look) == "x" * 300
    assert searched == [300 + 4096]


@pytest.mark.parametrize(
    ("text", "kept"),
    [("one two", "one two"), ("one two three", "one two"), ("one twothree", "one"), ("onetwothree", "")],
)
def test_what_is_redacted_later_keeps_whole_words(text: str, kept: str) -> None:
    assert whole_words(text, 7) == kept


@pytest.mark.parametrize("end", range(4, 16))
def test_the_beginning_of_a_secret_at_a_cut_is_struck_too(end: int) -> None:
    secret = "s3cr3t/of+ours!!"
    assert strike(f"you sent {secret[:end]}", [secret], cut=True) == "you sent [redacted]"
    assert strike(f"you sent {secret}", [secret], cut=True) == "you sent [redacted]"
    assert strike("you sent s3cr", [secret]) == "you sent s3cr"
