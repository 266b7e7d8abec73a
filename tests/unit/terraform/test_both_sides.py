"""Names and settings that Terraform makes are those that workers, handlers and manifests use."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tasks import keys
from tasks.access.sources import KmsSigner
from tasks.settings import Settings
from tasks.settings_load import load
from terraform.check import command, render
from terraform.check.contract import contract

LATER = {"SLUICE_BROKER_URL"}
"""Variables whose setting is not there yet; settings_load leaves names that it does not know alone."""


@pytest.fixture
def settings() -> Settings:
    return load(render.SAMPLE)


def test_what_was_rendered_is_of_these_files(rendered: dict[str, Any]) -> None:
    assert rendered["digest"] == render.digest(), (
        "terraform/ changed: run make terraform-validate, and commit rendered.json"
    )


def test_the_contract_is_that_of_the_python_code() -> None:
    assert json.loads(command.CONTRACT.read_text("utf-8")) == contract(), "run make terraform-schema"


def test_pools_are_those_of_the_settings(settings: Settings, outputs: dict[str, Any]) -> None:
    assert set(outputs["pools"]) == set(settings.pools)
    assert "agents.translator" in outputs["pools"]


def test_every_queue_has_the_name_that_the_code_gives_it(settings: Settings, outputs: dict[str, Any]) -> None:
    for pool in settings.pools:
        for priority in ("normal", "high"):
            found = outputs["pools"][pool]["queues"][priority]
            name = keys.sqs_queue(render.NAME, keys.queue(pool, priority))
            assert found["name"] == name
            assert found["url"] == f"https://sqs.{render.REGION}.amazonaws.com/123456789012/{name}"
    uses = {
        "dead_letters": keys.DEAD_LETTERS,
        "quarantine": keys.QUARANTINE,
        "uploads": keys.UPLOADED,
        "events": keys.EVENTS,
    }
    assert {use: it["name"] for use, it in outputs["queues"].items()} == {
        use: keys.sqs_queue(render.NAME, name) for use, name in uses.items()
    }


def test_a_queue_s_url_follows_from_the_broker_url(outputs: dict[str, Any]) -> None:
    base = outputs["environment"]["common"]["SLUICE_BROKER_URL"]
    host, deployment = base.removeprefix("sqs://").rsplit("/", 1)
    for pool, it in outputs["pools"].items():
        for priority, found in it["queues"].items():
            assert found["url"] == f"https://{host}/{keys.sqs_queue(deployment, keys.queue(pool, priority))}"


def test_queues_have_the_times_and_attempts_of_the_settings(settings: Settings, resources: dict[str, Any]) -> None:
    pools = [it for address, it in resources.items() if address.startswith("queues.aws_sqs_queue.pool")]
    assert len(pools) == 2 * len(settings.pools)
    for queue in pools:
        assert queue["visibility_timeout_seconds"] == settings.queue.visibility_seconds == 45
        assert queue["redrive_policy"]["maxReceiveCount"] == settings.queue.attempts
        assert queue["message_retention_seconds"] == settings.grants.max_age_days * 86400


def test_an_intake_is_hidden_for_six_times_its_function_s_time_out(resources: dict[str, Any]) -> None:
    for function, queue in (("s3", keys.UPLOADED), ("sqs", keys.EVENTS)):
        timeout = resources[f'doors.aws_lambda_function.this["{function}"]']["timeout"]
        assert resources[f'queues.aws_sqs_queue.intake["{queue}"]']["visibility_timeout_seconds"] >= 6 * timeout


def test_the_lock_outlasts_the_retention_by_a_day(settings: Settings, resources: dict[str, Any]) -> None:
    [rule] = resources["audit.aws_s3_bucket_object_lock_configuration.audit"]["rule"]
    [retention] = rule["default_retention"]
    assert retention == {"mode": "COMPLIANCE", "days": settings.auditing.retention_days + 1, "years": None}


def test_the_sealer_runs_as_often_as_the_settings_say(settings: Settings, resources: dict[str, Any]) -> None:
    assert settings.auditing.seal_seconds == 60
    assert resources['doors.aws_scheduler_schedule.this["seal"]']["schedule_expression"] == "rate(1 minute)"


def test_handlers_are_the_functions_modules(resources: dict[str, Any], outputs: dict[str, Any]) -> None:
    for function in outputs["functions"]:
        handler = resources[f'doors.aws_lambda_function.this["{function}"]']["handler"]
        assert handler == f"handlers.aws.{function}.handler"
        if find_spec("handlers.aws"):
            assert find_spec(handler.removesuffix(".handler")), f"{handler}: there is no such module"


def test_the_environment_is_understood_by_the_settings(
    outputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = outputs["environment"]
    for variables in (environment["common"], *environment["pools"].values(), *environment["functions"].values()):
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            loaded = load(render.SAMPLE)
        assert loaded.data_bucket == outputs["buckets"]["data"]
        assert loaded.audit_bucket == outputs["buckets"]["audit"]
        assert loaded.region == outputs["region"]
        assert loaded.auditing.immutable
        assert loaded.auditing.alerts.topic == outputs["alerts"]["topic_arn"]
        assert loaded.callbacks.secrets == (
            f"secretsmanager://{render.REGION}/{outputs['secrets']['callbacks']['name']}",
        )
        assert loaded.signing.ring == f"secretsmanager://{render.REGION}/{outputs['secrets']['ring']['name']}"
        known = {
            name
            for name in variables
            if name.removeprefix("SLUICE_").split("__")[0].lower() in Settings.__struct_fields__
        }
        assert set(variables) - known <= LATER


def test_each_pool_signs_with_its_own_key_and_the_sealer_in_kms(outputs: dict[str, Any]) -> None:
    for pool, variables in outputs["environment"]["pools"].items():
        [source] = json.loads(variables["SLUICE_SIGNING__KEYS"])
        assert source == f"secretsmanager://{render.REGION}/acme/signing/{pool}"
    [source] = json.loads(outputs["environment"]["functions"]["seal"]["SLUICE_SIGNING__KEYS"])

    class Kms:
        def get_public_key(self, **asked: str) -> dict[str, bytes]:
            assert asked == {"KeyId": outputs["sealing_key"]["id"]}
            return {"PublicKey": bytes.fromhex("302a300506032b6570032100") + bytes(32)}

    assert KmsSigner(source, lambda service, region: Kms()).kid.startswith("sealer.")


def test_kubernetes_names_are_allowed_and_differ(outputs: dict[str, Any]) -> None:
    names = [it["service_account"] for it in outputs["pools"].values()]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() and name.islower() for name in names)


def test_no_secret_is_in_what_was_rendered(rendered: dict[str, Any]) -> None:
    assert render.PLANTED not in json.dumps(rendered)


def test_every_module_has_its_four_files() -> None:
    for module in [
        render.ROOT,
        *sorted(Path(render.ROOT / "modules").iterdir()),
        *sorted((render.ROOT / "examples").iterdir()),
    ]:
        names = {file.name for file in module.glob("*.tf")}
        assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf"} <= names, module
