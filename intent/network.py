"""The network in PyTorch. Import this module only where PyTorch is installed and wanted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tasks.errors import TrainingError


class IntentNetwork(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """A BERT encoder, mean pooling over what is not padding, and a linear head."""

    encoder: Any
    head: Any

    def __init__(self, encoder: Any, labels: int, dropout: float) -> None:
        """Put a head of ``labels`` outputs on ``encoder``; ``dropout`` (0..1) is of the pooled vector."""
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(encoder.config.hidden_size, labels)

    def pooled(self, input_ids: Any, attention_mask: Any) -> Any:
        """Return the mean of the last hidden states, float32 ``[n, hidden]``, of int64 ``[n, tokens]``."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Return logits, float32 ``[n, labels]``, of int64 ``[n, tokens]``."""
        return self.head(self.dropout(self.pooled(input_ids, attention_mask)))


def student_of(network: IntentNetwork, layers: int) -> IntentNetwork:
    """Return a copy of ``network`` with ``layers`` of its encoder's layers: the last, and evenly those below.

    Choosing those without which a network's answers on its examples change least gives worse students: that says
    little about other texts.
    """
    have = len(network.encoder.encoder.layer)
    student = copy.deepcopy(network)
    kept = [round((place + 1) * have / layers) - 1 for place in range(layers)]
    student.encoder.encoder.layer = torch.nn.ModuleList(student.encoder.encoder.layer[place] for place in kept)
    student.encoder.config.num_hidden_layers = layers
    return student


def load_base(base: Path, labels: int, dropout: float) -> tuple[IntentNetwork, bytes]:
    """Return a fresh network on the BERT model in ``base``, and the bytes of its ``tokenizer.json``.

    Raises:
        TrainingError: there is no BERT model with a fast tokeniser in ``base``.
    """
    transformers_logging.disable_progress_bar()
    try:
        # Eager attention is the one whose trace exports to plain ONNX operators.
        encoder = AutoModel.from_pretrained(base, local_files_only=True, attn_implementation="eager")
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise TrainingError(f"{base}: no BERT model with a fast tokeniser: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return IntentNetwork(encoder, labels, dropout), tokenizer.to_str().encode()


def parameter_groups(
    network: IntentNetwork, encoder_rate: float, head_rate: float, layer_decay: float, frozen_layers: int
) -> list[dict[str, Any]]:
    """Return AdamW's groups: the lower the layer, the lower its learning rate; embeddings stay as they are.

    The topmost layer learns at ``encoder_rate``, each below it at ``layer_decay`` times the one above. The
    lowest ``frozen_layers`` do not learn.
    """
    for parameter in network.encoder.embeddings.parameters():
        parameter.requires_grad = False
    groups: list[dict[str, Any]] = [{"params": list(network.head.parameters()), "lr": head_rate}]
    layers = list(network.encoder.encoder.layer)
    for depth, layer in enumerate(layers):
        parameters = list(layer.parameters())
        if depth < frozen_layers:
            for parameter in parameters:
                parameter.requires_grad = False
        else:
            groups.append({"params": parameters, "lr": encoder_rate * layer_decay ** (len(layers) - 1 - depth)})
    return groups
