"""Accuracy against processor time: the whole encoder, and smaller ones that learnt from it.

``python -m benchmarks.intent_frontier --layers 6,4,3,2`` trains each on the packaged data (minutes to an hour on two
cores; the whole one once) and measures it on the holdout and the blind set. Needs the training extra. Models that are
already in ``--out`` are measured, not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from intent.classifier import Classifier
from intent.evaluate import evaluate
from intent.examples import read_examples
from intent.train import train

_DATA: Final = Path("intent/data")
_BATCH: Final = 8


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default="6,4,3,2", help="Sizes, by commas.")
    parser.add_argument("--out", type=Path, default=Path("build/frontier"), help="Where the models are kept.")
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    args = parser.parse_args()
    rows = [_measured(int(layers), args.out) for layers in args.layers.split(",")]
    table = Table(title="One text alone, tokenisation included, one thread")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if args.json:
        args.json.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


def _measured(layers: int, out: Path) -> dict[str, Any]:
    folder = out / str(layers)
    if not folder.exists():
        examples, held = (read_examples(_DATA / f"{name}.jsonl") for name in ("train", "holdout"))
        train(examples, folder, layers=layers, holdout=held, weights=out / "whole.pt", progress=True)
    classifier = Classifier.load(folder)
    parts = {
        name: evaluate(classifier, read_examples(_DATA / f"{name}.jsonl"), _BATCH) for name in ("holdout", "blind")
    }
    return {
        "layers": layers,
        **{f"{name} accuracy": part.accuracy for name, part in parts.items()},
        **{f"{name} oos recall": part.per_intent["out_of_scope"].recall for name, part in parts.items()},
        "p50 ms": parts["blind"].p50_ms,
        "MB": sum(file.stat().st_size for file in folder.iterdir()) / 1e6,
    }


if __name__ == "__main__":
    main()
