"""From a trained network to a model directory. Import this only where PyTorch and ONNX are installed."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Final

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from intent.manifest import POOLED, PROBABILITIES
from intent.network import Exported, IntentNetwork

_OPSET: Final = 17
_HEAD: Final = ("head_", "far_")
"""How the names of the head's numbers begin."""


def export_graph(network: IntentNetwork, file: Path) -> None:
    """Write the encoder of ``network`` to ``file`` as an int8 ONNX graph with dynamic axes and a head still to fit.

    The head stays in float32: it is small, and its numbers are replaced.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        _trace(network, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_dynamic(
            prepared,
            file,
            op_types_to_quantize=["MatMul", "Gather", "Gemm"],
            per_channel=True,
            # Seven bits: eight overflow in the integer kernels of processors without VNNI.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_head_of(prepared),
        )
    fuse(file)


def _head_of(file: Path) -> list[str]:
    """Return the names of the nodes that use the head's numbers, and what the quantiser calls them."""
    names = [
        str(node.name) for node in onnx.load(file).graph.node if any(name.startswith(_HEAD) for name in node.input)
    ]
    return [*names, *(f"{name}_MatMul" for name in names)]


def fuse(file: Path) -> None:
    """Replace the graph in ``file`` by what ONNX Runtime makes of it when it loads it: that takes longer than the rest.

    Only what every processor understands; what is left to do for one of them is done at loading.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder) / "fused.onnx"
        options.optimized_model_filepath = str(fused)
        onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        file.write_bytes(fused.read_bytes())


def _trace(network: IntentNetwork, file: Path) -> None:
    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        # Only the tracing exporter's graph is one that the quantiser understands; it warns of its age.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported(network.cpu()).eval(),
            (example, example),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=[PROBABILITIES, POOLED],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, PROBABILITIES: {0: "batch"}, POOLED: {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )
