"""Structured logs: one JSON object a line on standard error, with the request id, redacted."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from traceback import format_exception
from types import TracebackType
from typing import Any, Final

from tasks.access.redact import Redactor
from tasks.log import LOGGER, Entry, bound_fields

_OURS: Final = frozenset({"request_id", "tenant"})
"""Fields that say whose line it is: never taken for a secret."""


class JsonLines(logging.Formatter):
    """One JSON object for each record. A record of another library has its ``logger`` too."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return ``record`` as one line."""
        entry = record.msg
        text = self._redactor.text
        line: dict[str, Any]
        if isinstance(entry, Entry):
            line = self._safe({**entry.bound, **entry.fields}) | {"event": text(entry.event)}
        else:
            line = {"event": text(record.getMessage()), "logger": record.name, **self._safe(bound_fields())}
        line["level"] = record.levelname.lower()
        line["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        if record.exc_info:
            line["exception"] = text(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: text(repr(value)))

    def _safe(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in fields.items() if name not in _OURS}
        return {**self._redactor.value(others), **{name: fields[name] for name in fields.keys() & _OURS}}


def configure(level: str, redactor: Redactor) -> None:
    """Send this process's logs to standard error: ours from ``level``, other libraries' from WARNING at least.

    What nobody catches ends there too, redacted. Call it once, at the start of a command.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    number = logging.getLevelNamesMapping()[level]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(LOGGER).setLevel(number)
    # Its errors quote the conversation; they come to us too, and we say what failed.
    logging.getLogger("autogen_core").setLevel(logging.CRITICAL)

    def uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        sys.stderr.write(redactor.text("".join(format_exception(kind, error, traceback))))

    sys.excepthook = uncaught
