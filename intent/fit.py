"""The training loop. Import this module only where PyTorch is installed and wanted."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from intent import calibrate
from intent.augment import disguise
from intent.encoding import Encoder
from intent.examples import Example, numbers
from intent.network import IntentNetwork, parameter_groups
from intent.recipe import Lesson, Recipe
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
    lesson: Lesson,
    *,
    advance: Callable[[float, str], None],
    teacher: IntentNetwork | None = None,
) -> Fit:
    """Train ``network`` in place and leave it with the weights of the lowest validation loss.

    With a ``teacher``, which has the same labels and tokeniser, the network learns its probabilities for each text, and
    the labels only a little. ``advance(share, note)`` is called as work gets done, ``share`` (0..1) of the longest run
    there can be.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    recipe, labels = lesson.recipe, lesson.labels
    epochs = recipe.distil_epochs if teacher else recipe.epochs
    chance = random.Random(lesson.seed)  # noqa: S311  (an order, not a secret)
    steps = -(-len(lesson.examples) // recipe.batch)
    weights = class_weights([example.intent for example in lesson.examples], labels).to(network.head.weight.device)
    optimiser = torch.optim.AdamW(
        parameter_groups(network, recipe.encoder_rate, recipe.head_rate, recipe.layer_decay, recipe.frozen_layers),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _triangle(steps * epochs, recipe.warmup))
    truth = numbers(lesson.validation, labels)
    best, best_epoch, best_weights, epoch = float("inf"), 0, {}, 0
    for epoch in range(1, epochs + 1):
        network.train()
        for batch in _batches(lesson.examples, recipe, chance):
            ids, mask = tensors(network, encoder, [_disguised(example.text, recipe, chance) for example in batch])
            target = torch.from_numpy(numbers(batch, labels)).to(ids.device)
            with _half(ids.device.type):
                scores = network(ids, mask).float()
            loss = cross_entropy(scores, target, weight=weights, label_smoothing=recipe.label_smoothing)
            if teacher:
                loss = recipe.label_share * loss + (1 - recipe.label_share) * _distance(teacher, scores, ids, mask)
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is {loss.item()} in epoch {epoch}: lower the learning rates")
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            advance(1 / (steps * epochs), f"epoch {epoch}")
        scored = calibrate.softmax(logits(network, encoder, [example.text for example in lesson.validation]))
        validated = calibrate.log_loss(scored, truth)
        if validated < best:
            best, best_epoch, best_weights = validated, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= recipe.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    return Fit(epoch, best_epoch)


def logits(network: IntentNetwork, encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the logits ``[len(texts), labels]`` of ``network``, which is left in evaluation mode."""
    return _in_batches(network, network, encoder, texts)


def vectors(network: IntentNetwork, encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return what the head of ``network`` sees of ``texts``, ``[len(texts), hidden]``; evaluation mode as above."""
    return _in_batches(network, network.pooled, encoder, texts)


def _in_batches(
    network: IntentNetwork, function: Callable[..., Any], encoder: Encoder, texts: Sequence[str]
) -> NDArray[np.float64]:
    network.eval()
    with torch.inference_mode():
        parts = [
            function(*tensors(network, encoder, texts[start : start + _SCORING_BATCH])).double().cpu()
            for start in range(0, len(texts), _SCORING_BATCH)
        ]
    result: NDArray[np.float64] = torch.cat(parts).numpy()
    return result


def tensors(network: IntentNetwork, encoder: Encoder, texts: Sequence[str]) -> tuple[Any, Any]:
    """Return ids and mask, int64 ``[len(texts), longest]``, on the device of ``network``."""
    device = network.head.weight.device
    ids, mask = encoder.inputs([encoder.ids(text) for text in texts])
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def class_weights(truth: Sequence[str], labels: Sequence[str]) -> Any:
    """Return a weight for each example of a label, float32 ``[labels]``; 1 for an average example.

    It falls with the root of their number: the rare labels are heard, and the frequent ones still say more.
    """
    counts = Counter(truth)
    weights = torch.tensor([counts[label] ** -0.5 for label in labels], dtype=torch.float32)
    return weights * len(truth) / sum(counts[label] ** 0.5 for label in labels)


def _distance(teacher: IntentNetwork, scores: Any, ids: Any, mask: Any) -> Any:
    """Return how far the probabilities of ``scores`` ``[n, labels]`` are from the teacher's (nats, mean)."""
    teacher.eval()
    with torch.no_grad(), _half(ids.device.type):
        wanted = softmax(teacher(ids, mask).float(), dim=-1)
    return kl_div(log_softmax(scores, dim=-1), wanted, reduction="batchmean")


def _half(device: str) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where the hardware does: twice as fast, and as good."""
    able = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu.get_capabilities().get("avx512_bf16")
    half: AbstractContextManager[Any] = torch.autocast(device, dtype=torch.bfloat16, enabled=bool(able))
    return half


def _batches(examples: Sequence[Example], recipe: Recipe, chance: random.Random) -> list[list[Example]]:
    """Return ``examples`` in batches of similar length, in an order of chance: little is padded."""
    order = list(examples)
    chance.shuffle(order)
    stretch = _STRETCH * recipe.batch
    for start in range(0, len(order), stretch):
        order[start : start + stretch] = sorted(order[start : start + stretch], key=lambda e: len(e.text))
    batches = [order[start : start + recipe.batch] for start in range(0, len(order), recipe.batch)]
    chance.shuffle(batches)
    return batches


def _disguised(text: str, recipe: Recipe, chance: random.Random) -> str:
    return disguise(text, chance, bare_share=recipe.bare_share, typo_share=recipe.typo_share)


def _triangle(steps: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(steps * warmup))
    return lambda step: min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising)))
