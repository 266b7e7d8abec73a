"""Streams of two processes on real servers: one alert, and the record of it; and what the commands say."""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import AbstractAsyncContextManager

import pytest
from click.testing import CliRunner

from handlers.cli.main import cli
from tasks.access.commitments import Commitments
from tasks.access.redact import Redactor
from tasks.access.sources import load_keys
from tasks.audit.opening import open_audit
from tasks.audit.read import read
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import Action, Decision
from tasks.contracts.base import utc_now
from tasks.settings import AlertRule, AuditSettings, Settings
from tasks.stores.connect import Stores
from tasks.stores.register import Spent
from tests.support import build

RULES = (AlertRule(type="permission_violation", severity="critical"),)


async def test_two_processes_raise_one_alert_and_it_is_audited(
    settings: Settings, stores: Stores, tenant: str, caplog: pytest.LogCaptureFixture
) -> None:
    keyset = load_keys(settings)

    def opened(rules: tuple[AlertRule, ...]) -> AbstractAsyncContextManager[AuditStream]:
        return open_audit(
            "intent",
            settings.changed(auditing=AuditSettings(alert_rules=rules)),
            stores,
            keyset=keyset,
            redactor=Redactor(["password"]),
            now=utc_now,
        )

    violation = build.event(
        action=Action.PERMISSION_VIOLATION, tenant=tenant, decision=Decision.DENY, reason="password=hunter2hunter2"
    )
    with caplog.at_level(logging.ERROR):
        async with opened(RULES) as first, opened(RULES) as second, opened(()) as unwatched:
            for stream in (first, second, unwatched):
                await stream.commit([violation] * 5)
    records = [record for record in await read(stores.audit) if record.tenant == tenant]
    [raised] = [record for record in records if record.action is Action.ALERT_RAISED]
    assert len(records) == 16
    assert raised.details["told"] == "log"
    named, _, sequence = str(raised.details["record"]).partition("#")
    assert (named, int(sequence)) in {(record.stream, record.sequence) for record in records}
    assert "hunter2" not in caplog.text
    assert caplog.text.count("permission_violation") == 1


async def test_usage_is_shown(stores: Stores, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = build.row("r1", tenant=tenant)
    await stores.register.open([row], due=0)
    spent = Spent(day="2030-01-01", input_tokens=10, output_tokens=5, micros=1_500_000)
    await stores.register.clear(build.ref(row), revision=1, digest=row.digest, now=0, remember=60, spent=spent)
    said = await asyncio.to_thread(
        CliRunner().invoke, cli, ["usage", "--tenant", tenant, "--day", "2030-01-01", "--json"]
    )
    assert said.exit_code == 0, said.output
    assert '"money": 1.5' in said.output
    table = await asyncio.to_thread(CliRunner().invoke, cli, ["usage", "--tenant", tenant, "--day", "2030-01-01"])
    assert "15" in table.output


def test_a_commitment_is_made_and_checked(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"k" * 32
    monkeypatch.setenv("SLUICE_COMMITMENT_KEY", base64.b64encode(key).decode())
    mark = f"[redacted:api_key/{Commitments(key).of('hunter2hunter2', tenant='acme', field='api_key')}]"
    command = ["audit", "commitment", "--tenant", "acme"]
    made = CliRunner().invoke(cli, [*command, "--field", "api_key"], input="hunter2hunter2\n")
    assert made.output.strip() == mark
    assert CliRunner().invoke(cli, [*command, "--mark", mark], input="hunter2hunter2").exit_code == 0
    assert CliRunner().invoke(cli, [*command, "--mark", mark], input="hunter2hunter3").exit_code == 5
    for wrong in (["--field", "a", "--mark", mark], [], ["--mark", "[redacted]"]):
        assert CliRunner().invoke(cli, [*command, *wrong], input="hunter2hunter2").exit_code == 2
