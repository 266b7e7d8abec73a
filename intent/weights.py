"""A file that keeps a fine-tuned network for later students. Import this only where PyTorch is installed."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from intent.examples import digest
from intent.fit import Fit
from intent.network import IntentNetwork
from intent.recipe import Lesson
from tasks.contracts.base import canonical, sha256

_LATER: Final = {"layers", "precision", "distil_epochs", "label_share", "wrong_cost"}
"""Of the recipe, what a teacher's weights do not depend on."""


def keep(network: IntentNetwork, fit: Fit, file: Path, lesson: Lesson) -> None:
    """Write the weights of ``network`` to ``file``, with the name of what it was taught."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    torch.save({"lesson": _name(network, lesson), "fit": asdict(fit), "weights": network.state_dict()}, fresh)
    fresh.replace(file)


def recall(network: IntentNetwork, file: Path | None, lesson: Lesson) -> Fit | None:
    """Give ``network`` the weights in ``file`` and return how they came about; ``None`` if of another lesson."""
    if file is None or not file.exists():
        return None
    name = _name(network, lesson)
    kept = torch.load(file, map_location=network.head.weight.device, weights_only=True)
    if kept["lesson"] != name:
        return None
    network.load_state_dict(kept["weights"])
    network.eval()
    return Fit(**kept["fit"])


def _name(network: IntentNetwork, lesson: Lesson) -> str:
    recipe = {name: value for name, value in lesson.recipe.model_dump(mode="json").items() if name not in _LATER}
    shapes = [[name, list(value.shape)] for name, value in network.state_dict().items()]
    return sha256(canonical([digest(lesson.examples), digest(lesson.validation), recipe, lesson.seed, shapes]))
