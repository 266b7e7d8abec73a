"""In-scope accuracy against out-of-scope recall on CLINC150, of the int8 graph that would be served.

``python -m benchmarks.intent_accuracy --data FOLDER`` trains on FOLDER/train.jsonl, chooses one threshold on
validation.jsonl, and applies it to test.jsonl where there is one. Lines are ``{"text", "intent"}``; ``oos`` is out of
scope. The texts of the packaged model's own training data serve as outliers. The model stays in ``build/clinc``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from intent.classifier import Classifier
from intent.examples import OUT_OF_SCOPE, Example, numbers, read_examples
from intent.recipe import Recipe
from intent.train import train

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RECIPE: Final = Recipe(
    epochs=10,
    batch=64,
    encoder_rate=1.5e-4,
    head_rate=1.5e-3,
    layer_decay=0.9,
    bare_share=0.0,
    typo_share=0.1,
    max_length=64,
    patience=10,
)
_OUTLIERS: Final = Path("intent/data/train.jsonl")


class Scores:
    """A classifier on labelled texts: its highest in-scope probability of each, and whether that is the right label."""

    def __init__(self, classifier: Classifier, examples: list[Example]) -> None:
        import numpy as np

        probabilities = np.concatenate([classifier.probabilities([example.text]) for example in examples])
        outside = classifier.labels.index(OUT_OF_SCOPE)
        truth = numbers(examples, classifier.labels)
        inside = np.delete(probabilities, outside, axis=1)
        places = np.delete(np.arange(probabilities.shape[1]), outside)
        self.confidence: NDArray[np.float32] = inside.max(axis=1)
        self.right: NDArray[np.bool_] = places[inside.argmax(axis=1)] == truth
        self.in_scope: NDArray[np.bool_] = truth != outside

    def accuracy(self, threshold: float) -> float:
        """Return the share (0..1) of what is in scope that gets its label."""
        return float((self.right & (self.confidence >= threshold))[self.in_scope].mean())

    def recall(self, threshold: float) -> float:
        """Return the share (0..1) of what is out of scope that is recognised as such."""
        return float((self.confidence < threshold)[~self.in_scope].mean())

    def threshold(self, accuracy: float) -> float:
        """Return the highest threshold, in thousandths, that keeps ``accuracy`` (0..1) in scope; 0 if none does."""
        return next((step / 1000 for step in range(999, 0, -1) if self.accuracy(step / 1000) >= accuracy), 0.0)


def read(file: Path) -> list[Example]:
    """Read a file of CLINC150; repeated texts are kept."""
    return [Example(line.text, OUT_OF_SCOPE if line.intent == "oos" else line.intent) for line in read_examples(file)]


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="The folder with train.jsonl and validation.jsonl.")
    parser.add_argument("--out", type=Path, default=Path("build/clinc"), help="Where the model goes.")
    parser.add_argument("--reuse", action="store_true", help="Measure the model that is there.")
    parser.add_argument("--in-scope", type=float, default=0.963, help="The accuracy that the threshold must keep.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    args = parser.parse_args()
    if not args.reuse:
        _train(args)
    classifier = Classifier.load(args.out)
    names = [name for name in ("validation", "test") if (args.data / f"{name}.jsonl").exists()]
    scores = {name: Scores(classifier, read(args.data / f"{name}.jsonl")) for name in names}
    chosen = scores["validation"].threshold(args.in_scope)
    _print(scores, chosen, classifier)
    if args.json:
        figures = {
            name: {"accuracy": part.accuracy(chosen), "out_of_scope_recall": part.recall(chosen)}
            for name, part in scores.items()
        }
        document: dict[str, Any] = {"version": classifier.version, "threshold": chosen, **figures}
        args.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def _train(args: argparse.Namespace) -> None:
    validation = read(args.data / "validation.jsonl")
    # Three texts are in both parts: nothing is proved by what was learnt.
    held = {example.text for example in validation}
    report = train(
        [example for example in read(args.data / "train.jsonl") if example.text not in held],
        args.out,
        validation=validation,
        outliers=[example.text for example in read_examples(_OUTLIERS)],
        recipe=_RECIPE,
        seed=args.seed,
        overwrite=True,
    )
    sys.stderr.write(f"trained {report.version} on {report.device} in {report.seconds:.0f} s\n")


def _print(scores: dict[str, Scores], chosen: float, classifier: Classifier) -> None:
    console = Console()
    table = Table(title=f"{classifier.version}, int8, on CLINC150; * is the threshold chosen on validation")
    for name in ("threshold", *(f"{part}, {what}" for part in scores for what in ("in scope", "oos recall"))):
        table.add_column(name)
    for threshold in sorted({chosen, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9}):
        cells = [
            f"{share:.2%}" for part in scores.values() for share in (part.accuracy(threshold), part.recall(threshold))
        ]
        table.add_row(f"{threshold:.3f}{' *' if threshold == chosen else ''}", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
