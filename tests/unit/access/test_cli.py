"""``sluice policy`` and ``sluice keys`` on the files of a user."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from handlers.cli.main import cli
from tasks.access.webhooks import secret_of, spelt
from tasks.errors import InvalidInput, NotReady, SettingsError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text("{}")


def sluice(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


def told(*arguments: str) -> Any:
    done = sluice(*arguments, "--json")
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def test_the_packaged_policies_hold() -> None:
    assert told("policy", "check")["ok"] is True
    assert "1 policy files hold" in sluice("policy", "check").stdout


@pytest.mark.parametrize(("role", "allowed", "code"), [("user", True, 0), ("auditor", False, 77)])
def test_a_decision_is_explained(role: str, allowed: bool, code: int) -> None:
    done = sluice("policy", "check", "tool:use", "sql_parser", "--role", role)
    assert done.return_value == code
    assert done.stdout.startswith("allowed" if allowed else "denied")
    answer = told("policy", "check", "tool:use", "sql_parser", "--role", role)
    assert (answer["allowed"], answer["resource"]) == (allowed, "Tool:sql_parser")


def test_a_wrong_policy_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text("permit(")
    (tmp_path / "pipeline.yaml").write_text(f"policy: {{dir: {tmp_path}}}")
    done = sluice("policy", "check")
    assert isinstance(done.exception, SettingsError)
    assert "a.cedar" in str(done.exception)


def test_keys_are_made_shown_and_rotated(tmp_path: Path) -> None:
    first = told("keys", "new", "acme-web", "--purpose", "grant", "--tenant", "acme", "--role", "user")["kid"]
    second = told("keys", "new", "acme-web", "--purpose", "grant", "--tenant", "acme", "--role", "user")["kid"]
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "pipeline.yaml").write_text("signing: {keys: [keys.json], ring: ring.json}")
    shown = told("keys", "show")
    assert [(key["kid"], key["own"]) for key in shown] == [(second, True), (first, True)]
    assert shown[0]["subjects"] == ["acme-web"]
    assert second in sluice("keys", "show").stdout


def test_without_keys_there_is_a_mend() -> None:
    done = sluice("keys", "show")
    assert isinstance(done.exception, NotReady)
    assert "sluice keys new" in str(done.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ("new", "x", "--purpose", "grant"),
        ("new", "x", "--purpose", "grant", "--tenant", "acme"),
        ("revoke",),
        ("revoke", "--kid", "a", "--subject", "b"),
    ],
)
def test_bad_input_names_what_is_missing(arguments: tuple[str, ...]) -> None:
    done = sluice("keys", *arguments)
    assert isinstance(done.exception, InvalidInput)
    assert "--" in str(done.exception)


def test_a_tenant_is_told_its_secret_of_callbacks(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name * 32)
    (tmp_path / "pipeline.yaml").write_text(f"callbacks: {{secrets: [{tmp_path / 'a'}, {tmp_path / 'b'}]}}")
    found = told("keys", "callback-secret", "--tenant", "acme")
    assert found["secrets"] == [spelt(secret_of(master, "acme")) for master in (b"a" * 32, b"b" * 32)]
    assert sluice("keys", "callback-secret", "--tenant", "acme").stdout.split() == found["secrets"]
    assert told("keys", "callback-secret")["secrets"] != found["secrets"]


def test_without_a_secret_the_mend_is_named() -> None:
    done = sluice("keys", "callback-secret")
    assert isinstance(done.exception, NotReady)
    assert "openssl rand" in str(done.exception)
