"""The committed manifests are those that the committed settings make. After a change: ``make manifests``."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from handlers.cli.main import cli

GOLDEN = Path(__file__).parents[1] / "golden"
SETTINGS = Path(__file__).parents[2] / "pipeline.yaml"


@pytest.mark.parametrize("broker", ["redis", "sqs", "rabbitmq"])
def test_the_manifests_are_what_the_settings_say(broker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    command = ["--config", str(SETTINGS), "scale", "render", "--broker", broker, "--check"]
    found = CliRunner().invoke(cli, [*command, "--out", str(GOLDEN / "k8s" / broker)], standalone_mode=False)
    assert found.exception is None
    assert found.return_value == 0, f"renew them: make manifests\n{found.output}"


def test_each_finding_that_is_waived_has_a_reason() -> None:
    text = (GOLDEN / "checkov.yaml").read_text()
    waived = yaml.safe_load(text)["skip-check"]
    reasons = [line.partition("#")[2].strip() for line in text.splitlines() if line.lstrip().startswith("- CKV")]
    assert len(reasons) == len(waived)
    assert all(len(reason) > 30 for reason in reasons)
