"""What libraries do unasked when they are imported, and how to keep them from it."""

from __future__ import annotations

import os


def no_telemetry() -> None:
    """Switch ONNX Runtime's telemetry off, unless the environment decides otherwise. Call it before the import.

    It would keep an event log in the home directory, and knows an address to send it to.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def no_idle_threads() -> None:
    """Keep NumPy's BLAS to one thread, unless the environment decides otherwise. Call it before the import.

    It would start a thread for each core, which spin at first and take the cores from whatever starts with us. ONNX
    Runtime does the multiplying, with threads of its own.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
