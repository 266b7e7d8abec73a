"""What training refuses before it needs PyTorch, and the staging of its output."""

import sys

import pytest

from intent.classifier import Classifier
from intent.examples import Example
from intent.recipe import Recipe
from intent.train import labels_of, train
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput, NotReady

ENOUGH = [Example(f"{intent} {n}", intent) for intent in Intent for n in range(10)]


def test_too_few_examples_are_named(tmp_path) -> None:
    few = [example for example in ENOUGH if example.intent != Intent.CALL_API]
    with pytest.raises(InvalidInput, match="at least 8 different texts, call_api has 1"):
        train([*few, Example("call it", Intent.CALL_API)], tmp_path / "model")


def test_repeated_texts_do_not_count(tmp_path) -> None:
    same = [Example("the same", Intent.CALL_API)] * 20
    with pytest.raises(InvalidInput, match="call_api has 1"):
        train([e for e in ENOUGH if e.intent != Intent.CALL_API] + same, tmp_path / "model")


def test_a_holdout_among_the_examples_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="holdout: 1 of its texts"):
        train(ENOUGH, tmp_path / "model", holdout=[ENOUGH[3], Example("new", Intent.CALL_API)])


def test_a_label_that_only_the_holdout_has_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="holdout: book_flight: no example"):
        train(ENOUGH, tmp_path / "model", holdout=[Example("to Rome", "book_flight")])


def test_one_label_is_nothing_to_tell_apart(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="all have one intent"):
        train([Example(f"a {n}", "only") for n in range(10)], tmp_path / "model")


def test_outliers_need_a_label_for_them(tmp_path) -> None:
    named = [example for example in ENOUGH if example.intent != Intent.OUT_OF_SCOPE]
    with pytest.raises(InvalidInput, match="outliers"):
        train(named, tmp_path / "model", outliers=["anything"])


def test_the_packaged_labels_come_first_and_in_their_order() -> None:
    examples = [Example("x", label) for label in ("zebra", "out_of_scope", "plan_task", "aardvark")]
    assert labels_of(examples) == ("plan_task", "out_of_scope", "aardvark", "zebra")


def test_no_epochs_are_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="epochs"):
        train(ENOUGH, tmp_path / "model", epochs=0)


@pytest.mark.parametrize("package", ["torch", "transformers", "onnx", "onnxruntime"])
def test_without_the_packages_the_mend_is_named(tmp_path, monkeypatch, package) -> None:
    for name in ("torch", "transformers", "onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(NotReady, match=rf"pip install 'sluice\[train,cpu\]' \({package} is missing"):
        train(ENOUGH, tmp_path / "model")


def test_nothing_is_left_where_training_cannot_start(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotReady):
        train(ENOUGH, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_with_unknown_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        Recipe(learning_rate=1)


def test_a_directory_without_a_model_is_not_ready(tmp_path) -> None:
    with pytest.raises(NotReady, match="no classifier at"):
        Classifier.load(tmp_path)
