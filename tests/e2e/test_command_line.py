"""The command line as a person meets it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.processes import Processes
from tasks import keys
from tasks.settings import Settings
from tests.e2e.conftest import Fleet


def sluice(*arguments: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "handlers.cli.main", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=120,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture
def workers(fleet: Fleet, settings: Settings) -> Fleet:
    for pool in settings.pools:
        fleet.worker(pool)
    return fleet


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([""], "text"),
        (["   "], "text"),
        (["hello", "--tenant", "a/b"], "tenant"),
        (["hello", "--tenant", ""], "tenant"),
        (["hello", "--id", "with space"], "id"),
        (["hello", "--id", "ends.r2"], "id"),
        (["hello", "--deadline", "tomorrow"], "deadline"),
        (["hello", "--intent", "make_coffee"], "intent"),
        (["hello", "--metadata", "{"], "metadata"),
        (["hello", "--metadata", "[]"], "metadata"),
    ],
)
def test_bad_input_names_the_field_and_ends_with_two(settings: Settings, arguments: list[str], named: str) -> None:
    done = sluice("submit", *arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_lines_are_named_and_do_not_disturb_the_good_ones(
    settings: Settings, workers: Fleet, tmp_path: Path
) -> None:
    tenant = f"lines-{time.time_ns()}"
    lines = [
        {"id": "one", "text": "What is the capital of Norway?"},
        {"text": ""},
        {"text": "x" * 2_000_000},
        {"text": "fine", "colour": "blue"},
        {"text": 7},
        "{broken",
        {"text": "What?", "tenant": "no/slash"},
        {"id": "one", "text": "Another body under the same id"},
        {"id": "one", "text": "What is the capital of Norway?"},
        {"id": "two", "text": "How do volcanoes form?"},
        [1, 2],
    ]
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n\n")
    done = sluice("submit", "--file", str(file), "--tenant", tenant, "--json", "--timeout", "90")
    assert done.returncode == 2, done.stderr
    answer = json.loads(done.stdout)
    named = {error["line"]: error["error"].partition(":")[0] for error in answer["errors"]}
    assert named == {2: "text", 3: "text", 4: "colour", 5: "text", 6: "line", 7: "tenant", 8: "id", 11: "line"}
    assert answer["ids"] == ["one", "one", "two"]
    assert sum(answer["statuses"].values()) == 2


def test_a_request_and_its_result(settings: Settings, workers: Fleet) -> None:
    done = sluice("submit", "What is a webhook?", "--tenant", "acme", "--wait", "--timeout", "60", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["tenant"], result["agent"]["type"]) == ("succeeded", "acme", "responder")
    assert "no language model" in result["agent"]["model"]
    again = sluice("result", result["request_id"], "--tenant", "acme", "--json")
    assert json.loads(again.stdout) == result
    shown = json.loads(sluice("audit", "show", result["request_id"], "--json").stdout)
    assert [record["action"] for record in shown] == [
        "request.accepted",
        "intent.routed",
        "agent.started",
        "result.written",
    ]
    assert sluice("audit", "verify").returncode == 0


def test_a_tool_is_really_called(settings: Settings, workers: Fleet) -> None:
    text = "Run SELECT COUNT(*) AS n FROM customers and tell me the number"
    done = sluice("submit", text, "--intent", "query_data", "--wait", "--timeout", "60", "--json")
    result = json.loads(done.stdout)
    assert result["usage"]["tool_calls"] == 1
    shown = json.loads(sluice("audit", "show", result["request_id"], "--json").stdout)
    assert "tool:sql_parser" in [record["resource"] for record in shown]


def test_an_unknown_result_and_one_that_takes_too_long(settings: Settings) -> None:
    unknown = sluice("result", "never-submitted", "--json")
    assert (unknown.returncode, json.loads(unknown.stdout)["error"]["code"]) == (1, "not_found")
    slow = sluice("submit", "Nobody serves this", "--wait", "--timeout", "0.5")
    assert slow.returncode == 4
    assert "not done" in slow.stderr


def test_a_stack_that_is_not_there_is_an_error_with_a_mend(settings: Settings) -> None:
    done = sluice("submit", "hello", SLUICE_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 3
    assert "sluice up" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_configuration_names_file_and_key(settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text("agents: [{type: planner, modle: x}]")
    done = sluice("--config", str(config), "status")
    assert done.returncode == 2
    assert "broken.yaml" in done.stderr
    assert "agents.0.modle" in done.stderr


def test_intent_classify(settings: Settings) -> None:
    done = sluice("intent", "classify", "How many orders were late in May?", "I want a human", "--json")
    rows = json.loads(done.stdout)
    assert [(row["intent"], row["agent"]) for row in rows] == [
        ("query_data", "executor"),
        ("talk_to_human", "human_escalation"),
    ]
    assert set(rows[0]) == {"text", "intent", "confidence", "agent", "model_version"}


def test_intent_evaluate(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(
        '{"text":"Translate this letter","intent":"draft_text"}\n{"text":"Call me","intent":"talk_to_human"}\n'
    )
    report = json.loads(sluice("intent", "evaluate", str(file), "--json").stdout)
    assert {"n", "accuracy", "macro_f1", "per_intent", "p50_ms", "p99_ms"} <= set(report)
    assert report["n"] == 2
    file.write_text('{"text":"x","intent":"draft_text"}\n{"text":"Call me","intent":"nonsense"}\n')
    bad = sluice("intent", "evaluate", str(file))
    assert bad.returncode == 2
    assert "examples.jsonl:2" in bad.stderr


def test_doctor_and_status(settings: Settings, workers: Fleet) -> None:
    report = json.loads(sluice("doctor", "--json").stdout)
    levels = {finding["name"]: finding["level"] for finding in report["findings"]}
    assert levels["redis"] == levels["data bucket"] == levels["audit bucket"] == levels["intent model"] == "ok"
    seen = json.loads(sluice("status", "--json").stdout)
    assert [pool["pool"] for pool in seen["pools"]] == list(settings.pools)
    assert seen["model_version"].startswith("minilm-")


def test_a_lone_worker_needs_a_real_pool(settings: Settings) -> None:
    done = sluice("worker", "--pool", "agents.nobody")
    assert done.returncode == 2
    assert keys.agent_pool("planner") in done.stderr


@pytest.mark.slow
def test_what_died_of_the_stack_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLUICE_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))

    def running() -> dict[str, int]:
        return {one.name: one.pid for one in Processes(tmp_path / "home").all()}

    assert sluice("up").returncode == 0
    try:
        before, killed = running(), {"redis", "scheduler", "sealer"}
        for name in killed:
            os.kill(before[name], signal.SIGKILL)
        end = time.monotonic() + 60
        while (after := running()).keys() < before.keys() or any(after[name] == before[name] for name in killed):
            assert time.monotonic() < end, after
            time.sleep(0.2)
        assert {name for name in before if after[name] != before[name]} == killed
        done = sluice("submit", "What is a webhook?", "--wait", "--timeout", "90")
        assert done.returncode == 0, done.stderr
    finally:
        assert sluice("down", "--purge").returncode == 0
    assert running() == {}
