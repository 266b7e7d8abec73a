"""What the code says: an event and its fields. Where the lines go is decided by :func:`tasks.logs.configure`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

LOGGER: Final = "sluice"
"""The standard library's logger behind every :class:`Log`."""

_bound: ContextVar[Mapping[str, Any]] = ContextVar("sluice_log_fields", default=MappingProxyType({}))


class Entry:
    """The message of a log record: an event, its own fields, and those that were bound where it was said."""

    __slots__ = ("bound", "event", "fields")

    def __init__(self, event: str, fields: Mapping[str, Any], bound: Mapping[str, Any]) -> None:
        self.event = event
        self.fields = fields
        self.bound = bound

    def __str__(self) -> str:
        """Return one line for a handler that knows nothing of fields."""
        return " ".join([self.event, *(f"{name}={value!r}" for name, value in {**self.bound, **self.fields}.items())])


class Log:
    """Says events. A level that is off costs one look-up."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, /, **fields: Any) -> None:
        """Say what only a search for a fault needs."""
        self._say(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Say what happened as it should."""
        self._say(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Say what went wrong and was mended."""
        self._say(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Say what went wrong."""
        self._say(logging.ERROR, event, fields)

    def failure(self, event: str, error: Exception, /, **fields: Any) -> None:
        """Say in one line that ``error`` was met, which was foreseen and will pass; at DEBUG with its traceback."""
        self._say(
            logging.ERROR, event, {**fields, "error": str(error)}, traceback=self._logger.isEnabledFor(logging.DEBUG)
        )

    def exception(self, event: str, /, **fields: Any) -> None:
        """Say what went wrong, with the traceback of the exception at hand."""
        self._say(logging.ERROR, event, fields, traceback=True)

    def _say(self, level: int, event: str, fields: Mapping[str, Any], *, traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, Entry(event, fields, _bound.get()), exc_info=traceback, stacklevel=3)


def get_logger() -> Log:
    """Return what a module logs with."""
    return Log(logging.getLogger(LOGGER))


@contextlib.contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add ``fields`` to every line that is said inside the block, by this task and those that it starts."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> Mapping[str, Any]:
    """Return the fields that are bound here."""
    return _bound.get()
