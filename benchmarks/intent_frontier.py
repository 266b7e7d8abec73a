"""Accuracy against processor time: the packaged model, the whole encoder, and smaller ones that learnt from it.

    python -m benchmarks.intent_frontier [--layers 6,5,4,3] [--out build/frontier] [--measure-only] [--json FILE]

What is not in ``--out`` yet is trained there on the packaged data, from one fine-tuned network that is kept beside: on
two cores half an hour for the whole one and a quarter for each smaller one. That needs the training extra; with
``--measure-only`` it is left out. Accuracy is that on the holdout, by which recipes are chosen, and on the blind lines,
by which nothing is. Milliseconds are processor time, not the clock's, on one core; the models take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import track

from benchmarks.intent_model import TEXT, pin
from intent.classifier import Classifier
from intent.evaluate import evaluate
from intent.examples import OUT_OF_SCOPE, read_examples
from intent.manifest import default_dir
from intent.train import train

DATA: Final = default_dir().parent / "data"
BATCHES: Final = (1, 8, 32)
ROUNDS: Final = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="6,5,4,3", help="sizes, by commas")
    parser.add_argument("--out", type=Path, default=Path("build/frontier"), help="where the models are kept")
    parser.add_argument("--measure-only", action="store_true", help="train nothing: measure what is there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    folders = {f"{layers} layers": args.out / layers for layers in args.layers.split(",")}
    if not args.measure_only:
        for folder in folders.values():
            trained(int(folder.name), folder)
    models = {"packaged": default_dir()} | {name: folder for name, folder in folders.items() if folder.exists()}
    pin()
    rows = measured({name: Classifier.load(folder) for name, folder in models.items()})
    show(rows)
    if args.json:
        document = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "models": rows}
        args.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def trained(layers: int, folder: Path) -> None:
    """Train the network of so many ``layers`` where it is not there yet."""
    if folder.exists():
        return
    examples, held = (read_examples(DATA / f"{name}.jsonl") for name in ("train", "holdout"))
    train(examples, folder, layers=layers, holdout=held, weights=folder.parent / "whole.pt", progress=True)


def measured(classifiers: dict[str, Classifier]) -> list[dict[str, Any]]:
    spent = costs(classifiers)
    rows = []
    for name, classifier in track(classifiers.items(), "measuring accuracy", console=Console(stderr=True)):
        row: dict[str, Any] = {"model": name, "version": classifier.version}
        for part in ("holdout", "blind"):
            found = evaluate(classifier, read_examples(DATA / f"{part}.jsonl"))
            row[f"{part}_accuracy"] = round(found.accuracy, 4)
            row[f"{part}_oos_recall"] = round(found.per_intent[OUT_OF_SCOPE].recall, 4)
        rows.append(row | {f"ms_batch_{batch}": round(spent[name, batch], 2) for batch in BATCHES})
    return rows


def costs(classifiers: dict[str, Classifier]) -> dict[tuple[str, int], float]:
    """Return the median milliseconds of processor time that a batch takes, tokenised, by model and size."""
    taken: dict[tuple[str, int], list[float]] = {(name, batch): [] for batch in BATCHES for name in classifiers}
    for (name, batch), times in track(list(taken.items()) * ROUNDS, "measuring cost", console=Console(stderr=True)):
        classifier = classifiers[name]
        times.append(cpu_ms(partial(classifier.classify_ids, [classifier.encode(TEXT)] * batch)))
    return {key: statistics.median(times) for key, times in taken.items()}


def cpu_ms(function: Callable[[], object]) -> float:
    function()  # another model ran before: this one's weights are in no cache
    begun = time.process_time()
    function()
    return (time.process_time() - begun) * 1000


def show(rows: list[dict[str, Any]]) -> None:
    names = [name for name in rows[0] if name != "version"]
    print(f"| {' | '.join(name.replace('_', ' ') for name in names)} |")
    print("|---" * len(names) + "|")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in names)} |")
    print("\n12 tokens, one thread; milliseconds of processor time for a batch.")


if __name__ == "__main__":
    main()
