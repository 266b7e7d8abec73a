"""From a trained network to a model directory. Import this only where PyTorch and ONNX are installed."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

import onnxruntime
import orjson
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from intent.manifest import MANIFEST_FILE, Manifest
from intent.network import Calibrated, IntentNetwork
from tasks.errors import InvalidInput

_OPSET: Final = 17
_LIBRARIES: Final = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy")


def export_graph(network: IntentNetwork, temperature: float, file: Path) -> None:
    """Write ``network`` with temperature and softmax to ``file`` as an int8 ONNX graph with dynamic axes."""
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        _trace(network, temperature, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_dynamic(
            prepared,
            file,
            op_types_to_quantize=["MatMul", "Gather", "Gemm"],
            per_channel=True,
            # Seven bits: eight overflow in the integer kernels of processors without VNNI.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    fuse(file)


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


def _trace(network: IntentNetwork, temperature: float, file: Path) -> None:
    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        # Only the tracing exporter's graph is one that the quantiser understands; it warns of its age.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Calibrated(network.cpu(), temperature).eval(),
            (example, example),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=["probs"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "probs": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into ``folder``."""
    (folder / MANIFEST_FILE).write_bytes(orjson.dumps(manifest.to_dict(), option=orjson.OPT_INDENT_2) + b"\n")


def check_target(out: Path, *, overwrite: bool) -> None:
    """Check that a model may be written to ``out``.

    Raises:
        InvalidInput: something is there already and ``overwrite`` is not set, or it is no model directory.
    """
    if not out.exists():
        return
    if not overwrite:
        raise InvalidInput(f"out: {out} exists already; name another directory, or say that it may be overwritten")
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST_FILE).exists()):
        raise InvalidInput(f"out: {out} is not a model directory, so it is not overwritten")


@contextmanager
def staged(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary directory that becomes ``out``, all at once, when the block ends without an error.

    Raises:
        InvalidInput: as :func:`check_target`.
    """
    check_target(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        fresh, old = Path(folder) / "new", Path(folder) / "old"
        fresh.mkdir()
        yield fresh
        check_target(out, overwrite=overwrite)
        if out.exists():
            out.rename(old)
        fresh.rename(out)


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that shape a model."""
    return {name: metadata.version(name) for name in _LIBRARIES}
