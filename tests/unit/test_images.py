"""The Dockerfile runs the steps of images/build.sh and nothing else; what it installs is what is tested here."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from scaling.kube.pools import plans
from scaling.kube.workloads import ALIVE_COMMAND
from tasks.settings import Settings

ROOT = Path(__file__).parents[2]
STAGES = ("intent-cpu", "intent-gpu", "agent", "handlers")
PREFIX = "/opt/sluice"
FORBIDDEN = {
    "intent-cpu": {"autogen-core", "openai", "sqlglot", "protobuf"},
    "intent-gpu": {"autogen-core", "openai", "sqlglot", "onnxruntime"},
    "agent": {"onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy"},
    "handlers": {"onnxruntime", "tokenizers", "numpy", "autogen-core", "openai"},
}
PIN = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)


def stages() -> dict[str, list[tuple[str, str]]]:
    """The stages of the Dockerfile by name, each its instructions; the first says what it is from."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {"": []}
    current = ""
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            origin, _, current = rest.partition(" AS ")
            found[current] = [("FROM", origin)]
        elif word and not word.startswith("#"):
            found[current].append((word, rest.strip()))
    return found


def pins(file: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / file).read_text()))


def test_each_image_has_a_stage_that_builds_it() -> None:
    found = stages()
    assert {plan.image for plan in plans(Settings())} | {"intent-gpu", "handlers"} == set(STAGES)
    assert found["tools"].count(("RUN", '["images/build.sh", "tools"]')) == 1
    for stage in STAGES:
        assert found[f"build-{stage}"] == [
            ("FROM", "tools"),
            ("COPY", f"images/{stage}.lock images/"),
            ("RUN", json.dumps(["images/build.sh", "dependencies", stage, PREFIX])),
            ("COPY", ". ."),
            ("RUN", json.dumps(["images/build.sh", "project", stage, PREFIX])),
        ]
        assert ("COPY", f"--from=build-{stage} {PREFIX} {PREFIX}") in found[stage]


def test_nothing_runs_but_the_steps() -> None:
    script = (ROOT / "images/build.sh").read_text()
    steps = set(re.findall(r"^(\w+)\(\) \{", script, re.MULTILINE)) - {"check"}
    run = [json.loads(rest) for lines in stages().values() for word, rest in lines if word == "RUN"]
    assert {command[1] for command in run} == steps == {"tools", "dependencies", "project"}
    assert "tools && dependencies && project ;;" in script  # what the tests build is made of the same


def test_images_are_pinned_and_run_as_nobody() -> None:
    found = stages()
    [(_, base)] = found[""]
    assert re.fullmatch(r"PYTHON=python:\d+\.\d+\.\d+-slim-\w+", base)
    origins = {name: lines[0][1] for name, lines in found.items() if name}
    assert set(origins.values()) <= {"${PYTHON}", *found}
    for stage in STAGES:
        lines, above = found[stage], origins[stage]
        while above in found:
            lines, above = [*found[above], *lines], origins[above]
        words = dict(lines)
        assert words["USER"] == "65532:65532"
        assert "HEALTHCHECK" in words
        assert words["ENTRYPOINT"] in ('["sluice"]', '["python", "-m", "awslambdaric"]')


def test_the_health_check_is_the_probe() -> None:
    checks = [rest for lines in stages().values() for word, rest in lines if word == "HEALTHCHECK"]
    assert [check.partition("CMD ")[2] for check in checks if check != "NONE"] == [json.dumps([*ALIVE_COMMAND])]


@pytest.mark.parametrize("stage", STAGES)
def test_a_lock_has_what_is_asked_for_and_nothing_else(stage: str) -> None:
    lines = (ROOT / f"images/{stage}.in").read_text().splitlines()
    wanted = {re.split(r"[\[<>=]", line)[0] for line in lines if line and not line.startswith("#")}
    locked = pins(f"images/{stage}.lock")
    assert wanted <= set(locked)
    assert not FORBIDDEN[stage] & set(locked)


@pytest.mark.parametrize("stage", STAGES)
def test_locks_agree_with_that_of_the_project(stage: str) -> None:
    """After ``make lock`` they do. A package may stand twice there, for two versions of Python."""
    ours = PIN.findall((ROOT / "requirements.lock").read_text())
    known = {name for name, _ in ours}
    assert [(name, pin) for name, pin in pins(f"images/{stage}.lock").items() if name in known and (name, pin) not in ours] == []  # fmt: skip # noqa: E501


def test_what_is_copied_is_what_is_built_from() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    packages = re.search(r"packages = \[(.*)\]", (ROOT / "pyproject.toml").read_text())
    assert packages
    assert set(re.findall(r'"(\w+)"', packages[1])) <= set(kept)


def alive(file: Path) -> int:
    environment = {**os.environ, "SLUICE_LEASES__ALIVE_FILE": str(file)}
    return subprocess.run([ROOT / "images/alive.sh"], env=environment, check=False, capture_output=True).returncode


def test_alive_is_who_touched_the_file_lately(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    assert alive(file) != 0
    file.touch()
    assert alive(file) == 0
    long_ago = time.time() - 121
    os.utime(file, (long_ago, long_ago))
    assert alive(file) != 0
