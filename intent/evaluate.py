"""How good and how fast a classifier is."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from intent.classifier import Classifier, Prediction
from intent.examples import Example
from tasks.errors import InvalidInput

_BINS: Final = 10
_WARM_RUNS: Final = 10
_TIMED: Final = 500


@dataclass(frozen=True, slots=True)
class IntentScore:
    """Precision, recall and F1 (0..1; 0 where undefined) of one intent, and how many examples have it."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A classifier against labelled examples.

    Shares are 0..1; times are milliseconds for one text alone, tokenisation included. ``macro_f1`` is over
    the intents that the examples have. ``abstained`` is the share below the threshold, ``calibration_error``
    the expected calibration error in ten bins. ``confusion[true][predicted]`` counts.
    """

    model_version: str
    n: int
    accuracy: float
    macro_f1: float
    abstained: float
    calibration_error: float
    p50_ms: float
    p99_ms: float
    per_intent: dict[str, IntentScore]
    confusion: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        return asdict(self)


def evaluate(
    classifier: Classifier, examples: Sequence[Example], batch: int = 1, threshold: float | None = None
) -> Evaluation:
    """Score ``classifier`` on ``examples``, ``batch`` texts an inference; time up to 500 of them one by one.

    ``threshold`` (0..1) replaces the model's own.

    Raises:
        InvalidInput: there are no examples, ``batch`` is below 1, or the threshold is not within 0..1.
    """
    if not examples:
        raise InvalidInput("examples: there are none to evaluate on")
    if batch < 1:
        raise InvalidInput(f"batch: must be at least 1, is {batch}")
    texts = [example.text for example in examples]
    predictions: list[Prediction] = []
    for start in range(0, len(texts), batch):
        predictions += classifier.classify(texts[start : start + batch], threshold)
    floor = classifier.threshold if threshold is None else threshold
    times = _times(classifier, texts)
    return _score(classifier.version, [str(e.intent) for e in examples], predictions, floor, times)


def _score(
    version: str,
    truth: Sequence[str],
    predictions: Sequence[Prediction],
    threshold: float,
    times: Sequence[float],
) -> Evaluation:
    predicted = [prediction.label for prediction in predictions]
    hits = [true == label for true, label in zip(truth, predicted, strict=True)]
    per_intent = {intent: score_of(intent, truth, predicted) for intent in sorted(set(truth) | set(predicted))}
    present = [score.f1 for score in per_intent.values() if score.support]
    return Evaluation(
        model_version=version,
        n=len(truth),
        accuracy=sum(hits) / len(truth),
        macro_f1=sum(present) / len(present),
        abstained=sum(prediction.confidence < threshold for prediction in predictions) / len(truth),
        calibration_error=calibration_error([prediction.confidence for prediction in predictions], hits),
        p50_ms=percentile(times, 0.50),
        p99_ms=percentile(times, 0.99),
        per_intent=per_intent,
        confusion=confusion(truth, predicted),
    )


def score_of(intent: str, truth: Sequence[str], predicted: Sequence[str]) -> IntentScore:
    """Return how well ``predicted`` finds ``intent`` in ``truth``; both have one label for each text."""
    right = sum(a == b == intent for a, b in zip(truth, predicted, strict=True))
    support, claimed = truth.count(intent), predicted.count(intent)
    return IntentScore(
        precision=right / claimed if claimed else 0.0,
        recall=right / support if support else 0.0,
        f1=2 * right / (support + claimed) if support + claimed else 0.0,
        support=support,
    )


def confusion(truth: Sequence[str], predicted: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return ``[true][predicted]`` counts; a pair that never occurs is left out."""
    counts = Counter(zip(truth, predicted, strict=True))
    return {true: {b: n for (a, b), n in sorted(counts.items()) if a == true} for true in sorted(set(truth))}


def calibration_error(confidences: Sequence[float], hits: Sequence[bool]) -> float:
    """Return the expected calibration error (0..1) in ten bins: how far confidence is from accuracy."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, hits, strict=True):
        bins.setdefault(min(int(confidence * _BINS), _BINS - 1), []).append((confidence, hit))
    gaps = (abs(sum(c for c, _ in part) - sum(h for _, h in part)) for part in bins.values())
    return sum(gaps) / len(confidences)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that at least ``share`` (0..1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _times(classifier: Classifier, texts: Sequence[str]) -> list[float]:
    for text in texts[:_WARM_RUNS]:
        classifier.classify([text])
    step = max(1, math.ceil(len(texts) / _TIMED))
    return [_milliseconds(classifier, text) for text in texts[::step]]


def _milliseconds(classifier: Classifier, text: str) -> float:
    start = time.perf_counter()
    classifier.classify([text])
    return (time.perf_counter() - start) * 1000
