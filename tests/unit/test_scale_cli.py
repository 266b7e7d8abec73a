"""``sluice scale``, traces, and what Terraform made."""

import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner

import handlers.cli.scale
from handlers.cli.main import cli
from scaling.kube.pools import plans
from scaling.kube.provisioned import from_terraform
from scaling.kube.workloads import account_name
from scaling.measured import service_of
from scaling.simulate import Service
from scaling.traces import BUILT_IN, arrivals
from tasks.errors import InvalidInput, NotReady
from tasks.settings_load import load

RENDERED = Path("terraform/check/rendered.json")
SAMPLE = Path("terraform/check/sample.yaml")


@pytest.fixture
def outputs() -> bytes:
    """What ``terraform output -json`` says of the sample."""
    return orjson.dumps({"sluice": {"value": orjson.loads(RENDERED.read_bytes())["outputs"]}})


def test_what_terraform_made_is_what_the_pools_need(outputs: bytes) -> None:
    has, made = from_terraform(outputs, tag="1"), orjson.loads(outputs)["sluice"]["value"]["pools"]
    for plan in plans(load(SAMPLE)):
        assert made[plan.pool]["kubernetes_name"] == plan.name
        assert made[plan.pool]["service_account"] == account_name(plan.name)
        assert has.role_arns[plan.pool].startswith("arn:aws:iam::")
        assert has.environment[plan.pool]["SLUICE_BROKER_URL"].startswith("sqs://")
        assert plan.image in has.images
    assert has.queue_urls["requests.high"].endswith("/acme-requests-high")


@pytest.mark.parametrize("data", [b"", b"{}", b'{"sluice": {"value": {"region": 1}}}'])
def test_other_outputs_name_the_field(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="terraform outputs"):
        from_terraform(data, tag="1")


def scale(*arguments: str, given: bytes | None = None) -> Any:
    return CliRunner().invoke(cli, ["--config", str(SAMPLE), "scale", *arguments], input=given, standalone_mode=False)


def test_manifests_are_written_and_checked(tmp_path: Path, outputs: bytes) -> None:
    out = str(tmp_path / "k8s")
    told = scale("render", "--broker", "sqs", "--out", out, "--terraform", "-", given=outputs)
    assert told.exception is None, told.output
    assert "acme-requests-high" in (tmp_path / "k8s/base/intent.yaml").read_text()
    config = yaml.safe_load((tmp_path / "k8s/base/config.yaml").read_text())
    assert config["data"]["pipeline.yaml"] == SAMPLE.read_text()
    again = ["render", "--broker", "sqs", "--out", out, "--terraform", "-", "--check"]
    assert scale(*again, given=outputs).return_value == 0
    (tmp_path / "k8s/base/intent.yaml").write_text("")
    told = scale(*again, given=outputs)
    assert told.return_value == 1
    assert "base/intent.yaml: is not what the settings say" in told.output


def test_ways_to_scale_are_compared(tmp_path: Path) -> None:
    trace = tmp_path / "a.csv"
    trace.write_text("time,count\n60,3\n600,3\n")
    told = scale("simulate", "--trace", str(trace), "--json")
    assert told.exception is None, told.exception
    found = orjson.loads(told.output)
    assert found["waiting + running"]["unfinished"] == 0
    assert found["waiting + running"]["worker hours"] < found["always on"]["worker hours"]
    assert found["always on"]["p50 s"] < found["waiting + running"]["p50 s"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_traces_that_are_made_up_have_requests(name: str) -> None:
    made = arrivals(name, 0.25)
    assert made.sum() > 1
    assert made.min() >= 0


def test_a_trace_is_read_from_lines_or_a_table(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    lines.write_text('{"time": 0}\n{"time": 1.0, "count": 3}\n')
    table.write_text("time,count\n0,1\n1,3\n")
    assert arrivals(str(lines), 0.5).tolist() == arrivals(str(table), 0.5).tolist() == [1, 0, 3]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("junk", "JSON"),
        ('{"when": 1}', "entry 1"),
        ('{"time": 0}\n{"time": -1}', "entry 2"),
        ('{"time": 1e12}', "too many"),
    ],
)
def test_a_trace_that_is_wrong_names_the_entry(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=named):
        arrivals(str(file), 0.25)


def test_traces_of_the_command_line_are_those_that_there_are() -> None:
    assert handlers.cli.scale.BUILT_IN == BUILT_IN


def test_a_simulation_is_drawn(tmp_path: Path) -> None:
    trace, png = tmp_path / "a.csv", tmp_path / "a.png"
    trace.write_text("time,count\n0,1\n60,30\n")
    told = scale("simulate", "--trace", str(trace), "--workers", "2", "--png", str(png))
    assert told.exception is None, told.exception
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "at most 2 workers" in told.output


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, png = tmp_path / "a.csv", tmp_path / "a.png"
    trace.write_text("time,count\n0,1\n")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    told = scale("simulate", "--trace", str(trace), "--png", str(png))
    assert isinstance(told.exception, NotReady)
    assert "sluice[plot]" in str(told.exception)


RESULT = '{"timings": {"agent_ms": %s, "classify_ms": 10}, "agent": {"type": "%s"}}'


def test_service_times_are_those_of_results(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(RESULT % one for one in [(1000, "responder"), (3000, "responder"), (9000, "planner")]))
    assert service_of(file, "agents.responder") == Service(2.0, 0.5)
    assert service_of(file, "agents.planner@eu1") == Service(9.0, 0.0)
    assert service_of(file, "intent") == Service(0.01, 0.0)
    trace = tmp_path / "a.csv"
    trace.write_text("time,count\n0,1\n")
    told = scale("simulate", "--trace", str(trace), "--measured", str(file), "--json")
    assert orjson.loads(told.output)["always on"]["p50 s"] == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize(
    ("text", "named"), [("junk", "line 1"), ("{}", "timings"), (RESULT % (1, "planner"), "executor")]
)
def test_results_that_tell_nothing_are_named(text: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=named):
        service_of(file, "agents.executor")


def test_a_trace_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InvalidInput, match="office-day"):
        arrivals("nothing", 0.25)
