"""Labelled lines: what is read, what is refused, how they are split."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent.examples import Example, digest, distinct, read_examples, split
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput


@pytest.fixture
def write(tmp_path):
    def write(*lines: object):
        path = tmp_path / "examples.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines))
        return path

    return write


def test_reads_lines_and_skips_blank_ones(write) -> None:
    path = write({"text": "Größe?", "intent": "query_data"}, b"", {"text": "hi", "intent": "out_of_scope"})
    assert read_examples(path) == [Example("Größe?", Intent.QUERY_DATA), Example("hi", Intent.OUT_OF_SCOPE)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{nonsense", "examples.jsonl:2: body: "),
        (b"[]", "examples.jsonl:2: body: "),
        (b'{"text": "\xff", "intent": "plan_task"}', "examples.jsonl:2: body: "),
        ({"text": "a"}, "examples.jsonl:2: intent: "),
        ({"intent": "plan_task"}, "examples.jsonl:2: text: "),
        ({"text": " ", "intent": "plan_task"}, "examples.jsonl:2: text: .*blank"),
        ({"text": 7, "intent": "plan_task"}, "examples.jsonl:2: text: "),
        ({"text": "x" * 40_000, "intent": "plan_task"}, "examples.jsonl:2: text: .*32768 bytes"),
        (
            {"text": "a", "intent": "Sing"},
            "examples.jsonl:2: intent: .*'Sing' is not a label",
        ),
        ({"text": "a", "intent": "plan_task", "label": 1}, "examples.jsonl:2: label: "),
        ({"text": "  FIRST ", "intent": "plan_task"}, "examples.jsonl:2: intent: .*line 1.*call_api"),
    ],
)
def test_names_the_line_and_the_field(write, line, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_examples(write({"text": "first", "intent": "call_api"}, line))


def test_the_same_line_twice_is_read_twice(write) -> None:
    line = {"text": "first", "intent": "call_api"}
    assert len(read_examples(write(line, line))) == 2


def test_an_empty_or_missing_file_is_refused(write, tmp_path) -> None:
    with pytest.raises(InvalidInput, match="no examples"):
        read_examples(write(b""))
    with pytest.raises(InvalidInput, match=r"nowhere\.jsonl: cannot be read: No such file"):
        read_examples(tmp_path / "nowhere.jsonl")


def test_distinct_keeps_the_first_of_each_in_its_place() -> None:
    a, b, again = (Example(text, Intent.PLAN_TASK) for text in ("A text", "other", "a  TEXT"))
    assert distinct([a, b, again]) == [a, b]


many = st.lists(
    st.builds(Example, st.text(min_size=1), st.sampled_from(Intent)), max_size=80, unique_by=lambda e: e.text
)


@given(many, st.floats(0.05, 0.5), st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_split_loses_nothing_and_does_not_depend_on_the_order(examples, share, seed, shuffler) -> None:
    rest, held = split(examples, share, seed)
    assert sorted(map(repr, rest + held)) == sorted(map(repr, examples))
    assert {e.intent for e in held} == {e.intent for e in examples}
    shuffled = list(examples)
    shuffler.shuffle(shuffled)
    assert split(shuffled, share, seed) == (rest, held)


def test_a_split_takes_its_share_of_every_intent() -> None:
    examples = [Example(f"{intent} {n}", intent) for intent in Intent for n in range(20)]
    rest, held = split(examples, 0.15, 1)
    assert (len(rest), len(held)) == (8 * 17, 8 * 3)
    assert split(examples, 0.15, 2)[1] != held


def test_the_digest_tells_texts_labels_and_order_apart() -> None:
    a, b = Example("a", Intent.PLAN_TASK), Example("b", Intent.PLAN_TASK)
    variants = [[a, b], [b, a], [a], [a, Example("b", Intent.CALL_API)]]
    assert len({digest(variant) for variant in variants}) == 4
