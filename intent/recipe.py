"""How a classifier is trained, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from intent.examples import Example

Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Precision = Literal["int8", "fp16"]
"""Of the exported graph: integers for CPUs, half a float's precision for GPUs."""

Count = Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """What decides a training run, beside the examples, the base model and the seed.

    ``layers`` of the encoder, all of the base's by default. ``precision`` of the exported graph.
    Learning rates are AdamW's. ``warmup`` is the share of all steps over which they rise; then they fall to
    nothing. ``patience``: epochs without a lower validation loss before stopping. ``max_length`` is in
    tokens. ``wrong_cost`` is the trade-off that sets the threshold: how many texts may go to the fallback without
    need to spare one a wrong agent. In each epoch ``bare_share`` of the texts are shown without case and closing
    punctuation, and ``typo_share`` with a slip of the finger, since people type that way. A smaller network learns
    from the trained one for ``distil_epochs``; ``label_share`` of its loss is by the labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Count | None = None
    precision: Precision = "int8"
    epochs: Count = 6
    batch: Count = 32
    encoder_rate: Rate = 2e-4
    head_rate: Rate = 2e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    warmup: Share = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    label_smoothing: Share = 0.05
    dropout: Share = 0.1
    bare_share: Share = 0.3
    typo_share: Share = 0.15
    distil_epochs: Count = 8
    label_share: Share = 0.2
    patience: Count = 3
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    max_length: Annotated[int, Field(ge=8, le=512)] = 128
    wrong_cost: Annotated[float, Field(ge=1)] = 1.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a network learns, and how; ``labels`` are in the order of its outputs."""

    examples: Sequence[Example]
    validation: Sequence[Example]
    labels: tuple[str, ...]
    recipe: Recipe
    seed: int


class TrainingReport(BaseModel):
    """What a training run gave.

    ``validation`` and ``holdout`` are evaluations of the exported model, as in
    :class:`intent.evaluate.Evaluation`. ``parity`` compares it with the network it came from. ``seconds`` is
    the whole run, ``bytes`` the size of the model directory.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    out: Path
    base: str
    device: str
    examples: int
    epochs: int
    best_epoch: int
    temperature: float
    threshold: float
    validation: dict[str, JsonValue]
    holdout: dict[str, JsonValue] | None
    parity: dict[str, JsonValue]
    seconds: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return self.model_dump(mode="json")
