"""ONNX Runtime keeps an event log in the home directory and knows an address to send it to. Not here."""

from __future__ import annotations

import os


def no_telemetry() -> None:
    """Switch ONNX Runtime's telemetry off, unless the environment decides otherwise. Call it before the import."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
