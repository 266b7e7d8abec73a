"""Disguises: still the same sentence, always the same for the same chance."""

import random

from hypothesis import given
from hypothesis import strategies as st

from intent.augment import bare, disguise, mistyped

texts = st.text(min_size=1, max_size=80)


@given(texts, st.integers())
def test_a_disguise_is_never_empty_and_repeats_with_its_chance(text: str, seed: int) -> None:
    shown = [disguise(text, random.Random(seed), bare_share=0.5, typo_share=0.5) for _ in range(2)]
    assert shown[0] == shown[1] != ""


@given(texts, st.integers())
def test_a_slip_changes_words_by_one_letter_at_most(text: str, seed: int) -> None:
    before, after = text.split(" "), mistyped(text, random.Random(seed)).split(" ")
    assert len(before) <= len(after) + sum(" " in word for word in before)
    assert abs(len("".join(before)) - len("".join(after))) <= len(before)


def test_without_shares_a_text_stays() -> None:
    assert disguise("Fine, as it is.", random.Random(0), bare_share=0, typo_share=0) == "Fine, as it is."


def test_bare_keeps_what_is_punctuation_alone() -> None:
    assert bare("What NOW?!") == "what now"
    assert bare("???") == "???"
