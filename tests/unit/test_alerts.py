"""Rules fire on records, once in a window whoever sees them, and what is told is signed and audited."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from tasks.audit import alerts as module
from tasks.audit.alerts import ACTIONS, Alert, Alerts, LogTarget
from tasks.audit.targets import SnsTarget, WebhookTarget, make_targets
from tasks.contracts.audit import GENESIS, Action, AuditRecord, Event
from tasks.errors import SettingsError, StoreError
from tasks.settings import AlertRule, AlertTargets, AlertType, AuditSettings
from tasks.settings_load import parse
from tasks.stores.windows import MemoryWindows
from tests.support.build import EPOCH
from tests.support.world import Clock

SECRET = b"a secret of the webhook"


class Told:
    """Remembers what it was told; raises ``fail`` while it is set."""

    name = "told"

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.fail: Exception | None = None

    async def send(self, alert: Alert) -> None:
        if self.fail:
            raise self.fail
        self.alerts.append(alert)


class Scene:
    """Processes that watch over one set of windows."""

    def __init__(self, *rules: AlertRule) -> None:
        self.rules = rules
        self.clock = Clock()
        self.windows = MemoryWindows()
        self.told = Told()
        self.audited: list[Event] = []
        self.sequence = 0

    def process(self) -> Alerts:
        made = Alerts(self.rules, targets=[self.told], windows=self.windows, actor="w1", now=self.clock)
        made.attach(self.audited.append)
        return made

    def record(self, action: Action = Action.PERMISSION_VIOLATION, tenant: str = "acme") -> AuditRecord:
        self.sequence += 1
        return AuditRecord(
            action=action, actor="alice", tenant=tenant, request_id="r1", resource="agents.executor", time=self.clock(),
            stream="s", sequence=self.sequence, previous=GENESIS, reason="not allowed",
        )  # fmt: skip


VIOLATION = AlertRule(type="permission_violation", severity="critical")


def test_every_type_has_an_action() -> None:
    assert set(ACTIONS) == set(get_args(AlertType))


def test_the_rules_load_as_they_are_written() -> None:
    written = {
        "retention_days": 180,
        "sensitive_fields": ["api_key", "credit_card"],
        "alert_rules": [
            {"type": "permission_violation", "severity": "critical"},
            {"type": "model_override", "severity": "high"},
        ],
    }
    assert parse(AuditSettings, written).alert_rules == (VIOLATION, AlertRule(type="model_override", severity="high"))


@pytest.mark.parametrize(
    "rule",
    [{"type": "unheard_of"}, {"type": "audit_gap", "severity": "loud"}, {"type": "audit_gap", "threshold": 0}],
)
def test_a_rule_that_means_nothing_is_an_error_at_start(rule: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"alert_rules\.0\."):
        parse(AuditSettings, {"alert_rules": [{"severity": "low", **rule}]})


async def test_a_record_raises_an_alert_and_that_is_audited() -> None:
    scene = Scene(VIOLATION)
    process = scene.process()
    process.observe(scene.record())
    process.observe(scene.record(Action.RESULT_WRITTEN))
    await process.close()
    [alert] = scene.told.alerts
    assert (alert.type, alert.severity, alert.tenant, alert.count) == ("permission_violation", "critical", "acme", 1)
    [event] = scene.audited
    assert event.action is Action.ALERT_RAISED
    assert (event.tenant, event.resource) == ("acme", "alert:permission_violation")
    assert event.details["record"] == "s#1"
    assert event.details["told"] == "told"


async def test_once_in_a_window_across_processes() -> None:
    scene = Scene(VIOLATION)
    processes = [scene.process() for _ in range(3)]
    for process in processes * 5:
        process.observe(scene.record())
    await asyncio.gather(*(process.close() for process in processes))
    assert len(scene.told.alerts) == 1
    scene.windows.forget()
    scene.clock.advance(301)
    processes[0].observe(scene.record())
    await processes[0].close()
    assert len(scene.told.alerts) == 2


async def test_each_tenant_has_windows_of_its_own_and_the_unvouched_share_one() -> None:
    scene = Scene(VIOLATION, AlertRule(type="grant_forged", severity="high"))
    process = scene.process()
    for action in (Action.PERMISSION_VIOLATION, Action.GRANT_FORGED):
        for tenant in ("a", "b"):
            process.observe(scene.record(action, tenant))
    await process.close()
    assert sorted((alert.type, alert.tenant) for alert in scene.told.alerts) == [
        ("grant_forged", "a"),
        ("permission_violation", "a"),
        ("permission_violation", "b"),
    ]


async def test_a_threshold_counts_records() -> None:
    scene = Scene(AlertRule(type="dead_letter", severity="medium", threshold=3))
    processes = scene.process(), scene.process()
    for number in range(5):
        processes[number % 2].observe(scene.record(Action.REQUEST_DEAD_LETTERED))
    await asyncio.gather(*(process.close() for process in processes))
    assert [alert.count for alert in scene.told.alerts] == [3]


async def test_a_target_that_fails_holds_up_no_other_and_is_tried_with_the_next_record() -> None:
    scene = Scene(VIOLATION)
    other = Told()
    other.name = "other"
    scene.told.fail = StoreError("away")
    process = Alerts([VIOLATION], targets=[scene.told, other], windows=scene.windows, actor="w1", now=scene.clock)
    process.attach(scene.audited.append)
    process.observe(scene.record())
    await process.close()
    assert len(other.alerts) == 1
    assert (scene.audited[0].details["told"], scene.audited[0].details["failed"]) == ("other", "told")
    scene.told.fail = None
    scene.windows.forget()
    scene.clock.advance(module.LEASE_SECONDS + 1)
    process.observe(scene.record())
    await process.close()
    assert len(scene.told.alerts) == 1


async def test_windows_that_are_away_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(VIOLATION)

    class Away(MemoryWindows):
        async def claim(self, *_: Any, **__: Any) -> int | None:
            raise StoreError("no server")

    process = Alerts([VIOLATION], targets=[scene.told], windows=Away(), actor="w1", now=scene.clock)
    process.observe(scene.record())
    await process.close()
    assert scene.told.alerts == []
    assert "alert not raised" in caplog.text


async def test_a_flood_is_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(VIOLATION)
    process = scene.process()
    for number in range(1500):
        process.observe(scene.record(tenant=f"t{number}"))
    await process.close()
    assert len(scene.told.alerts) == 1000
    assert "too many at once" in caplog.text


def alert() -> Alert:
    scene = Scene()
    return Alert(
        id="a1", type="audit_gap", severity="high", tenant="acme", count=1, window_seconds=300, time=EPOCH,
        record=scene.record(Action.AUDIT_GAP),
    )  # fmt: skip


async def test_the_log_is_told(caplog: pytest.LogCaptureFixture) -> None:
    await LogTarget().send(alert())
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "audit_gap" in record.getMessage()


@pytest.mark.parametrize("statuses", [[200], [503, 204], [429, 500, 200]])
async def test_the_webhook_gets_a_signed_call_and_is_tried_again(statuses: list[int]) -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(statuses[len(calls) - 1])

    clock = Clock()
    target = WebhookTarget(
        "https://h.example/x", SECRET, now=clock, pauses=(0, 0), transport=httpx.MockTransport(answer)
    )
    await target.send(alert())
    assert len(calls) == len(statuses)
    call = calls[-1]
    said = f"a1.{int(clock.seconds)}.".encode() + call.content
    signed = base64.b64encode(hmac.new(SECRET, said, "sha256").digest()).decode()
    assert call.headers["webhook-signature"] == f"v1,{signed}"
    assert (call.headers["webhook-id"], int(call.headers["webhook-timestamp"])) == ("a1", int(clock.seconds))
    assert json.loads(call.content)["record"]["action"] == "audit.gap"


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (404, 1)])
async def test_a_webhook_that_refuses_is_an_error_after_a_bounded_number_of_tries(status: int, tries: int) -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(status)

    transport = httpx.MockTransport(answer)
    target = WebhookTarget("https://h.example/x", SECRET, now=Clock(), pauses=(0, 0), transport=transport)
    with pytest.raises(StoreError, match=str(status)):
        await target.send(alert())
    assert len(calls) == tries


async def test_a_webhook_that_is_away_does_not_say_its_address() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("https://h.example/token=hunter2")

    transport = httpx.MockTransport(answer)
    target = WebhookTarget("https://h.example/x", SECRET, now=Clock(), pauses=(), transport=transport)
    with pytest.raises(StoreError) as raised:
        await target.send(alert())
    assert "hunter2" not in str(raised.value)


async def test_a_topic_is_told_in_its_region() -> None:
    class Client:
        def __init__(self, region: str) -> None:
            self.region = region

        def publish(self, **call: Any) -> None:
            published.append((self.region, call))

    published: list[tuple[str, dict[str, Any]]] = []
    await SnsTarget("arn:aws:sns:eu-central-1:1:t", client=Client).send(alert())
    [(region, call)] = published
    assert (region, call["TopicArn"]) == ("eu-central-1", "arn:aws:sns:eu-central-1:1:t")
    assert json.loads(call["Message"])["id"] == "a1"


def test_a_webhook_needs_a_secret(tmp_path: Path) -> None:
    settings = AlertTargets(webhook="https://h.example/x")
    with pytest.raises(SettingsError, match="SLUICE_ALERT_WEBHOOK_SECRET"):
        make_targets(settings, now=Clock(), environ={})
    file = tmp_path / "secret"
    file.write_text("x" * 16)
    for chosen, environ in (
        (settings, {"SLUICE_ALERT_WEBHOOK_SECRET": "y" * 16}),
        (AlertTargets(webhook=settings.webhook, webhook_secret_file=file), {}),
    ):
        assert [target.name for target in make_targets(chosen, now=Clock(), environ=environ)] == ["log", "webhook"]
    everything = AlertTargets(topic="arn:aws:sns:eu-central-1:1:t")
    assert [target.name for target in make_targets(everything, now=Clock(), environ={})] == ["log", "sns"]


def test_a_window_ends_with_its_time() -> None:
    assert timedelta(seconds=VIOLATION.window_seconds) == timedelta(minutes=5)
