"""What a model directory says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from tasks.contracts.base import Contract, Label, canonical, sha256, told
from tasks.errors import IntegrityError, NotReady

MODEL_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
PROBABILITIES: Final = "probs"
"""The graph's first output: calibrated probabilities, float32 ``[n, labels]``."""
POOLED: Final = "pooled"
"""Its second output: what the head sees, float32 ``[n, hidden]``."""
MANIFEST_FILE: Final = "manifest.json"
HALF: Final = "fp16"
"""The ``precision`` in the recipe of a graph that is made for GPUs."""

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Manifest(Contract, frozen=True, kw_only=True, omit_defaults=False):
    """The ``manifest.json`` of a model directory.

    ``labels`` are in the order of the graph's outputs. ``threshold`` and the graph's outputs are
    probabilities, 0..1; ``temperature`` is already inside the graph and recorded here. ``max_length`` is in
    tokens. ``files`` maps file names to SHA-256. ``version`` ends in a digest of everything that decides a
    prediction.
    """

    version: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]*-[0-9a-f]{12}\Z")]
    labels: Annotated[tuple[Label, ...], Meta(min_length=2)]
    threshold: Annotated[float, Meta(ge=0, le=1)]
    temperature: Annotated[float, Meta(gt=0)]
    max_length: Annotated[int, Meta(ge=8, le=512)]
    base: str
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    parity: dict[str, Any] = msgspec.field(default_factory=dict)
    recipe: dict[str, Any] = msgspec.field(default_factory=dict)
    data: dict[str, Digest] = msgspec.field(default_factory=dict)
    libraries: dict[str, str] = msgspec.field(default_factory=dict)
    files: dict[str, Digest]

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels are not unique")
        if set(self.files) != {MODEL_FILE, TOKENIZER_FILE}:
            raise ValueError(f"files must name {MODEL_FILE} and {TOKENIZER_FILE}, nothing else")


def content_digest(
    files: dict[str, str], labels: tuple[str, ...], threshold: float, temperature: float, max_length: int
) -> str:
    """Return 12 hexadecimal digits that stand for everything that decides a prediction."""
    decisive = [files, list(labels), threshold, temperature, max_length]
    return sha256(canonical(decisive))[:12]


def default_dir() -> Path:
    """Return the directory of the model that comes with the package."""
    return Path(__file__).parent / "model"


def check_model(model_dir: Path) -> tuple[Manifest, bytes]:
    """Check the files of ``model_dir`` against their digests; return the manifest and the tokeniser.

    Raises:
        NotReady: a file is missing or cannot be read.
        IntegrityError: the manifest is malformed, or a file is not the one it vouches for.
    """
    manifest = read_manifest(model_dir)
    checked(model_dir, MODEL_FILE, manifest)
    return manifest, checked(model_dir, TOKENIZER_FILE, manifest)


def read_manifest(model_dir: Path) -> Manifest:
    """Return the manifest of ``model_dir``; raises as :func:`check_model`."""
    manifest = _parse(model_dir, _read(model_dir, MANIFEST_FILE))
    expected = content_digest(
        manifest.files, manifest.labels, manifest.threshold, manifest.temperature, manifest.max_length
    )
    if not manifest.version.endswith(f"-{expected}"):
        raise IntegrityError(
            f"{model_dir / MANIFEST_FILE}: version {manifest.version} does not match its content, "
            f"which ends in {expected}"
        )
    return manifest


def checked(model_dir: Path, name: str, manifest: Manifest) -> bytes:
    """Return a file that ``manifest`` vouches for; raises as :func:`check_model`."""
    data = _read(model_dir, name)
    found = sha256(data)
    if found != manifest.files[name]:
        raise IntegrityError(f"{model_dir / name}: SHA-256 is {found}, the manifest says {manifest.files[name]}")
    return data


def _parse(model_dir: Path, data: bytes) -> Manifest:
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{model_dir / MANIFEST_FILE}: {told(error)}") from error


def _read(model_dir: Path, name: str) -> bytes:
    try:
        return (model_dir / name).read_bytes()
    except OSError as error:
        raise NotReady(
            f"no classifier at {model_dir}: {name} cannot be read ({error.strerror}); "
            "reinstall the package, or train one with `sluice intent train`"
        ) from error
