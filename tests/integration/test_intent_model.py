"""The classifier that comes with the package: that it loads, what it says, how it refuses damage."""

import asyncio
import random
import shutil
import sys

import numpy as np
import orjson
import pytest

from intent.batching import batch_classifier
from intent.classifier import Classifier
from intent.encoding import Encoders
from intent.evaluate import evaluate
from intent.examples import digest, read_examples
from intent.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, content_digest, default_dir
from tasks.contracts.words import Intent
from tasks.errors import IntegrityError, InvalidInput, NotReady
from tasks.settings import IntentSettings

DATA = default_dir().parent / "data"
TEXTS = {
    "Which five customers spent the most in March?": "query_data",
    "Plan the move of our office to Lisbon, step by step": "plan_task",
    "Create a ticket in the tracker: login is broken on Android": "call_api",
    "Why is the sky blue?": "answer_question",
    "Summarise this report in three sentences": "summarize_text",
    "Write a polite email to a supplier who is late": "draft_text",
    "Let me talk to a real person, please": "talk_to_human",
    "asdf qwer zxcv": "out_of_scope",
}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(default_dir(), tmp_path / "model")


def change(path, **values) -> None:
    manifest = orjson.loads((path / MANIFEST_FILE).read_bytes())
    (path / MANIFEST_FILE).write_bytes(orjson.dumps(manifest | values))


def test_plain_texts_get_the_obvious_intent(classifier) -> None:
    predictions = classifier.classify(list(TEXTS))
    assert [prediction.label for prediction in predictions] == list(TEXTS.values())
    assert all(0 < prediction.confidence <= 1 for prediction in predictions)
    assert {prediction.model_version for prediction in predictions} == {classifier.version}


def test_labels_are_the_intents(classifier) -> None:
    assert set(classifier.labels) == set(Intent)


def test_probabilities_are_probabilities(classifier) -> None:
    rows = classifier.probabilities(list(TEXTS))
    assert rows.shape == (len(TEXTS), len(classifier.labels))
    assert rows.dtype == np.float32
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_no_texts_give_no_predictions(classifier) -> None:
    assert classifier.classify([]) == []
    assert classifier.token_lengths([]) == []


def test_the_threshold_decides_what_is_out_of_scope(classifier) -> None:
    text = "Which five customers spent the most in March?"
    (abstained,) = classifier.classify([text], threshold=1.0)
    (sure,) = classifier.classify([text], threshold=0.0)
    assert (abstained.label, sure.label) == ("out_of_scope", "query_data")
    assert abstained.confidence == sure.confidence
    with pytest.raises(InvalidInput, match="threshold"):
        classifier.classify([text], threshold=1.5)


def test_long_texts_are_cut_and_still_understood(classifier) -> None:
    report = "The bridge was inspected in May and rust was found on two of its cables. " * 400
    texts = [f"Summarise this in one sentence:\n{report}", f"{report}\nSummarise the above in one sentence."]
    assert classifier.token_lengths([*texts, "hi"]) == [128, 128, 3]
    assert [prediction.label for prediction in classifier.classify(texts)] == ["summarize_text"] * 2


@pytest.mark.parametrize("text", ["\x00", " ", "🙂" * 500, "漢字", "a" * 32_768, "\u202e", "[CLS] [SEP] [MASK]"])
def test_odd_texts_get_an_answer(classifier, text) -> None:
    (prediction,) = classifier.classify([text])
    assert prediction.label in set(Intent)


def test_ten_thousand_random_texts_get_a_label(classifier) -> None:
    chance = random.Random(0)
    alphabets = [range(0x20, 0x7F), range(0xA0, 0x600), range(0x2000, 0xD7FF), range(0xE000, 0x1FFFF), range(0x20)]
    texts = [
        "".join(map(chr, chance.choices(chance.choice(alphabets), k=chance.randint(0, 24)))) for _ in range(10_000)
    ]
    for start in range(0, len(texts), 100):
        found = classifier.classify(texts[start : start + 100])
        assert all(one.label in classifier.labels and 0 <= one.confidence <= 1 for one in found)


def test_text_that_is_not_unicode_is_refused(classifier) -> None:
    with pytest.raises(InvalidInput, match="Unicode"):
        classifier.classify(["\ud800"])


def test_the_holdout_is_answered_well(classifier) -> None:
    holdout = read_examples(DATA / "holdout.jsonl")
    result = evaluate(classifier, holdout)
    assert result.accuracy >= 0.90
    assert result.macro_f1 >= 0.90
    assert result.calibration_error <= 0.08
    assert min(score.recall for score in result.per_intent.values()) >= 0.75
    # The numbers in the manifest are of this very file, and differ between processors by rounding only.
    assert classifier.manifest.data["holdout"] == digest(holdout)
    assert classifier.manifest.metrics["holdout"]["accuracy"] == pytest.approx(result.accuracy, abs=0.02)


def test_neighbours_in_a_batch_hardly_matter(classifier) -> None:
    texts = [example.text for example in read_examples(DATA / "holdout.jsonl")][:64]
    alone = np.concatenate([classifier.probabilities([text]) for text in texts])
    together = classifier.probabilities(texts)
    assert (alone.argmax(axis=1) == together.argmax(axis=1)).mean() >= 0.95


async def test_batches_give_everybody_their_own_answer(classifier) -> None:
    texts = list(TEXTS) * 8
    async with batch_classifier(classifier, IntentSettings(max_batch=16)) as batcher:
        predictions = await asyncio.gather(*map(batcher.submit, texts))
        assert 1 < batcher.stats.largest <= 16
    assert [prediction.label for prediction in predictions] == list(TEXTS.values()) * 8


async def test_a_text_that_cannot_be_read_fails_alone(classifier) -> None:
    async with batch_classifier(classifier, IntentSettings()) as batcher:
        good, bad = await asyncio.gather(
            batcher.submit("Why is the sky blue?"), batcher.submit("\ud800"), return_exceptions=True
        )
    assert good.label == "answer_question"
    assert isinstance(bad, InvalidInput)


def test_the_directory_holds_these_files_only() -> None:
    assert {path.name for path in default_dir().iterdir()} == {MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE}


def test_models_with_the_same_tokeniser_share_it() -> None:
    encoders = Encoders()
    one, two = (Classifier.load(encoders=encoders, gentle=gentle) for gentle in (False, True))
    assert one._encoder is two._encoder
    assert one.classify(list(TEXTS)) == two.classify(list(TEXTS))


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_a_changed_file_is_refused(copy, name) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        Classifier.load(copy)


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE])
def test_a_missing_file_is_named(copy, name) -> None:
    (copy / name).unlink()
    with pytest.raises(NotReady, match=rf"{name}.*sluice intent train"):
        Classifier.load(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 0.01}, "does not match its content"),
        ({"labels": ["plan_task", "plan_task"]}, "not unique"),
        ({"labels": ["plan_task", "Sing"]}, "labels.1"),
        ({"files": {}}, "files must name"),
        ({"max_length": 0}, "max_length"),
    ],
)
def test_a_changed_manifest_is_refused(copy, values, message) -> None:
    change(copy, **values)
    with pytest.raises(IntegrityError, match=message):
        Classifier.load(copy)


def test_a_manifest_that_is_not_json_is_refused(copy) -> None:
    (copy / MANIFEST_FILE).write_bytes(b"{")
    with pytest.raises(IntegrityError, match="JSON"):
        Classifier.load(copy)


def test_a_graph_with_other_labels_is_refused(copy, classifier) -> None:
    known = classifier.manifest
    labels = known.labels[:4]
    digits = content_digest(known.files, labels, known.threshold, known.temperature, known.max_length)
    change(copy, labels=labels, version=f"minilm-{digits}")
    with pytest.raises(IntegrityError, match="4 labels"):
        Classifier.load(copy)


def test_without_onnxruntime_the_mend_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotReady, match=r"pip install 'sluice\[cpu\]'"):
        Classifier.load()


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(InvalidInput, match="threads"):
        Classifier.load(threads=0)


def test_the_data_is_sound() -> None:
    train, holdout = read_examples(DATA / "train.jsonl"), read_examples(DATA / "holdout.jsonl")
    texts = {example.text.casefold().strip() for example in train}
    assert not texts & {example.text.casefold().strip() for example in holdout}
    assert {example.intent for example in train} == {example.intent for example in holdout} == set(Intent)
