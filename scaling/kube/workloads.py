"""Deployments of the pools, and what stands beside each: account, disruption budget; CronJobs for sweep and seal."""

from __future__ import annotations

from collections.abc import Mapping

from scaling.kube.pools import Manifest, PoolPlan

CONFIG = "sluice-config"
SECRETS = "sluice-environment"
_ALIVE = "/tmp/alive"  # noqa: S108  the container's own
"""A worker touches this file at each heartbeat."""
_IS_ALIVE = f"test $(( $(date +%s) - $(stat -c %Y {_ALIVE}) )) -lt 120"
_USER = 65532
_LABELS = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/part-of": "sluice"}


def labels(component: str) -> dict[str, str]:
    """Return the labels of one component's objects."""
    return {**_LABELS, "app.kubernetes.io/component": component}


def account_name(component: str) -> str:
    """Return the name of a component's ServiceAccount, which its role on AWS trusts."""
    return f"sluice-{component}"


def deployment(plan: PoolPlan, image: str, environment: Mapping[str, str]) -> Manifest:
    """Return the Deployment of a pool. It has no replica count: that is the autoscaler's."""
    container = {
        **_container("worker", image, ["worker", "--pool", plan.pool]),
        "env": _env(
            {
                **environment,
                "SLUICE_SCALING__GRACE_SECONDS": str(plan.drain_seconds),
                "SLUICE_LEASES__ALIVE_FILE": _ALIVE,
            }
        ),
        "resources": {
            "requests": {"cpu": "250m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "768Mi", "ephemeral-storage": "256Mi"},
        },
        # Work may come as soon as the process takes it; nothing waits for a probe.
        "livenessProbe": {
            "exec": {"command": ["sh", "-c", _IS_ALIVE]},
            "initialDelaySeconds": 60,
            "periodSeconds": 30,
            "timeoutSeconds": 5,
            "failureThreshold": 4,
        },
    }
    pod = {
        **_pod(plan.name, [container]),
        "terminationGracePeriodSeconds": plan.termination_seconds,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels(plan.name)},
            }
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": plan.name, "labels": labels(plan.name)},
        "spec": {
            "selector": {"matchLabels": labels(plan.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels(plan.name)}, "spec": pod},
        },
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


def cron_job(name: str, schedule: str, image: str, environment: Mapping[str, str]) -> Manifest:
    """Return what runs ``sluice NAME`` on a schedule, one at a time."""
    container = {
        **_container(name, image, [name]),
        "env": _env(environment),
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
            "failedJobsHistoryLimit": 3,
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
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108  the container's own
        ],
    }
