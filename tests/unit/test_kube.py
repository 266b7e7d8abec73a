"""The manifests: what they say agrees with the settings, and Kubernetes and KEDA take them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scaling.kube.pools import DRAIN_MARGIN_SECONDS, plans
from scaling.kube.render import JOBS, Provisioned, stray, write
from scaling.kube.render import render as rendered
from scaling.kube.workloads import ALIVE_COMMAND
from tasks import keys
from tasks.consumer import CANCEL_MARGIN_SECONDS
from tasks.errors import InvalidInput
from tasks.settings import AgentSettings, PoolSettings, ScalingSettings, Settings, ShardSettings
from tests.support import keda

CONFIG = "agents: []\n"
BROKERS = ("redis", "sqs", "rabbitmq")
OVERLAYS = ("local", "aws", "aws-gpu")
SHARDED = ScalingSettings(
    pools={"agents.executor": PoolSettings(shards={"eu1": ShardSettings(), "us1": ShardSettings()})}
)
JOB = ScalingSettings(pools={pool: PoolSettings(kind="job") for pool in ("intent", "agents.planner")})
SETTINGS = {"plain": Settings(), "sharded": Settings(scaling=SHARDED), "jobs": Settings(scaling=JOB)}


def render(settings: Settings, broker: Any, has: Provisioned | None = None) -> dict[str, str]:
    return rendered(settings, CONFIG, broker, has, tag="1.2.3")


def documents(files: dict[str, str]) -> Iterator[dict[str, Any]]:
    for path, text in files.items():
        if not path.endswith("kustomization.yaml"):
            yield from yaml.safe_load_all(text)


def of_kind(files: dict[str, str], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in documents(files) if one["kind"] == kind}


def pods(files: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The specification of every pod there may be."""
    for one in documents(files):
        spec = one.get("spec", {})
        holder = {"Deployment": spec, "CronJob": spec.get("jobTemplate", {}).get("spec")}
        holder["ScaledJob"] = spec.get("jobTargetRef")
        if found := holder.get(one["kind"]):
            yield found["template"]["spec"]


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_kubernetes_and_keda_take_every_kind(broker: Any, settings: Settings) -> None:
    for one in documents(render(settings, broker)):
        if one["apiVersion"].startswith("keda.sh/"):
            keda.validate(one)
        else:
            kubernetes_validate.validate(one, "1.31", strict=True)


@pytest.mark.parametrize("kind", ["ScaledObject", "ScaledJob", "TriggerAuthentication"])
def test_keda_is_asked_strictly(kind: str) -> None:
    one = next(iter(of_kind(render(SETTINGS["jobs"], "redis"), kind).values()))
    one["spec"]["misspelt"] = 1
    with pytest.raises(ValidationError, match="misspelt"):
        keda.validate(one)


@pytest.mark.parametrize("broker", BROKERS)
def test_a_trigger_has_all_it_needs(broker: Any) -> None:
    files = render(Settings(), broker)
    [authentication] = of_kind(files, "TriggerAuthentication").values()
    given = {one["parameter"] for one in authentication["spec"].get("secretTargetRef", ())}
    [kind] = {t["type"] for one in of_kind(files, "ScaledObject").values() for t in one["spec"]["triggers"]}
    assert keda.FROM_AUTHENTICATION[kind] <= given


@pytest.mark.parametrize("broker", BROKERS)
def test_every_pool_is_looked_at_whole(broker: Any) -> None:
    files = render(Settings(), broker)
    objects, deployments = of_kind(files, "ScaledObject"), of_kind(files, "Deployment")
    assert set(objects) == set(deployments) == {plan.name for plan in plans(Settings())}
    for one in objects.values():
        spec = one["spec"]
        modifiers, triggers = spec["advanced"]["scalingModifiers"], spec["triggers"]
        assert spec["minReplicaCount"] == 0
        assert sorted(re.split(r" \+ ", modifiers["formula"])) == sorted(trigger["name"] for trigger in triggers)
        assert modifiers["activationTarget"] == "0"


def test_on_redis_waiting_in_both_queues_and_work_in_flight_are_counted() -> None:
    spec = of_kind(render(Settings(), "redis"), "ScaledObject")["intent"]["spec"]
    counted = {trigger["metadata"]["listName"] for trigger in spec["triggers"]}
    assert counted == {keys.waiting("requests"), keys.waiting("requests.high"), keys.unacked("intent")}


def test_a_pool_may_be_jobs_that_end_by_themselves() -> None:
    files = render(SETTINGS["jobs"], "redis")
    jobs = of_kind(files, "ScaledJob")
    assert set(jobs) == {"intent", "agents-planner"}
    assert not {*of_kind(files, "Deployment"), *of_kind(files, "PodDisruptionBudget")} & set(jobs)
    spec = jobs["agents-planner"]["spec"]
    [container] = spec["jobTargetRef"]["template"]["spec"]["containers"]
    assert container["args"][-4:] == ["--pool", "agents.planner", "--until-idle", str(spec_cooldown("agents.planner"))]
    assert len(spec["triggers"]) == 3
    assert spec["scalingStrategy"]["multipleScalersCalculation"] == "sum"


def spec_cooldown(pool: str) -> int:
    [plan] = [plan for plan in plans(SETTINGS["jobs"]) if plan.pool == pool]
    return int(plan.rules.cooldown)


def test_a_pool_has_as_long_to_end_as_its_agent_may_take() -> None:
    settings = Settings(agents=(AgentSettings(type="responder", deadline_seconds=200),))
    for plan in plans(settings):
        pod = of_kind(render(settings, "redis"), "Deployment")[plan.name]["spec"]["template"]["spec"]
        told = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert told["SLUICE_SCALING__GRACE_SECONDS"] == str(plan.drain_seconds)
        assert pod["terminationGracePeriodSeconds"] == plan.drain_seconds + DRAIN_MARGIN_SECONDS
    assert {plan.pool: plan.drain_seconds for plan in plans(settings)}["agents.responder"] == 203


@given(st.floats(0.1, 900), st.none() | st.floats(0.1, 900), st.floats(0.1, 120), st.floats(0.1, 900))
def test_times_to_end_agree_whatever_is_set(
    deadline: float, grace: float | None, polling: float, cooldown: float
) -> None:
    scaling = ScalingSettings(grace_seconds=grace, polling_seconds=polling, cooldown_seconds=cooldown)
    agents = (AgentSettings(type="responder", deadline_seconds=deadline),)
    for plan in plans(Settings(scaling=scaling, agents=agents)):
        if grace is not None:
            assert plan.drain_seconds == ceil(grace)
        elif plan.pool == "agents.responder":
            assert plan.drain_seconds >= deadline + CANCEL_MARGIN_SECONDS
        # A worker hands back what is left before its own grace period ends, and is gone before it is killed.
        assert CANCEL_MARGIN_SECONDS < DRAIN_MARGIN_SECONDS == plan.termination_seconds - plan.drain_seconds
        # One look that sees nothing never puts a pool to sleep.
        assert plan.rules.cooldown >= 2 * plan.rules.polling
        assert plan.rules.cooldown >= cooldown


def test_nothing_is_privileged_and_no_secret_is_written() -> None:
    files = render(SETTINGS["jobs"], "redis")
    found = list(pods(files))
    assert len(found) == len(plans(Settings())) + len(JOBS)
    for spec in found:
        [container] = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(container["resources"])
        assert not spec["automountServiceAccountToken"]
        assert not container["image"].endswith(":latest")
    assert of_kind(files, "Secret") == of_kind(files, "Role") == of_kind(files, "RoleBinding") == {}


def test_no_probe_is_waited_for() -> None:
    """Without one for readiness a pod counts as soon as it started; that one waits for the worker's first heartbeat."""
    for one in of_kind(render(Settings(), "redis"), "Deployment").values():
        [container] = one["spec"]["template"]["spec"]["containers"]
        assert "readinessProbe" not in container
        assert container["startupProbe"]["periodSeconds"] == 1
        assert container["startupProbe"]["exec"] == container["livenessProbe"]["exec"] == {"command": [*ALIVE_COMMAND]}
        assert all("initialDelaySeconds" not in container[name] for name in ("startupProbe", "livenessProbe"))


def test_nothing_may_talk_but_for_the_edges_that_there_are() -> None:
    policies = of_kind(render(Settings(), "redis"), "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert all("ingress" not in policy["spec"] for policy in policies.values())
    pools = [plan.name for plan in plans(Settings())]
    who = {name: policy["spec"]["podSelector"] for name, policy in policies.items()}
    assert who["deny-all"] == who["dns"] == {}
    named = {name: set(pods["matchExpressions"][0]["values"]) for name, pods in who.items() if pods}
    assert named == {"stores": set(pools), "agents": set(pools) - {"intent"}, "jobs": set(JOBS)}


def ports(settings: Settings, policy: str) -> set[int]:
    rules = of_kind(render(settings, "redis"), "NetworkPolicy")[policy]["spec"]["egress"]
    return {one["port"] for one in rules[0]["ports"]}


def test_ports_are_those_of_the_settings() -> None:
    assert ports(Settings(), "stores") == {6379, 443}
    assert ports(Settings(), "agents") == {443}
    told: dict[str, Any] = {
        "redis_url": "rediss://cache:6380",
        "s3_endpoint": "http://s3:8333",
        "embedded_model_url": "http://model:8000/v1",
    }
    own = Settings(**told)
    database = own.tools.sql_parser.changed(database="postgresql+psycopg://${USER}@db:${PORT}/shop")
    own = own.changed(tools=own.tools.changed(sql_parser=database))
    assert ports(own, "stores") == ports(own, "jobs") == {6380, 8333, 443}
    assert ports(own, "agents") == {8000, 5432, 443}
    assert ports(Settings(redis_url="secretsmanager://eu/redis", broker_url="sqs://h/1/n"), "stores") == {6379, 443}


def test_what_was_provisioned_is_used() -> None:
    has = Provisioned(
        region="eu-central-1",
        queue_urls={"requests": "https://sqs/1/acme-requests"},
        role_arns={"intent": "arn:aws:iam::1:role/intent"},
        images={"agent": "registry/agent:1"},
    )
    files = render(Settings(), "sqs", has)
    urls = [t["metadata"]["queueURL"] for t in of_kind(files, "ScaledObject")["intent"]["spec"]["triggers"]]
    assert "https://sqs/1/acme-requests" in urls
    account = of_kind(files, "ServiceAccount")["sluice-intent"]["metadata"]
    assert account["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/intent"}
    images = {name: one["spec"]["template"]["spec"]["containers"][0]["image"] for name, one in of_kind(files, "Deployment").items()}  # fmt: skip # noqa: E501
    assert images["agents-planner"] == "registry/agent:1"
    assert images["intent"] == "sluice/intent-cpu:1.2.3"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("settings", [SETTINGS["plain"], SETTINGS["jobs"]], ids=["plain", "jobs"])
def test_overlays_apply(overlay: str, settings: Settings, tmp_path: Path) -> None:
    write(render(settings, "redis"), tmp_path)
    command = ["kubectl", "kustomize", str(tmp_path / "overlays" / overlay)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    made = {"x": found.stdout}
    assert {one["metadata"]["namespace"] for one in documents(made) if one["kind"] != "Namespace"} == {"sluice"}
    assert set(of_kind(made, "CronJob")) == (set(JOBS) if overlay == "local" else set())
    gpus = [pod for pod in pods(made) if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]]
    assert [pod["containers"][0]["image"] for pod in gpus] == (["sluice/intent-gpu:1.2.3"] if "gpu" in overlay else [])
    for pod in gpus:
        assert [one["key"] for one in pod["tolerations"]] == ["nvidia.com/gpu"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InvalidInput, match="is a file"):
        write({}, file)


def test_manifests_of_a_pool_that_is_no_more_are_named(tmp_path: Path) -> None:
    files = render(Settings(), "redis")
    write(files, tmp_path)
    (tmp_path / "base/agents-gone.yaml").touch()
    (tmp_path / "mine.yaml").touch()
    assert stray(files, tmp_path) == ["base/agents-gone.yaml"]


@pytest.mark.skipif("KEDA_CRDS" not in os.environ, reason="KEDA_CRDS names no folder with KEDA's definitions")
@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_keda_s_own_definitions_take_its_kinds(broker: Any, settings: Settings) -> None:
    folder = Path(os.environ["KEDA_CRDS"])
    for one in documents(render(settings, broker)):
        if one["apiVersion"].startswith("keda.sh/"):
            crd = yaml.safe_load((folder / f"keda.sh_{one['kind'].lower()}s.yaml").read_text())
            [version] = [v for v in crd["spec"]["versions"] if v["name"] == "v1alpha1"]
            assert list(unlike(version["schema"]["openAPIV3Schema"], one, one["kind"])) == []
    known = yaml.safe_load((folder / "scalers-schema.json").read_text())["scalers"]
    metadata = {s["type"]: {p["name"] for p in s["parameters"] if p.get("metadataVariableReadable")} for s in known}
    for kind, named in keda.TRIGGERS.items():
        assert set(named) <= metadata[kind]


def unlike(schema: dict[str, Any], value: Any, place: str) -> Iterator[str]:
    """Yield where ``value`` is not as ``schema``, the API server's kind of one, has it. Unknown keys are faults."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}
    if schema.get("x-kubernetes-int-or-string"):
        return
    if not isinstance(value, kinds[schema["type"]]) or (schema["type"] == "integer" and isinstance(value, bool)):
        yield f"{place}: {value!r} is no {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r}"
    elif isinstance(value, list):
        for item in value:
            yield from unlike(schema["items"], item, place)
    elif isinstance(value, dict):
        known, other = schema.get("properties"), schema.get("additionalProperties")
        yield from (f"{place}.{name}: is missing" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            inner = (known or {}).get(name) or other
            if inner:
                yield from unlike(inner, item, f"{place}.{name}")
            elif known is not None and not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{place}.{name}: is not known"
