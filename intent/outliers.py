"""Texts from elsewhere as examples of what is out of scope. Import this only where PyTorch is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import normalize

from intent.examples import OUT_OF_SCOPE
from intent.fit import tensors

if TYPE_CHECKING:
    from intent.encoding import Encoder
    from intent.network import IntentNetwork
    from intent.recipe import Lesson

_ALIKE: Final = 0.6
"""Cosine between the vectors of two texts from which on they may well ask for the same."""
_BATCH: Final = 64


def unlike(network: IntentNetwork, encoder: Encoder, lesson: Lesson, texts: Sequence[str]) -> list[str]:
    """Return those of ``texts`` that resemble no in-scope example, by the vectors of ``network`` before it learns."""
    known = vectors(network, encoder, [example.text for example in lesson.examples if example.intent != OUT_OF_SCOPE])
    nearest = (vectors(network, encoder, texts) @ known.T).max(dim=1).values
    return [text for text, likeness in zip(texts, nearest.tolist(), strict=True) if likeness < _ALIKE]


def vectors(network: IntentNetwork, encoder: Encoder, texts: Sequence[str]) -> Any:
    """Return the vectors of ``texts`` with length 1, float32 ``[len(texts), hidden]``."""
    network.eval()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    with torch.inference_mode():
        parts = [
            network.pooled(*tensors(network, encoder, [texts[place] for place in order[start : start + _BATCH]]))
            for start in range(0, len(order), _BATCH)
        ]
    found = torch.cat(parts)
    result = torch.empty_like(found)
    result[torch.tensor(order, device=found.device)] = found
    return normalize(result, dim=1)
