"""Nobody waits in real time."""

import pytest

from tasks.audit import stream


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_SPACING_SECONDS", 0.0)
    monkeypatch.setattr(stream, "_CROWD_SECONDS", 0.0)
