"""Model directories for tests: ones that only look right, and the packaged one under another version."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson

from intent.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, content_digest, default_dir
from tasks.contracts.base import sha256


def write_manifest(folder: Path, **values: Any) -> str:
    """Write a manifest that vouches for the files in ``folder``; return its version."""
    manifest = {
        "labels": ["plan_task", "out_of_scope"],
        "threshold": 0.5,
        "temperature": 1.0,
        "max_length": 16,
        "base": "fake",
        **values,
        "files": {name: sha256((folder / name).read_bytes()) for name in (MODEL_FILE, TOKENIZER_FILE)},
    }
    decisive = (manifest[name] for name in ("files", "labels", "threshold", "temperature", "max_length"))
    files, labels, threshold, temperature, max_length = decisive
    version = f"{manifest['base']}-{content_digest(files, tuple(labels), threshold, temperature, max_length)}"
    (folder / MANIFEST_FILE).write_bytes(orjson.dumps({**manifest, "version": version}))
    return version


def fake(folder: Path, graph: bytes = b"graph", **values: Any) -> str:
    """Make a directory that verifies and holds no model; return its version."""
    folder.mkdir()
    (folder / MODEL_FILE).write_bytes(graph)
    (folder / TOKENIZER_FILE).write_bytes(b"tokenizer")
    return write_manifest(folder, **values)


def variant(folder: Path, threshold: float = 0.5, **values: Any) -> str:
    """Copy the packaged model with another threshold: it answers alike, under another version."""
    shutil.copytree(default_dir(), folder)
    standing = orjson.loads((folder / MANIFEST_FILE).read_bytes())
    return write_manifest(folder, **{**standing, "base": "minilm", "threshold": threshold, **values})
