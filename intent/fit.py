"""The training loop. Import this module only where PyTorch is installed and wanted."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from intent.calibrate import log_loss, softmax
from intent.encoding import Encoder
from intent.examples import Example
from intent.network import IntentNetwork, parameter_groups
from intent.recipe import Recipe
from tasks.errors import TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCORING_BATCH = 64
_STRETCH = 10
"""Texts are sorted by length within this many batches: enough to pad little, and still mostly chance."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How the loop went: epochs run, and the one (from 1) whose weights the network now has."""

    epochs: int
    best_epoch: int


def fit(
    network: IntentNetwork,
    encoder: Encoder,
    examples: Sequence[Example],
    validation: Sequence[Example],
    *,
    labels: Sequence[str],
    recipe: Recipe,
    seed: int,
    advance: Callable[[float, str], None],
) -> Fit:
    """Train ``network`` in place and leave it with the weights of the lowest validation loss.

    ``advance(share, note)`` is called as work gets done, ``share`` (0..1) of the longest run there can be.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    shuffler = random.Random(seed)  # noqa: S311  (an order, not a secret)
    steps = -(-len(examples) // recipe.batch)
    weights = class_weights([str(example.intent) for example in examples], labels).to(network.head.weight.device)
    optimiser = torch.optim.AdamW(
        parameter_groups(network, recipe.encoder_rate, recipe.head_rate, recipe.layer_decay, recipe.frozen_layers),
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _triangle(steps * recipe.epochs, recipe.warmup))
    truth = numbers(validation, labels)
    best, best_epoch, best_weights, epoch = float("inf"), 0, {}, 0
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for batch in _batches(examples, recipe, shuffler):
            ids, mask = tensors(network, encoder, [_bare(e.text, recipe, shuffler) for e in batch])
            target = torch.from_numpy(numbers(batch, labels)).to(ids.device)
            loss = cross_entropy(network(ids, mask), target, weight=weights, label_smoothing=recipe.label_smoothing)
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is {loss.item()} in epoch {epoch}: lower the learning rates")
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            advance(1 / (steps * recipe.epochs), f"epoch {epoch}")
        validated = log_loss(softmax(logits(network, encoder, [e.text for e in validation])), truth)
        if validated < best:
            best, best_epoch, best_weights = validated, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= recipe.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    return Fit(epoch, best_epoch)


def logits(network: IntentNetwork, encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the logits ``[len(texts), labels]`` of ``network``, which is left in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        parts = [
            network(*tensors(network, encoder, texts[start : start + _SCORING_BATCH])).double().cpu()
            for start in range(0, len(texts), _SCORING_BATCH)
        ]
    result: NDArray[np.float64] = torch.cat(parts).numpy()
    return result


def numbers(examples: Sequence[Example], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return each example's place in ``labels``, int64 ``[len(examples)]``."""
    import numpy as np

    return np.array([labels.index(example.intent) for example in examples], dtype=np.int64)


def tensors(network: IntentNetwork, encoder: Encoder, texts: Sequence[str]) -> tuple[Any, Any]:
    """Return ids and mask, int64 ``[len(texts), longest]``, on the device of ``network``."""
    device = network.head.weight.device
    ids, mask = encoder.inputs([encoder.ids(text) for text in texts])
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def class_weights(truth: Sequence[str], labels: Sequence[str]) -> Any:
    """Return a weight for each label, float32 ``[labels]``; rare ones weigh more, on average 1."""
    counts = Counter(truth)
    return torch.tensor([len(truth) / (len(labels) * counts[label]) for label in labels], dtype=torch.float32)


def _batches(examples: Sequence[Example], recipe: Recipe, shuffler: random.Random) -> list[list[Example]]:
    """Return ``examples`` in batches of similar length, in an order of chance: little is padded."""
    order = list(examples)
    shuffler.shuffle(order)
    stretch = _STRETCH * recipe.batch
    for start in range(0, len(order), stretch):
        order[start : start + stretch] = sorted(order[start : start + stretch], key=lambda e: len(e.text))
    batches = [order[start : start + recipe.batch] for start in range(0, len(order), recipe.batch)]
    shuffler.shuffle(batches)
    return batches


def _bare(text: str, recipe: Recipe, shuffler: random.Random) -> str:
    if shuffler.random() >= recipe.bare_share:
        return text
    return text.lower().rstrip(".?! ") or text


def _triangle(steps: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(steps * warmup))
    return lambda step: min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising)))
