"""All manifests as files: a base, and overlays for a local cluster and for AWS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from scaling.kube import network, triggers, workloads
from scaling.kube.pools import Manifest, PoolPlan, object_name, plans
from tasks import keys
from tasks.errors import InvalidInput
from tasks.settings import Settings

NAMESPACE: Final = "sluice"
JOBS: Final = {"sweep": "* * * * *", "seal": "* * * * *"}
"""CronJobs, for where no Lambda does it."""


@dataclass(frozen=True)
class Provisioned:
    """What was provisioned for the pipeline, by queue, pool, job and image. Empty: placeholders."""

    region: str = "us-east-1"
    queue_urls: Mapping[str, str] = field(default_factory=dict)
    role_arns: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def render(
    settings: Settings, config: str, broker: triggers.Broker, provisioned: Provisioned | None = None
) -> dict[str, str]:
    """Return the files by path; ``config`` is the text of ``pipeline.yaml``."""
    has = provisioned or Provisioned()
    pools = plans(settings)
    files = {"base/namespace.yaml": [_namespace()], "base/config.yaml": [_config(config)]}
    files["base/network.yaml"] = [
        network.deny_all(),
        network.dns(),
        network.stores([*(plan.name for plan in pools), *JOBS]),
    ]
    files["base/broker.yaml"] = [triggers.authentication(broker)]
    for plan in pools:
        files[f"base/{plan.name}.yaml"] = _pool(plan, broker, has)
    for name, schedule in JOBS.items():
        image = _image("handlers", has)
        files[f"base/{name}.yaml"] = [
            workloads.service_account(name, has.role_arns.get(name)),
            workloads.cron_job(name, schedule, image, has.environment.get(name, {})),
        ]
    written = {path: _dump(documents) for path, documents in files.items()}
    base = sorted(path.removeprefix("base/") for path in files)
    written["base/kustomization.yaml"] = _dump([_kustomization(resources=base, namespace=NAMESPACE)])
    written["overlays/aws/kustomization.yaml"] = _dump([_kustomization(resources=["../../base"], patches=[_gpu()])])
    written["overlays/local/kustomization.yaml"] = _dump(
        [_kustomization(resources=["../../base"], patches=[_small(plan) for plan in pools])]
    )
    return written


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write ``files`` under ``folder``.

    Raises:
        InvalidInput: ``folder`` is a file.
    """
    if folder.is_file():
        raise InvalidInput(f"{folder}: is a file; name a folder")
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _pool(plan: PoolPlan, broker: triggers.Broker, has: Provisioned) -> list[Manifest]:
    return [
        workloads.service_account(plan.name, has.role_arns.get(plan.pool)),
        workloads.deployment(plan, _image(plan.image, has), has.environment.get(plan.pool, {})),
        workloads.disruption_budget(plan),
        triggers.scaled_object(plan, broker, dict(has.queue_urls), has.region),
    ]


def _image(name: str, has: Provisioned) -> str:
    return has.images.get(name, f"sluice/{name}:latest")


def _namespace() -> Manifest:
    enforced = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}}


def _config(config: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": workloads.CONFIG, "labels": workloads.labels("config")},
        "data": {"pipeline.yaml": config},
    }


def _kustomization(**parts: Any) -> Manifest:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **parts}


def _gpu() -> Manifest:
    """Return the patch that puts the intent pool onto GPU nodes."""
    operations = [
        {"op": "add", "path": "/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu", "value": "1"},
        {
            "op": "add",
            "path": "/spec/template/spec/tolerations",
            "value": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
    ]
    return {"target": {"kind": "Deployment", "name": object_name(keys.INTENT_POOL)}, "patch": _dump_list(operations)}


def _small(plan: PoolPlan) -> Manifest:
    """Return the patch that has a pool make do with a laptop."""
    operation = {"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "50m"}
    return {"target": {"kind": "Deployment", "name": plan.name}, "patch": _dump_list([operation])}


def _dump(documents: list[Manifest]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, width=120, allow_unicode=True)


def _dump_list(operations: list[Any]) -> str:
    return yaml.safe_dump(operations, sort_keys=False)
