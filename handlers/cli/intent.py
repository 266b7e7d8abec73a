"""``sluice intent classify|evaluate|train``."""

from __future__ import annotations

from pathlib import Path

import click

from handlers.cli.common import json_option, print_json, print_table, settings_of
from tasks.errors import InvalidInput

model_option = click.option("--model-dir", type=click.Path(path_type=Path), help="Default: the configured model.")


@click.group()
def intent() -> None:
    """Classify texts; evaluate and train classifiers."""


@intent.command()
@click.argument("texts", nargs=-1, required=True)
@model_option
@json_option
@click.pass_context
def classify(ctx: click.Context, *, texts: tuple[str, ...], model_dir: Path | None, as_json: bool) -> None:
    """Show intent, confidence and agent type of each of TEXTS."""
    from intent.classifier import Classifier

    settings = settings_of(ctx)
    if any(not text.strip() for text in texts):
        raise InvalidInput("text: must not be empty or blank")
    classifier = Classifier.load(model_dir or settings.intent.model_dir, threads=settings.intent.threads)
    rows = [
        {
            "text": text,
            "intent": found.label,
            "confidence": round(found.confidence, 6),
            "agent": settings.agent_for(found.label),
            "model_version": found.model_version,
        }
        for text, found in zip(texts, classifier.classify(texts, settings.routing.threshold), strict=True)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table("", ("text", "intent", "confidence", "agent"), [list(row.values())[:4] for row in rows])


@intent.command()
@click.argument("file", type=click.Path(path_type=Path))
@model_option
@json_option
@click.pass_context
def evaluate(ctx: click.Context, *, file: Path, model_dir: Path | None, as_json: bool) -> None:
    """Measure the classifier on FILE: JSON lines of "text" and "intent"."""
    from intent.classifier import Classifier
    from intent.evaluate import evaluate as measure
    from intent.examples import read_examples

    settings = settings_of(ctx)
    examples = read_examples(file)
    classifier = Classifier.load(model_dir or settings.intent.model_dir, threads=settings.intent.threads)
    report = measure(classifier, examples).to_dict()
    if as_json:
        print_json(report)
        return
    rows = [(name, *(round(value, 3) for value in scores.values())) for name, scores in report["per_intent"].items()]
    print_table(
        f"{classifier.version}: accuracy {report['accuracy']:.3f}, macro F1 {report['macro_f1']:.3f} on {report['n']}; "
        f"p50 {report['p50_ms']:.1f} ms, p99 {report['p99_ms']:.1f} ms",
        ("intent", *next(iter(report["per_intent"].values()))),
        rows,
    )


@intent.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write the model to.")
@click.option("--base", type=click.Path(path_type=Path), help="A Hugging Face BERT directory (default: MiniLM).")
@click.option("--holdout", type=click.Path(path_type=Path), help="Examples to measure the result on.")
@click.option("--epochs", type=click.IntRange(1), help="At most so many.")
@click.option("--force", is_flag=True, help="Replace the model that is there.")
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
@click.pass_context
def train(
    ctx: click.Context, *, file: Path, out: Path, base: Path | None, holdout: Path | None, epochs: int | None,
    seed: int, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a classifier on FILE (JSON lines of "text" and "intent"), calibrate and export it."""
    from intent.examples import read_examples
    from intent.train import train as fit

    settings_of(ctx)
    held = read_examples(holdout) if holdout else ()
    report = fit(read_examples(file), out, base=base, seed=seed, holdout=held, epochs=epochs, overwrite=force)
    if as_json:
        print_json(report.to_dict())
    else:
        rows = [(name, value) for name, value in report.to_dict().items() if not isinstance(value, dict)]
        print_table(f"Trained {out}", ("figure", "value"), rows)
