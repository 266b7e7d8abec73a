"""ScaledObjects as the local autoscaler reads them: what they say is obeyed, what is not understood is refused."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.kube.pools import DRAIN_MARGIN_SECONDS, plans
from scaling.kube.render import render, write
from scaling.kube.triggers import Broker, scaled_object
from scaling.lock import sole
from scaling.objects import read, rendered, watches
from scaling.rules import DOWN, UP, Change, Direction, Fallback, Rules
from tasks.errors import AlreadyRunning, InvalidInput
from tasks.settings import AgentSettings, PoolSettings, ScalingSettings, Settings, ShardSettings
from tasks.settings.queues import CANCEL_MARGIN_SECONDS
from tasks.stores.broker import Depth

BROKERS: tuple[Broker, ...] = ("redis", "sqs", "rabbitmq")
SETTINGS = Settings(
    scaling=ScalingSettings(
        polling_seconds=0.5,
        pools={"agents.executor": PoolSettings(max_workers=7, shards={"eu1": ShardSettings(), "us1": ShardSettings()})},
    )
)


def objects(broker: Broker = "redis") -> list[dict[str, Any]]:
    return [deepcopy(scaled_object(plan, broker, {}, "eu-central-1")) for plan in plans(SETTINGS)]


@pytest.mark.parametrize("broker", BROKERS)
def test_what_is_rendered_is_read_back(broker: Broker) -> None:
    found = watches(objects(broker), SETTINGS)
    for plan in plans(SETTINGS):
        watch = found[plan.pool]
        # How often the autoscaler looks is a flag of the cluster's, and stands in no manifest.
        assert watch.rules == Rules(**{**vars(plan.rules), "sync": plan.rules.polling})
        assert watch.termination_seconds == plan.termination_seconds
        assert watch.metric(Depth(3, 4)) == 7


def test_here_intervals_are_those_of_the_settings() -> None:
    rules = rendered(SETTINGS)["agents.executor@eu1"].rules
    assert (rules.polling, rules.sync, rules.cooldown, rules.maximum) == (0.5, 0.5, 60, 7)
    assert rendered(SETTINGS.changed(broker_url="sqs://host/1/name"))["intent"].in_flight


def test_what_is_watched_is_rendered_for_the_broker_of_the_settings() -> None:
    for url in (None, "sqs://host/1/name", "amqp://host/vhost", "amqps://host/vhost"):
        assert rendered(SETTINGS.changed(broker_url=url))["intent"].in_flight


def test_a_folder_of_manifests(tmp_path: Path) -> None:
    write(render(SETTINGS, "{}\n", "redis", tag="1"), tmp_path)
    assert read(tmp_path, SETTINGS) == watches(objects(), SETTINGS)
    with pytest.raises(InvalidInput, match="no ScaledObject in any"):
        read(tmp_path / "overlays", SETTINGS)
    (tmp_path / "base/broken.yaml").write_text("a: [")
    with pytest.raises(InvalidInput, match=r"broken\.yaml: is not YAML"):
        read(tmp_path, SETTINGS)


def test_what_a_manifest_leaves_out_is_as_in_kubernetes() -> None:
    found = objects()
    spec = found[0]["spec"]
    modifiers = spec["advanced"]["scalingModifiers"]
    found[0]["spec"] = {
        "scaleTargetRef": spec["scaleTargetRef"],
        "advanced": {"scalingModifiers": {"formula": modifiers["formula"], "target": "5"}},
        "triggers": spec["triggers"],
    }
    assert watches(found, SETTINGS)["intent"].rules == Rules(maximum=100, target=5, sync=30)
    found[0]["spec"]["advanced"]["horizontalPodAutoscalerConfig"] = {
        "behavior": {
            "scaleUp": {"selectPolicy": "Min"},
            "scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        }
    }
    found[0]["spec"]["fallback"] = {"failureThreshold": 2, "replicas": 4}
    rules = watches(found, SETTINGS)["intent"].rules
    assert rules.up == Direction(UP.window, UP.changes, "Min")
    assert rules.down == Direction(DOWN.window, (Change("Pods", 1, 60),))
    assert rules.fallback == Fallback(2, 4, "static")


def test_by_queue_length_alone_what_runs_does_not_count() -> None:
    found = objects()
    found[0]["spec"]["advanced"]["scalingModifiers"]["formula"] = "waiting_high + waiting"
    watch = watches(found, SETTINGS)["intent"]
    assert [watch.metric(Depth(*load)) for load in ((0, 5), (2, 5))] == [0, 2]
    found = objects("sqs")
    for trigger in found[0]["spec"]["triggers"]:
        trigger["metadata"]["scaleOnInFlight"] = "false"
    assert not watches(found, SETTINGS)["intent"].in_flight


WRONG: dict[str, tuple[Any, str]] = {
    "advanced.scalingModifiers.formula": ("max(waiting, running)", "only a sum of named triggers"),
    "advanced.scalingModifiers.formula ": ("waiting + running", "must count requests.high, requests and what runs"),
    "advanced.scalingModifiers.formula  ": ("waiting + waiting_high + running + running", "must count"),
    "advanced.scalingModifiers.target": ("many", "'many' is no number"),
    "advanced.scalingModifiers.target ": ("0", "must be above 0"),
    "advanced.scalingModifiers.activationTarget": ("x", "activationTarget: 'x' is no number"),
    "advanced.scalingModifiers.metricType": ("Value", "spec.advanced.scalingModifiers.metricType"),
    "idleReplicaCount": (1, "spec.idleReplicaCount"),
    "maxReplicaCount": ("many", "spec.maxReplicaCount"),
    "scaleTargetRef.name": ("agents-lawyer", "'agents-lawyer' is no pool of the settings"),
    "fallback.behavior": ("hope", "spec.fallback.behavior"),
    "triggers": ([], "only a sum of named triggers"),
    "triggers ": ([{"type": "cron", "metadata": {}}], "spec.triggers.0.type"),
}


@pytest.mark.parametrize("field", WRONG)
def test_what_is_not_understood_is_refused_by_name(field: str) -> None:
    value, told = WRONG[field]
    found = objects()
    *path, last = field.strip().split(".")
    place = found[0]["spec"]
    for key in path:
        place = place[key]
    place[last] = value
    with pytest.raises(InvalidInput, match="ScaledObject intent: ") as error:
        watches(found, SETTINGS)
    assert told in str(error.value)


@pytest.mark.parametrize("broker", BROKERS)
def test_a_trigger_on_a_strange_queue_is_refused(broker: Broker) -> None:
    found = objects(broker)
    found[0]["spec"]["triggers"][0]["metadata"].update(listName="x", queueURL="https://sqs/1/x", queueName="x")
    with pytest.raises(InvalidInput, match="looks at no queue of the pool intent"):
        watches(found, SETTINGS)


def test_a_pool_without_an_object_or_with_two_is_named() -> None:
    with pytest.raises(InvalidInput, match="the pool agents-planner has two"):
        watches([*objects(), objects()[1]], SETTINGS)
    with pytest.raises(InvalidInput, match="no ScaledObject for intent;"):
        watches(objects()[1:], SETTINGS)


def test_what_is_no_object_at_all() -> None:
    with pytest.raises(InvalidInput, match=r"ScaledObject \?: spec: "):
        watches([{"kind": "ScaledObject", "spec": []}], SETTINGS)


def test_grace_periods_agree_by_construction() -> None:
    """A worker has what its agent may take and the margin to hand back; Kubernetes, and the autoscaler, more."""
    settings = Settings(agents=(AgentSettings(type="responder", deadline_seconds=200),))
    found = rendered(settings)
    for plan in plans(settings):
        own = settings.grace(plan.pool)
        assert found[plan.pool].termination_seconds == plan.termination_seconds == own + DRAIN_MARGIN_SECONDS
        for agent in settings.agents:
            if plan.pool == f"agents.{agent.type}":
                assert own - CANCEL_MARGIN_SECONDS >= agent.deadline_seconds
    assert settings.grace("agents.responder") == 203
    assert settings.grace("intent") == 30
    assert settings.grace(*settings.pools) == 203, "of several pools the longest"
    assert settings.grace("agents.responder@eu1") == 203, "a shard has its pool's"
    told = settings.changed(scaling=ScalingSettings(grace_seconds=10))
    assert {told.grace(pool) for pool in told.pools} == {10}
    assert {plan.drain_seconds for plan in plans(told)} == {10}


HOLD = "import sys, time; from pathlib import Path; from scaling.lock import sole\n"
HOLD += "with sole(Path(sys.argv[1]), 'an autoscaler'): print('held', flush=True); time.sleep(60)"


def test_there_is_one_for_each_folder_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    file = tmp_path / "home" / "autoscaler.lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(AlreadyRunning, match=rf"an autoscaler runs already .*home \(pid {process.pid}\)"),
            sole(file, "an autoscaler"),
        ):
            raise AssertionError
        with sole(tmp_path / "other" / "autoscaler.lock", "an autoscaler"):
            pass
    finally:
        process.kill()
        process.communicate()
    with sole(file, "an autoscaler"):
        pass


def test_what_the_command_line_tells_of_a_bad_folder(tmp_path: Path) -> None:
    documents = objects()
    documents[0]["spec"]["idleReplicaCount"] = 1
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents))
    with pytest.raises(InvalidInput, match=r"ScaledObject intent: spec\.idleReplicaCount"):
        read(tmp_path, SETTINGS)
