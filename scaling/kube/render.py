"""All manifests as files: a base, components, and overlays for a local cluster and for AWS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from scaling.kube import network, triggers, workloads
from scaling.kube.pools import Manifest, PoolPlan, plans
from tasks import keys
from tasks.errors import InvalidInput
from tasks.settings import Settings

NAMESPACE: Final = "sluice"
JOBS: Final = {"sweep": "* * * * *", "seal": "* * * * *"}
"""CronJobs, for where no Lambda does it."""
_BASE: Final = "../../base"
_GPU_MEMORY: Final = "4Gi"
"""What CUDA's own libraries take comes on top of the model."""
_PARTS: Final = ("base", "components", "overlays")


@dataclass(frozen=True)
class Provisioned:
    """What was provisioned for the pipeline, by queue, pool and image. Empty: placeholders."""

    region: str = "us-east-1"
    queue_urls: Mapping[str, str] = field(default_factory=dict)
    role_arns: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def render(
    settings: Settings, config: str, broker: triggers.Broker, provisioned: Provisioned | None = None, *, tag: str
) -> dict[str, str]:
    """Return the files by path; ``config`` is the text of ``pipeline.yaml``, ``tag`` that of the images."""
    has = provisioned or Provisioned()
    pools = plans(settings)
    files = {f"base/{name}": documents for name, documents in _base(settings, config, broker, pools).items()}
    for plan in pools:
        files[f"base/{plan.name}.yaml"] = _pool(plan, broker, has, tag)
    base = sorted(path.removeprefix("base/") for path in files)
    files["base/kustomization.yaml"] = [_kustomization(resources=base, namespace=NAMESPACE)]
    for name, schedule in JOBS.items():
        files[f"components/jobs/{name}.yaml"] = [
            workloads.service_account(name, None),
            workloads.cron_job(name, schedule, _image("handlers", has, tag)),
        ]
    files["components/jobs/network.yaml"] = [network.egress("jobs", list(JOBS), network.store_ports(settings))]
    files["components/jobs/kustomization.yaml"] = [
        _component(resources=sorted(["network.yaml", *(f"{name}.yaml" for name in JOBS)]))
    ]
    [intent] = [plan for plan in pools if plan.pool == keys.INTENT_POOL]
    files["components/gpu/kustomization.yaml"] = [_component(patches=[_gpu(intent, _image("intent-gpu", has, tag))])]
    files |= {f"overlays/{name}/kustomization.yaml": [content] for name, content in _overlays(pools).items()}
    return {path: _dump(documents) for path, documents in files.items()}


def _base(settings: Settings, config: str, broker: triggers.Broker, pools: list[PoolPlan]) -> dict[str, list[Manifest]]:
    """Return what the pools share, by file."""
    agents = [plan.name for plan in pools if plan.pool != keys.INTENT_POOL]
    return {
        "namespace.yaml": [_namespace()],
        "config.yaml": [_config(config)],
        "broker.yaml": [triggers.authentication(broker)],
        "network.yaml": [
            network.deny_all(),
            network.dns(),
            network.egress("stores", [plan.name for plan in pools], network.store_ports(settings), identity=True),
            network.egress("agents", agents, network.agent_ports(settings)),
        ],
    }


def _overlays(pools: list[PoolPlan]) -> dict[str, Manifest]:
    """Return what ``kubectl apply -k`` takes, by name. On AWS functions sweep and seal."""
    return {
        "local": _kustomization(
            namespace=NAMESPACE,
            resources=[_BASE],
            components=["../../components/jobs"],
            patches=[_small(plan) for plan in pools],
        ),
        "aws": _kustomization(resources=[_BASE]),
        "aws-gpu": _kustomization(resources=["../aws"], components=["../../components/gpu"]),
    }


def stray(files: Mapping[str, str], folder: Path) -> list[str]:
    """Return the manifests under ``folder`` that are none of ``files``: of a pool that is no more."""
    found = [path.relative_to(folder) for part in _PARTS for path in (folder / part).rglob("*.yaml")]
    return sorted(str(path) for path in found if str(path) not in files)


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


def _pool(plan: PoolPlan, broker: triggers.Broker, has: Provisioned, tag: str) -> list[Manifest]:
    account = workloads.service_account(plan.name, has.role_arns.get(plan.pool))
    workload = (plan, _image(plan.image, has, tag), has.environment.get(plan.pool, {}))
    scaled = (plan, broker, dict(has.queue_urls), has.region)
    if plan.kind == "job":  # a budget counts the pods of what has a scale, and a Job has none
        return [account, triggers.scaled_job(*scaled, workloads.job(*workload))]
    return [
        account,
        workloads.deployment(*workload),
        workloads.disruption_budget(plan),
        triggers.scaled_object(*scaled),
    ]


def _image(name: str, has: Provisioned, tag: str) -> str:
    return has.images.get(name, f"sluice/{name}:{tag}")


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


def _component(**parts: Any) -> Manifest:
    return {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", **parts}


def _gpu(plan: PoolPlan, image: str) -> Manifest:
    """Return the patch that puts the intent pool onto GPU nodes."""
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    return _patch(
        plan,
        ("replace", "containers/0/image", image),
        ("add", "containers/0/resources/limits/nvidia.com~1gpu", "1"),
        ("replace", "containers/0/resources/limits/memory", _GPU_MEMORY),
        ("add", "tolerations", [toleration]),
    )


def _small(plan: PoolPlan) -> Manifest:
    """Return the patch that has a pool make do with a laptop."""
    return _patch(plan, ("replace", "containers/0/resources/requests/cpu", "50m"))


def _patch(plan: PoolPlan, *changes: tuple[str, str, Any]) -> Manifest:
    """Return the patch of a pool's pods: what to do, where in their specification, the value."""
    kind, above = ("ScaledJob", "/spec/jobTargetRef") if plan.kind == "job" else ("Deployment", "/spec")
    operations = [{"op": op, "path": f"{above}/template/spec/{path}", "value": value} for op, path, value in changes]
    return {"target": {"kind": kind, "name": plan.name}, "patch": yaml.safe_dump(operations, sort_keys=False)}


def _dump(documents: list[Manifest]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, width=120, allow_unicode=True)
