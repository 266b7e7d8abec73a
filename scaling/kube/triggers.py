"""ScaledObjects and ScaledJobs: what KEDA looks at for each pool, and what it makes of it.

Waiting work in both queues and work in flight are triggers of their own, added by a formula: a pool that runs something
never looks idle, and one whose worker was killed wakes up for what that had in hand.
"""

from __future__ import annotations

from typing import Literal

from scaling.kube.pools import Manifest, PoolPlan
from scaling.kube.workloads import KEPT_JOBS, labels
from scaling.rules import Direction
from tasks import keys

Broker = Literal["redis", "sqs", "rabbitmq"]
AUTHENTICATION = "sluice-broker"
"""The TriggerAuthentication that all pools share."""


def scaled_object(plan: PoolPlan, broker: Broker, queue_urls: dict[str, str], region: str) -> Manifest:
    """Return the ScaledObject of a pool; ``queue_urls`` are those of SQS, by queue."""
    rules = plan.rules
    triggers = _TRIGGERS[broker](plan, queue_urls, region)
    target = f"{rules.target:g}"
    modifiers = {
        "formula": " + ".join(trigger["name"] for trigger in triggers),
        "target": target,
        "activationTarget": f"{rules.activation:g}",
        "metricType": "AverageValue",
    }
    behaviour = {"scaleUp": _direction(rules.up), "scaleDown": _direction(rules.down)}
    spec: Manifest = {
        "scaleTargetRef": {"name": plan.name},
        "minReplicaCount": rules.minimum,
        "maxReplicaCount": rules.maximum,
        "pollingInterval": int(rules.polling),
        "cooldownPeriod": int(rules.cooldown),
        "advanced": {
            "restoreToOriginalReplicaCount": False,
            "horizontalPodAutoscalerConfig": {"behavior": behaviour},
            "scalingModifiers": modifiers,
        },
        "triggers": triggers,
    }
    if rules.fallback:
        spec["fallback"] = {
            "failureThreshold": rules.fallback.failures,
            "replicas": rules.fallback.replicas,
            "behavior": rules.fallback.behaviour,
        }
    return _scaled("ScaledObject", plan, spec)


def scaled_job(plan: PoolPlan, broker: Broker, queue_urls: dict[str, str], region: str, job: Manifest) -> Manifest:
    """Return the ScaledJob of a pool that runs ``job`` for its work."""
    spec: Manifest = {
        "jobTargetRef": job,
        "minReplicaCount": plan.rules.minimum,
        "maxReplicaCount": plan.rules.maximum,
        "pollingInterval": int(plan.rules.polling),
        "successfulJobsHistoryLimit": KEPT_JOBS,
        "failedJobsHistoryLimit": KEPT_JOBS,
        # A job that runs goes on when its ScaledJob changes.
        "rollout": {"strategy": "gradual"},
        # What runs is counted by the triggers, so the jobs that run are taken off what is wanted.
        "scalingStrategy": {"strategy": "default", "multipleScalersCalculation": "sum"},
        "triggers": _TRIGGERS[broker](plan, queue_urls, region),
    }
    return _scaled("ScaledJob", plan, spec)


def _scaled(kind: str, plan: PoolPlan, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": kind,
        "metadata": {"name": plan.name, "labels": labels(plan.name)},
        "spec": spec,
    }


def _direction(direction: Direction) -> Manifest:
    policies = [
        {"type": change.kind, "value": change.value, "periodSeconds": int(change.period)}
        for change in direction.changes
    ]
    return {"stabilizationWindowSeconds": int(direction.window), "selectPolicy": direction.select, "policies": policies}


def _redis(plan: PoolPlan, _urls: dict[str, str], _region: str) -> list[Manifest]:
    high, normal = keys.queues(plan.pool)
    lists = {
        "waiting_high": keys.waiting(high),
        "waiting": keys.waiting(normal),
        "running": keys.unacked(plan.pool),
    }
    return [
        _trigger(name, "redis", {"listName": key, "listLength": f"{plan.rules.target:g}", "activationListLength": "0"})
        for name, key in lists.items()
    ]


def _sqs(plan: PoolPlan, urls: dict[str, str], region: str) -> list[Manifest]:
    high, normal = keys.queues(plan.pool)
    return [
        _trigger(
            name,
            "aws-sqs-queue",
            {
                "queueURL": urls.get(queue, f"REPLACE-{queue}"),
                "queueLength": f"{plan.rules.target:g}",
                "activationQueueLength": "0",
                "awsRegion": region,
                "scaleOnInFlight": "true",
            },
        )
        for name, queue in (("high", high), ("normal", normal))
    ]


def _rabbitmq(plan: PoolPlan, _urls: dict[str, str], _region: str) -> list[Manifest]:
    high, normal = keys.queues(plan.pool)
    # Only over its HTTP interface does RabbitMQ tell what is delivered and not acknowledged.
    return [
        _trigger(
            name,
            "rabbitmq",
            {
                "protocol": "http",
                "queueName": queue,
                "mode": "QueueLength",
                "value": f"{plan.rules.target:g}",
                "activationValue": "0",
                "excludeUnacknowledged": "false",
            },
        )
        for name, queue in (("high", high), ("normal", normal))
    ]


_TRIGGERS = {"redis": _redis, "sqs": _sqs, "rabbitmq": _rabbitmq}


def _trigger(name: str, kind: str, metadata: dict[str, str]) -> Manifest:
    return {
        "name": name,
        "type": kind,
        "metadata": metadata,
        "authenticationRef": {"name": AUTHENTICATION},
    }


def authentication(broker: Broker) -> Manifest:
    """Return the TriggerAuthentication: no secret stands in it, on AWS there is none at all."""
    spec: Manifest
    if broker == "sqs":
        spec = {"podIdentity": {"provider": "aws"}}
    else:
        names = {"redis": ("address", "password", "tls"), "rabbitmq": ("host",)}[broker]
        spec = {"secretTargetRef": [{"parameter": name, "name": AUTHENTICATION, "key": name} for name in names]}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": AUTHENTICATION, "labels": labels("broker")},
        "spec": spec,
    }
