"""Which texts share a run of the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent.classifier import alike


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [([], []), ([7], [[0]]), ([8, 10, 8], [[0, 2, 1]]), ([30, 8, 9, 40, 31], [[1, 2], [0, 4], [3]])],
)
def test_similar_lengths_share_a_run(lengths: list[int], groups: list[list[int]]) -> None:
    assert alike(lengths) == groups


@given(st.lists(st.integers(1, 512), max_size=64))
def test_every_text_is_in_one_group_and_none_is_stretched_far(lengths: list[int]) -> None:
    groups = alike(lengths)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        sizes = [lengths[place] for place in group]
        assert max(sizes) <= 1.25 * min(sizes)
