"""Deployments or Jobs of the pools, and what stands beside each: account, disruption budget; CronJobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from scaling.kube.pools import Manifest, PoolPlan

CONFIG: Final = "sluice-config"
SECRETS: Final = "sluice-environment"
COMPONENT: Final = "app.kubernetes.io/component"
ALIVE_COMMAND: Final = ("alive",)
"""In every image of a worker (``images/alive.sh``): fails where the worker's heart has stood still for two minutes."""
_SCRATCH: Final = "/tmp"  # noqa: S108  the container's own
_ALIVE_FILE: Final = f"{_SCRATCH}/alive"
_USER: Final = 65532
_LABELS: Final = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/part-of": "sluice"}
KEPT_JOBS: Final = 3
_KEPT_SECONDS: Final = 300


def labels(component: str) -> dict[str, str]:
    """Return the labels of one component's objects."""
    return {**_LABELS, COMPONENT: component}


def account_name(component: str) -> str:
    """Return the name of a component's ServiceAccount, which its role on AWS trusts."""
    return f"sluice-{component}"


def deployment(plan: PoolPlan, image: str, environment: Mapping[str, str]) -> Manifest:
    """Return the Deployment of a pool. It has no replica count: that is the autoscaler's."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": plan.name, "labels": labels(plan.name)},
        "spec": {
            "selector": {"matchLabels": labels(plan.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": _worker(plan, image, environment),
        },
    }


def job(plan: PoolPlan, image: str, environment: Mapping[str, str]) -> Manifest:
    """Return the Job of a pool whose workers nobody takes away: each ends when nothing came for the cooldown."""
    template = _worker(plan, image, environment, until=["--until-idle", f"{plan.rules.cooldown:g}"])
    template["spec"]["restartPolicy"] = "Never"
    # What a worker had in hand that failed is work in flight: the scaler starts the next one for it.
    return {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": _KEPT_SECONDS,
        "template": template,
    }


def _worker(plan: PoolPlan, image: str, environment: Mapping[str, str], *, until: Sequence[str] = ()) -> Manifest:
    """Return the pods of a pool."""
    container = {
        **_container("worker", image, ["worker", "--pool", plan.pool, *until]),
        "env": _env(
            {
                **environment,
                "SLUICE_SCALING__GRACE_SECONDS": str(plan.drain_seconds),
                "SLUICE_LEASES__ALIVE_FILE": _ALIVE_FILE,
            }
        ),
        "resources": {
            "requests": {"cpu": "250m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "768Mi", "ephemeral-storage": "256Mi"},
        },
        # A worker takes work as soon as it runs, and waits for no probe. The first says when a roll-out may go on.
        "startupProbe": _probe(period=1, failures=120),
        "livenessProbe": _probe(period=30, failures=4),
    }
    pod = {
        **_pod(plan.name, [container]),
        "terminationGracePeriodSeconds": plan.termination_seconds,
        "topologySpreadConstraints": [_spread(plan.name, over) for over in _SPREAD_OVER],
    }
    return {"metadata": {"labels": labels(plan.name)}, "spec": pod}


_SPREAD_OVER: Final = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")


def _spread(component: str, over: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": over,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels(component)},
    }


def _probe(*, period: int, failures: int) -> Manifest:
    return {
        "exec": {"command": list(ALIVE_COMMAND)},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def disruption_budget(plan: PoolPlan) -> Manifest:
    """Return the budget of a pool: a node is drained one worker at a time, and never held up."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": plan.name, "labels": labels(plan.name)},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels(plan.name)}},
    }


def service_account(name: str, role_arn: str | None) -> Manifest:
    """Return the account of a component; on AWS it stands for ``role_arn``."""
    annotations = {"annotations": {"eks.amazonaws.com/role-arn": role_arn}} if role_arn else {}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": account_name(name), "labels": labels(name), **annotations},
        "automountServiceAccountToken": False,
    }


def cron_job(name: str, schedule: str, image: str) -> Manifest:
    """Return what runs ``sluice NAME`` on a schedule, one at a time."""
    container = {
        **_container(name, image, [name]),
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "512Mi", "ephemeral-storage": "256Mi"},
        },
    }
    pod = {**_pod(name, [container]), "restartPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "labels": labels(name)},
        "spec": {
            "schedule": schedule,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 60,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": KEPT_JOBS,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": 600,
                    "template": {"metadata": {"labels": labels(name)}, "spec": pod},
                }
            },
        },
    }


def _env(variables: Mapping[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in sorted(variables.items())]


def _pod(name: str, containers: list[Manifest]) -> Manifest:
    return {
        "serviceAccountName": account_name(name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": [
            {"name": "config", "configMap": {"name": CONFIG}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "256Mi"}},
        ],
    }


def _container(name: str, image: str, command: list[str]) -> Manifest:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sluice"],
        "args": ["--config", "/etc/sluice/pipeline.yaml", *command],
        "envFrom": [{"secretRef": {"name": SECRETS}}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/sluice", "readOnly": True},
            {"name": "scratch", "mountPath": _SCRATCH},
        ],
    }
