"""One JSON object a line, with whose it is, and without secrets."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tasks import logs
from tasks.access.redact import Redactor
from tasks.log import bound, bound_fields, get_logger

SECRET = "hunter2hunter2"
log = get_logger()


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("sluice")
    before = root.handlers[:], root.level, ours.level
    hook = sys.excepthook
    yield
    sys.excepthook = hook
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


class Lines:
    """What was logged since the last look."""

    def __init__(self) -> None:
        self._stream = io.StringIO()

    def configure(self, level: str = "INFO", *fields: str) -> None:
        logs.configure(level, Redactor(fields))
        [handler] = logging.getLogger().handlers
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(self._stream)

    def all(self) -> list[dict[str, Any]]:
        said = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        self._stream.seek(0)
        self._stream.truncate()
        return said

    def one(self) -> dict[str, Any]:
        [line] = self.all()
        return line


@pytest.fixture
def lines() -> Lines:
    lines = Lines()
    lines.configure("INFO", "password", "api_key")
    return lines


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", Redactor([]))
    log.info("a")
    log.info("b")
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["a", "b"]


def test_a_line_is_an_event_with_its_fields(lines: Lines) -> None:
    log.info("worker ready", worker="w1", running=3, ratio=0.5, none=None, names=["a"])
    line = lines.one()
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() == timedelta(0)
    assert line == {
        "event": "worker ready",
        "level": "info",
        "worker": "w1",
        "running": 3,
        "ratio": 0.5,
        "none": None,
        "names": ["a"],
    }


def test_every_level_has_its_name(lines: Lines) -> None:
    log.debug("left out")
    log.info("a")
    log.warning("b")
    log.error("c")
    assert [(line["event"], line["level"]) for line in lines.all()] == [("a", "info"), ("b", "warning"), ("c", "error")]


def test_a_level_that_is_asked_for_is_shown(lines: Lines) -> None:
    lines.configure("DEBUG")
    log.debug("shown")
    assert lines.one()["level"] == "debug"
    lines.configure("ERROR")
    log.warning("hidden")
    assert lines.all() == []


@pytest.mark.parametrize(("level", "traced"), [("INFO", False), ("DEBUG", True)])
def test_a_failure_that_was_foreseen_is_one_line_and_has_its_traceback_at_debug(
    lines: Lines, level: str, traced: bool
) -> None:
    lines.configure(level)
    try:
        int("it broke")
    except ValueError as error:
        log.failure("failed, trying again", error, attempt=1)
    line = lines.one()
    assert (line["event"], line["level"], line["attempt"]) == ("failed, trying again", "error", 1)
    assert line["error"] == "invalid literal for int() with base 10: 'it broke'"
    assert ("exception" in line) is traced


def test_an_exception_is_text_with_its_traceback(lines: Lines) -> None:
    try:
        int("it broke")
    except ValueError:
        log.exception("failed", attempt=1)
    line = lines.one()
    assert (line["event"], line["level"], line["attempt"]) == ("failed", "error", 1)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: invalid literal for int() with base 10: 'it broke'")


def test_secrets_are_redacted_wherever_they_are(lines: Lines) -> None:
    class Holder:
        def __repr__(self) -> str:
            return f"Holder(password={SECRET})"

    said = f"password={SECRET}"
    try:
        int(f"api_key={SECRET}")
    except ValueError:
        log.exception(said, password=SECRET, deep={"api_key": [SECRET]}, thing=Holder())
    logging.getLogger("celery").warning("password=%s", SECRET)
    ours, theirs = lines.all()
    assert SECRET not in json.dumps([ours, theirs])
    assert ours["password"] == "[redacted]"
    assert ours["thing"] == "Holder(password=[redacted]"
    assert theirs["event"] == "password=[redacted]"


def test_whose_line_it_is_is_never_taken_for_a_secret(lines: Lines) -> None:
    lines.configure("INFO", "request", "tenant", "level", "event")
    with bound(request_id="4111111111111111", tenant="t1"):
        log.info("x")
    line = lines.one()
    assert (line["request_id"], line["tenant"], line["level"]) == ("4111111111111111", "t1", "info")


@pytest.mark.parametrize("name", ["celery.worker", "kombu", "asyncio"])
def test_other_libraries_are_heard_from_warning(lines: Lines, name: str) -> None:
    logging.getLogger(name).info("chatter")
    with bound(request_id="r1", tenant="t1"):
        logging.getLogger(name).warning("slow by %d s", 3)
    line = lines.one()
    line.pop("timestamp")
    assert line == {"event": "slow by 3 s", "logger": name, "level": "warning", "request_id": "r1", "tenant": "t1"}


async def test_each_task_has_its_own_fields(lines: Lines) -> None:
    async def attempt(request_id: str) -> None:
        with bound(request_id=request_id, tenant="t"):
            await asyncio.sleep(0)
            log.info("before")
            with bound(tool="sql"):
                await asyncio.sleep(0)
                await asyncio.create_task(asyncio.to_thread(log.info, "inside"))
            log.info("after")

    await asyncio.gather(*(attempt(f"r{number}") for number in range(5)))
    said = lines.all()
    for number in range(5):
        own = [(line["event"], line.get("tool")) for line in said if line["request_id"] == f"r{number}"]
        assert own == [("before", None), ("inside", "sql"), ("after", None)]
    assert dict(bound_fields()) == {}


def test_what_was_bound_is_unbound_after_an_error(lines: Lines) -> None:
    with pytest.raises(ValueError, match="x"), bound(request_id="r1"):
        raise ValueError("x")
    log.info("after")
    assert "request_id" not in lines.one()


def test_a_field_of_the_line_wins_over_a_bound_one(lines: Lines) -> None:
    with bound(request_id="r1"):
        log.info("x", request_id="r2")
    assert lines.one()["request_id"] == "r2"


def test_a_process_with_logs_of_its_own_gets_a_readable_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sluice"), bound(tenant="t1"):
        log.info("worker ready", pool="intent")
    [record] = caplog.records
    assert record.getMessage() == "worker ready tenant='t1' pool='intent'"
    assert record.filename == "test_logs.py"


def test_what_nobody_catches_is_redacted_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    logs.configure("INFO", Redactor(["password"]))
    try:
        raise RuntimeError(f"password={SECRET}")  # noqa: TRY301  the traceback is wanted
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):")
    assert "password=[redacted]" in said
    assert SECRET not in said
