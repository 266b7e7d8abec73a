"""A whole training run on a tiny BERT made on the spot. Skipped where PyTorch is not installed."""

import shutil
import sys
from importlib import util

import orjson
import pytest

from intent.classifier import Classifier
from intent.examples import Example
from intent.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE
from intent.recipe import Recipe
from intent.train import train
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput, TrainingError

pytestmark = [
    pytest.mark.skipif(
        not all(map(util.find_spec, ("torch", "transformers", "onnx", "onnxruntime"))),
        reason="needs PyTorch, Transformers and ONNX: pip install 'sluice[train,cpu]'",
    ),
    pytest.mark.filterwarnings("ignore"),  # PyTorch's own
]

NOUNS = ["order", "report", "ticket", "invoice", "customer", "meeting", "server", "letter", "budget", "team"]
EXAMPLES = [Example(f"{intent} the {a} {b}", intent) for intent in Intent for a in NOUNS for b in NOUNS[:4]]
HOLDOUT = [Example(f"{intent} my {noun}", intent) for intent in Intent for noun in NOUNS]
RECIPE = Recipe(epochs=8, encoder_rate=5e-3, head_rate=2e-2, max_length=16, bare_share=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from torch import manual_seed
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for e in EXAMPLES for word in e.text.replace("_", " _ ").split()})
    vocabulary = {word: number for number, word in enumerate([*special, *words, "my"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    path = tmp_path_factory.mktemp("base")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(path)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    manual_seed(0)
    BertModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "model"
    report = train(EXAMPLES, out, base=base, recipe=RECIPE, holdout=HOLDOUT, progress=False)
    return out, report


def test_what_is_written_loads_and_has_learnt(trained) -> None:
    out, report = trained
    classifier = Classifier.load(out)
    assert classifier.version == report.version
    assert {path.name for path in out.iterdir()} == {MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE}
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    assert report.holdout is not None
    assert report.holdout["accuracy"] > 0.9
    assert classifier.classify(["call_api the server meeting"])[0].label == "call_api"


def test_the_report_is_json_and_matches_the_manifest(trained) -> None:
    out, report = trained
    manifest = orjson.loads((out / MANIFEST_FILE).read_bytes())
    told = orjson.loads(orjson.dumps(report.to_dict()))
    assert told["out"] == str(out)
    assert told["seconds"] > 0
    assert (manifest["version"], manifest["threshold"]) == (told["version"], told["threshold"])
    assert manifest["parity"] == told["parity"]
    assert manifest["metrics"]["holdout"]["accuracy"] == told["holdout"]["accuracy"]
    assert set(manifest["data"]) == {"train", "validation", "holdout"}
    assert manifest["recipe"]["seed"] == 0


def test_the_graph_says_what_the_network_says(trained) -> None:
    _, report = trained
    assert report.parity["label_agreement"] > 0.95
    assert report.parity["largest_difference"] < 0.3


def test_half_precision_loses_next_to_nothing_and_runs_without_a_gpu_too(base, tmp_path) -> None:
    report = train(EXAMPLES, tmp_path / "half", base=base, recipe=RECIPE, precision="fp16")
    assert report.parity["label_agreement"] > 0.99
    assert report.parity["largest_difference"] < 0.02
    classifier = Classifier.load(tmp_path / "half")
    assert classifier.classify(["call_api the server meeting"])[0].label == "call_api"
    alone = [classifier.probabilities([e.text])[0] for e in HOLDOUT[:16]]
    assert abs(classifier.probabilities([e.text for e in HOLDOUT[:16]]) - alone).max() < 0.01
    train(EXAMPLES, tmp_path / "again", head_of=tmp_path / "half", recipe=RECIPE)
    assert Classifier.load(tmp_path / "again").manifest.recipe["precision"] == "fp16"


def test_padding_changes_nothing(base, tmp_path) -> None:
    train(EXAMPLES, tmp_path / "half", base=base, recipe=RECIPE, epochs=1, precision="fp16")
    classifier = Classifier.load(tmp_path / "half")
    short, long = classifier.encode("plan_task my team"), classifier.encode("plan_task my team my order my report my")
    together = classifier._run([short, long])
    assert abs(together[0] - classifier._run([short])[0]).max() < 0.01
    assert abs(together[1] - classifier._run([long])[0]).max() < 0.01


def test_another_kind_of_encoder_is_refused(base, tmp_path) -> None:
    other = shutil.copytree(base, tmp_path / "relu")
    config = orjson.loads((other / "config.json").read_bytes())
    (other / "config.json").write_bytes(orjson.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(TrainingError, match="only BERT with gelu"):
        train(EXAMPLES, tmp_path / "model", base=other, recipe=RECIPE, epochs=1)


def test_a_new_label_needs_only_a_new_head(trained, tmp_path) -> None:
    out, _ = trained
    new = [Example(f"book_flight the {a} {b}", "book_flight") for a in NOUNS for b in NOUNS[:4]]
    report = train([*EXAMPLES, *new], tmp_path / "wider", head_of=out, recipe=RECIPE)
    wider = Classifier.load(tmp_path / "wider")
    assert wider.labels == (*Intent, "book_flight")
    assert (report.epochs, report.base) == (0, Classifier.load(out).manifest.base)
    assert wider.classify(["call_api the server meeting"])[0].label == "call_api"


def test_a_smaller_one_learns_from_the_kept_one(base, tmp_path) -> None:
    kept = tmp_path / "kept.pt"
    whole = train(EXAMPLES, tmp_path / "whole", base=base, recipe=RECIPE, weights=kept)
    written = kept.stat().st_mtime_ns
    small = train(EXAMPLES, tmp_path / "small", base=base, recipe=RECIPE, weights=kept, layers=1, holdout=HOLDOUT)
    assert kept.stat().st_mtime_ns == written
    assert small.bytes < whole.bytes
    assert small.holdout is not None
    assert small.holdout["accuracy"] > 0.8
    train(EXAMPLES, tmp_path / "other", base=base, recipe=RECIPE, weights=kept, seed=1, epochs=1)
    assert kept.stat().st_mtime_ns != written


def test_more_layers_than_the_base_has_are_refused(base, tmp_path) -> None:
    with pytest.raises(TrainingError, match="layers: the base has 2, asked for are 3"):
        train(EXAMPLES, tmp_path / "model", base=base, recipe=RECIPE, layers=3)


def test_outliers_are_out_of_scope_unless_they_resemble_an_example(base, tmp_path) -> None:
    strange = ["[UNK]" * 3, *(f"my my my {noun}" for noun in NOUNS)]
    report = train(EXAMPLES, tmp_path / "model", base=base, recipe=RECIPE, epochs=1, outliers=strange)
    assert report.epochs == 1


def test_an_existing_directory_is_kept_unless_told(trained, base) -> None:
    out, report = trained
    with pytest.raises(InvalidInput, match="exists already"):
        train(EXAMPLES, out, base=base, recipe=RECIPE)
    again = train(EXAMPLES, out, base=base, recipe=RECIPE, epochs=2, seed=1, overwrite=True, progress=False)
    assert again.version != report.version
    assert Classifier.load(out).version == again.version


def test_what_is_no_model_directory_is_never_overwritten(tmp_path, base) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="not a model directory"):
        train(EXAMPLES, tmp_path, base=base, recipe=RECIPE, overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_base_that_is_none_is_named_and_leaves_nothing(tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TrainingError, match="empty: no BERT model"):
        train(EXAMPLES, tmp_path / "model", base=empty, recipe=RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_progress_is_drawn_when_asked(tmp_path, base, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    train(EXAMPLES, tmp_path / "quiet", base=base, recipe=RECIPE, epochs=1)
    assert capsys.readouterr() == ("", "")
    train(EXAMPLES, tmp_path / "shown", base=base, recipe=RECIPE, epochs=1, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err != ""
