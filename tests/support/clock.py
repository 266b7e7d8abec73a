"""A clock that a test turns."""

from datetime import datetime, timedelta

from tests.support import build


class Clock:
    """Stands until a test turns it."""

    def __init__(self) -> None:
        self.time = build.EPOCH

    def __call__(self) -> datetime:
        return self.time

    @property
    def seconds(self) -> float:
        return self.time.timestamp()

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
