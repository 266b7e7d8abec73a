"""The manifests: what they say agrees with the settings, and Kubernetes takes them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scaling.kube.pools import DRAIN_MARGIN_SECONDS, plans
from scaling.kube.render import JOBS, Provisioned, render, write
from tasks import keys
from tasks.errors import InvalidInput
from tasks.settings import AgentSettings, PoolSettings, ScalingSettings, Settings, ShardSettings

CONFIG = "agents: []\n"
BROKERS = ("redis", "sqs", "rabbitmq")
METADATA = {
    "redis": {"listName", "listLength", "activationListLength"},
    "aws-sqs-queue": {"queueURL", "queueLength", "activationQueueLength", "awsRegion", "scaleOnInFlight"},
    "rabbitmq": {"protocol", "queueName", "mode", "value", "activationValue", "excludeUnacknowledged"},
}
SHARDED = ScalingSettings(
    pools={"agents.executor": PoolSettings(shards={"eu1": ShardSettings(), "us1": ShardSettings()})}
)


def documents(files: dict[str, str]) -> Iterator[dict[str, Any]]:
    for path, text in files.items():
        if path.startswith("base/") and not path.endswith("kustomization.yaml"):
            yield from yaml.safe_load_all(text)


def of_kind(files: dict[str, str], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in documents(files) if one["kind"] == kind}


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("settings", [Settings(), Settings(scaling=SHARDED)], ids=["plain", "sharded"])
def test_kubernetes_takes_every_core_kind(broker: Any, settings: Settings) -> None:
    for one in documents(render(settings, CONFIG, broker)):
        if not one["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(one, "1.31", strict=True)


@pytest.mark.parametrize("broker", BROKERS)
def test_every_pool_is_looked_at_whole(broker: Any) -> None:
    files = render(Settings(), CONFIG, broker)
    objects, deployments = of_kind(files, "ScaledObject"), of_kind(files, "Deployment")
    assert set(objects) == set(deployments) == {plan.name for plan in plans(Settings())}
    for one in objects.values():
        spec = one["spec"]
        modifiers, triggers = spec["advanced"]["scalingModifiers"], spec["triggers"]
        assert spec["minReplicaCount"] == 0
        assert sorted(re.split(r" \+ ", modifiers["formula"])) == sorted(trigger["name"] for trigger in triggers)
        assert modifiers["activationTarget"] == "0"
        for trigger in triggers:
            assert set(trigger["metadata"]) == METADATA[trigger["type"]]
            assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_on_redis_waiting_in_both_queues_and_work_in_flight_are_counted() -> None:
    spec = of_kind(render(Settings(), CONFIG, "redis"), "ScaledObject")["intent"]["spec"]
    counted = {trigger["metadata"]["listName"] for trigger in spec["triggers"]}
    assert counted == {keys.waiting("requests"), keys.waiting("requests.high"), keys.unacked("intent")}


def test_a_pool_has_as_long_to_end_as_its_agent_may_take() -> None:
    settings = Settings(agents=(AgentSettings(type="responder", deadline_seconds=200),))
    for plan in plans(settings):
        pod = of_kind(render(settings, CONFIG, "redis"), "Deployment")[plan.name]["spec"]["template"]["spec"]
        told = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert told["SLUICE_SCALING__GRACE_SECONDS"] == str(plan.drain_seconds)
        assert pod["terminationGracePeriodSeconds"] == plan.drain_seconds + DRAIN_MARGIN_SECONDS
    assert {plan.pool: plan.drain_seconds for plan in plans(settings)}["agents.responder"] == 203


def test_nothing_is_privileged_and_no_secret_is_written() -> None:
    files = render(Settings(), CONFIG, "redis")
    for one in [*of_kind(files, "Deployment").values(), *of_kind(files, "CronJob").values()]:
        spec = one["spec"].get("jobTemplate", one)["spec"]["template"]["spec"]
        [container] = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(container["resources"])
        assert not spec["automountServiceAccountToken"]
    assert of_kind(files, "Secret") == {}


def test_nothing_may_talk_but_for_the_edges_that_there_are() -> None:
    policies = of_kind(render(Settings(), CONFIG, "redis"), "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert all("ingress" not in policy["spec"] for policy in policies.values())
    [edge] = policies["stores"]["spec"]["podSelector"]["matchExpressions"]
    assert set(edge["values"]) == {*(plan.name for plan in plans(Settings())), *JOBS}


def test_what_was_provisioned_is_used() -> None:
    has = Provisioned(
        region="eu-central-1",
        queue_urls={"requests": "https://sqs/1/acme-requests"},
        role_arns={"intent": "arn:aws:iam::1:role/intent"},
        images={"agent": "registry/agent:1"},
    )
    files = render(Settings(), CONFIG, "sqs", has)
    urls = [t["metadata"]["queueURL"] for t in of_kind(files, "ScaledObject")["intent"]["spec"]["triggers"]]
    assert "https://sqs/1/acme-requests" in urls
    account = of_kind(files, "ServiceAccount")["sluice-intent"]["metadata"]
    assert account["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/intent"}
    pod = of_kind(files, "Deployment")["agents-planner"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry/agent:1"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("overlay", ["aws", "local"])
def test_overlays_apply(overlay: str, tmp_path: Path) -> None:
    write(render(Settings(), CONFIG, "redis"), tmp_path)
    command = ["kubectl", "kustomize", str(tmp_path / "overlays" / overlay)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert ("nvidia.com/gpu" in found.stdout) == (overlay == "aws")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InvalidInput, match="is a file"):
        write({}, file)
