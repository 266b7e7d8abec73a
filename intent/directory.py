"""Writing model directories: all at once, and with another head. Needs ONNX, and no PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from intent.manifest import MANIFEST_FILE, PROBABILITIES, Manifest
from tasks.errors import InvalidInput, TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from intent.head import Head

_LIBRARIES: Final = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy")


def replace_head(file: Path, head: Head) -> None:
    """Give the graph in ``file`` another head.

    Raises:
        TrainingError: the graph is of an older export, whose head has no names.
    """
    import onnx

    graph = onnx.load(file)
    held = {initializer.name: initializer for initializer in graph.graph.initializer}
    for name, value in head_numbers(head).items():
        if name not in held:
            raise TrainingError(f"{file}: its head has no name: train it again")
        held[name].CopyFrom(onnx.numpy_helper.from_array(value.astype("float32"), name))
    for output in graph.graph.output:
        if output.name == PROBABILITIES:
            output.type.tensor_type.shape.dim[1].dim_value = len(head.linear[1])
    del graph.graph.value_info[:]
    onnx.save(graph, file)


def head_numbers(head: Head) -> dict[str, NDArray[np.float64]]:
    """Return what the graph's head consists of, by name; :class:`intent.network.Exported` says what for."""
    import numpy as np

    weight, bias = head.linear
    outside = np.zeros(len(bias))
    if head.outside is not None:
        outside[head.outside] = head.scale / head.temperature
        bias = bias.copy()
        bias[head.outside] += head.shift
    return {
        "head_weight": weight.T / head.temperature,
        "head_bias": bias / head.temperature,
        "far_basis": head.distance.basis,
        "far_centres": -2 * head.distance.centres,
        "far_offsets": head.distance.offsets,
        "far_outside": outside,
    }


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
    """Return the versions of those libraries that shape a model and are installed."""
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
