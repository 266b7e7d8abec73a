"""``sluice intent classify|evaluate|train``, and the commands about versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from handlers.cli import intent_canary, intent_versions
from handlers.cli.common import json_option, print_json, print_table, settings_of
from tasks.errors import InvalidInput

_FILE = click.Path(path_type=Path)
model_option = click.option("--model-dir", type=click.Path(path_type=Path), help="Default: the configured model.")


@click.group()
def intent() -> None:
    """Classify texts; evaluate, train, publish and promote classifiers."""


for _command in (*intent_versions.COMMANDS, intent_canary.canary):
    intent.add_command(_command)


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
@click.argument("file", type=_FILE)
@model_option
@click.option("--threshold", type=click.FloatRange(0, 1), help="Default: the configured one, else the model's own.")
@json_option
@click.pass_context
def evaluate(ctx: click.Context, *, file: Path, model_dir: Path | None, threshold: float | None, as_json: bool) -> None:
    """Measure the classifier on FILE: JSON lines of "text" and "intent"."""
    from intent.classifier import Classifier
    from intent.evaluate import evaluate as measure
    from intent.examples import read_examples

    settings = settings_of(ctx)
    classifier = Classifier.load(model_dir or settings.intent.model_dir, threads=settings.intent.threads)
    examples = read_examples(file, classifier.labels)
    floor = settings.routing.threshold if threshold is None else threshold
    report = measure(classifier, examples, threshold=floor).to_dict()
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
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--out", type=_FILE, required=True, help="The directory to write the model to.")
@click.option("--base", type=_FILE, help="A Hugging Face BERT directory (default: MiniLM).")
@click.option("--layers", type=click.IntRange(1), help="A smaller network of so many layers learns from the whole one.")
@click.option("--precision", type=click.Choice(["int8", "fp16"]), help="int8 for CPUs (default), fp16 for GPUs.")
@click.option("--keep-weights", "weights", type=_FILE, help="Keep the whole one in this file, for other --layers.")
@click.option("--head-of", type=_FILE, help="Fit only a new head on the encoder of this model directory: seconds.")
@click.option("--validation", type=_FILE, help="Examples for early stopping, calibration and threshold.")
@click.option("--holdout", type=_FILE, help="Examples to measure the result on.")
@click.option("--outliers", type=_FILE, help="Examples that are out of scope, unless they resemble one of FILES.")
@click.option("--epochs", type=click.IntRange(1), help="At most so many.")
@click.option("--force", is_flag=True, help="Replace the model that is there.")
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
@click.pass_context
def train(
    ctx: click.Context, /, *, files: tuple[Path, ...], validation: Path | None, holdout: Path | None,
    outliers: Path | None, force: bool, as_json: bool, **chosen: Any,
) -> None:  # fmt: skip
    """Train a classifier on FILES (JSON lines of "text" and "intent"), calibrate and export it."""
    from intent.examples import read_examples
    from intent.train import train as fit

    settings_of(ctx)
    if chosen["head_of"] and any(chosen[name] for name in ("base", "layers", "precision", "weights", "epochs")):
        raise click.UsageError(
            "--head-of keeps the encoder as it is: --base, --layers, --precision, --keep-weights, --epochs do not apply"
        )
    report = fit(
        [example for file in files for example in read_examples(file)],
        validation=read_examples(validation) if validation else (),
        holdout=read_examples(holdout) if holdout else (),
        outliers=[example.text for example in read_examples(outliers)] if outliers else (),
        overwrite=force,
        **chosen,
    )
    if as_json:
        print_json(report.to_dict())
    else:
        rows = [(name, value) for name, value in report.to_dict().items() if not isinstance(value, dict)]
        print_table(f"Trained {report.out}", ("figure", "value"), rows)
