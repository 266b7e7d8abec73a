"""The scores, on labels written down by hand."""

import orjson
import pytest

from intent.classifier import Prediction
from intent.evaluate import calibration_error, confusion, evaluate, percentile, score_of
from intent.examples import Example
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput


class Oracle:
    """Reads the label and the confidence off the text, ``call_api 0.9``."""

    version = "oracle-1"
    threshold = 0.5

    def __init__(self) -> None:
        self.batches: list[int] = []

    def classify(self, texts, threshold=None):
        self.batches.append(len(texts))
        floor = self.threshold if threshold is None else threshold
        rows = [(text.split()[0], float(text.split()[1])) for text in texts]
        return [Prediction(label if c >= floor else "out_of_scope", c, self.version) for label, c in rows]


EXAMPLES = [
    Example("call_api 1.0 a", Intent.CALL_API),
    Example("call_api 0.9 b", Intent.CALL_API),
    Example("plan_task 0.8 c", Intent.CALL_API),
    Example("plan_task 0.4 d", Intent.PLAN_TASK),
]


def test_scores_by_hand() -> None:
    result = evaluate(Oracle(), EXAMPLES)
    assert (result.n, result.accuracy, result.abstained) == (4, 0.5, 0.25)
    assert result.confusion == {
        "call_api": {"call_api": 2, "plan_task": 1},
        "plan_task": {"out_of_scope": 1},
    }
    api = result.per_intent["call_api"]
    assert (api.precision, api.recall, api.f1, api.support) == (1.0, 2 / 3, 0.8, 3)
    assert result.per_intent["out_of_scope"].support == 0
    assert result.macro_f1 == pytest.approx(0.4)
    assert 0 < result.p50_ms <= result.p99_ms
    assert orjson.loads(orjson.dumps(result.to_dict()))["per_intent"]["call_api"]["f1"] == 0.8


def test_the_threshold_can_be_replaced() -> None:
    assert evaluate(Oracle(), EXAMPLES, threshold=0.1).abstained == 0
    assert evaluate(Oracle(), EXAMPLES, threshold=0.1).accuracy == 0.75


def test_batches_are_as_large_as_asked() -> None:
    oracle = Oracle()
    evaluate(oracle, EXAMPLES, batch=3)
    assert oracle.batches[:2] == [3, 1]


def test_refuses_nothing_and_no_batch() -> None:
    with pytest.raises(InvalidInput, match="examples"):
        evaluate(Oracle(), [])
    with pytest.raises(InvalidInput, match="batch"):
        evaluate(Oracle(), EXAMPLES, batch=0)


def test_undefined_scores_are_nought() -> None:
    score = score_of("draft_text", ["call_api"], ["call_api"])
    assert (score.precision, score.recall, score.f1, score.support) == (0, 0, 0, 0)


def test_confusion_leaves_out_what_never_happens() -> None:
    assert confusion(["a", "b"], ["a", "a"]) == {"a": {"a": 1}, "b": {"a": 1}}


def test_calibration_error() -> None:
    assert calibration_error([1.0, 1.0], [True, True]) == 0
    assert calibration_error([0.95, 0.95], [True, False]) == pytest.approx(0.45)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.76, 4), (0.99, 4), (1.0, 4)])
def test_percentiles(share, expected) -> None:
    assert percentile([4, 2, 3, 1], share) == expected
