"""Tools that an installed package brings: found by the name that settings use, and nothing else of it imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WEATHER = '''
"""A package with one tool."""
from tasks.agents.tools import ToolContext, ToolError, tool

@tool(read_only=True)
async def weather(city: str) -> dict[str, float]:
    """The temperature in a city."""
    if city == "Atlantis":
        raise ToolError("there is no such city")
    return {"celsius": 7.5}

def rude(city) -> str:
    """Say."""
    return city
'''

ASK = """
import asyncio, json, sys
from tasks.agents.types import AgentTask
from tasks.settings_load import load
from tests.support.replay import ReplayModels, runner, wants_all

settings = load()
agent = settings.agent("executor")
asked = [("weather", {"city": "Oslo"}), ("weather", {"city": "Atlantis"}), ("weather", {"town": 1})]
models = ReplayModels(wants_all(*asked), "done", "done")
answer = asyncio.run(runner(settings, models).run(AgentTask(agent=agent, text="?")))
ok = [step.ok for step in answer.steps]
print(json.dumps({"read": models.read, "ok": ok, "others": "other_tools" in sys.modules}))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with two installed distributions: their modules, and what an installer writes beside them."""
    site = tmp_path / "site"
    for name, module, points in (
        ("weather-tools", WEATHER, "weather = weather_tools:weather\nrude = weather_tools:rude"),
        ("other-tools", "raise RuntimeError('imported')", "other = other_tools:other\nbroken = other_tools:broken"),
    ):
        folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[sluice.tools]\n{points}\n")
        (folder / "RECORD").write_text("")
        (site / f"{name.replace('-', '_')}.py").write_text(textwrap.dedent(module))
    return site


def run(code: list[str], site: Path, folder: Path, *, tools: str) -> subprocess.CompletedProcess[str]:
    (folder / "pipeline.yaml").write_text(f"agents:\n  - {{type: executor, tools: [{tools}]}}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    environment |= {"PYTHONPATH": f"{ROOT}:{site}", "SLUICE_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, *code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_named_tool_of_an_installed_package_is_called_and_its_neighbours_are_not_imported(
    installed: Path, tmp_path: Path
) -> None:
    ran = run(["-c", ASK], installed, tmp_path, tools="weather")
    assert ran.returncode == 0, ran.stderr
    assert '"others": false' in ran.stdout
    assert '"ok": [true, false, false]' in ran.stdout
    assert '{\\"celsius\\":7.5}' in ran.stdout
    assert "Error: there is no such city" in ran.stdout
    assert "town: Extra inputs are not permitted" in ran.stdout


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ("wether", "agents.executor.tools: there is no tool 'wether', did you mean weather?"),
        ("rude", "tool 'rude' of weather-tools 1.0: parameter city has no type hint"),
        ("broken", "tool 'broken' of other-tools 1.0 cannot be imported: imported"),
    ],
)
def test_a_tool_that_is_not_there_or_no_good_is_an_error_at_start(
    installed: Path, tmp_path: Path, tools: str, problem: str
) -> None:
    check = "from tasks.settings_load import load; from tasks.agents.tools.registry import ToolRegistry\n"
    check += "settings = load(); ToolRegistry(settings.tools).check(settings.agent('executor'))"
    ran = run(["-c", check], installed, tmp_path, tools=tools)
    assert problem in ran.stderr
