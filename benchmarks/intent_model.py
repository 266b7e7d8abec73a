"""The real classifier, on one core: what its runs cost, and nothing around it."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from intent.classifier import Classifier
from intent.encoding import Encoder
from intent.manifest import MODEL_FILE, TOKENIZER_FILE, default_dir
from tasks.errors import NotReady

TEXT: Final = "How many orders were late last week in Spain?"
"""Twelve tokens, special ones included."""
LENGTHS: Final = (4, 8, 12, 24, 48)
COUNTS: Final = (1, 2, 4, 8, 16)
REPEATS: Final = 9


def pin() -> None:
    """Keep this process, and every thread it starts, on one core: the last it may use."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


class Core:
    """The core that this process is pinned to, since this object was made."""

    def __init__(self) -> None:
        self._number = max(os.sched_getaffinity(0))
        self._begun, self._busy, self._own = time.perf_counter(), self._spent(), time.process_time()

    def others(self) -> float:
        """Return the share (0..1) of the core that other processes took: next to nothing on a quiet machine."""
        taken = self._spent() - self._busy - (time.process_time() - self._own)
        return max(taken / (time.perf_counter() - self._begun), 0.0)

    def _spent(self) -> float:
        stat = Path("/proc/stat").read_text().splitlines()
        fields = next(line.split() for line in stat if line.startswith(f"cpu{self._number} "))
        # All but idle and iowait: user, nice, system, irq, softirq, steal.
        return sum(int(fields[place]) for place in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def fitted(model_dir: Path | None) -> tuple[float, float]:
    """Return the least-squares seconds for a padded token and for a run, on one core."""
    pin()
    classifier = Classifier.load(model_dir)
    row = classifier.encode(TEXT)
    points = []
    for length in LENGTHS:
        for count in COUNTS:
            rows = [(row * 5)[:length]] * count
            points.append((length * count, median_seconds(partial(classifier.classify_ids, rows), REPEATS)))
    found = statistics.linear_regression([tokens for tokens, _ in points], [seconds for _, seconds in points])
    return found.slope, found.intercept


def bare_session(provider: str, model_dir: Path | None) -> tuple[Callable[[Sequence[str]], object], str]:
    """Return what tokenises texts and runs them as one batch, with nothing around it; and the device's name.

    Raises:
        NotReady: ONNX Runtime has no such provider here.
    """
    classifier = Classifier.load(model_dir)  # which checks the files, too
    directory = model_dir or default_dir()
    encoder = Encoder((directory / TOKENIZER_FILE).read_bytes(), classifier.manifest.max_length)
    session = classifier._session if provider == "cpu" else _cuda(directory)  # noqa: SLF001  (as the product makes it)

    def run(texts: Sequence[str]) -> object:
        ids, mask = encoder.inputs([encoder.ids(text) for text in texts])
        return session.run(None, {"input_ids": ids, "attention_mask": mask})

    return run, _processor() if provider == "cpu" else _gpu()


def _cuda(directory: Path) -> Any:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotReady("ONNX Runtime has no CUDAExecutionProvider here: it takes a GPU and pip install 'sluice[gpu]'")
    session = onnxruntime.InferenceSession(str(directory / MODEL_FILE), providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise NotReady("ONNX Runtime could not use the GPU: what it said stands above")
    return session


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "the processor")


def _gpu() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "the GPU"
