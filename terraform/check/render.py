"""Has Terraform apply ``examples/complete`` against the stand-in, and keeps what came out: names, policies, outputs.

``rendered.json`` is what tests look at where no Terraform is at hand; its digest says which files it was made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from terraform.check.schema import Schema

ROOT: Final = Path(__file__).parent.parent
FILE: Final = Path(__file__).parent / "rendered.json"
SAMPLE: Final = Path(__file__).parent / "sample.yaml"
NAME: Final = "acme"
REGION: Final = "eu-central-1"
PLANTED: Final = "made-up"
"""What the stand-in answers where AWS would give a secret. It must not be in the state."""

_KEPT: Final = {
    "aws_iam_role": ("name", "assume_role_policy"),
    "aws_iam_role_policy": ("role", "policy"),
    "aws_sqs_queue": ("name", "visibility_timeout_seconds", "message_retention_seconds", "redrive_policy"),
    "aws_sqs_queue_policy": ("policy",),
    "aws_s3_bucket_policy": ("policy",),
    "aws_kms_key": ("policy",),
    "aws_sns_topic_policy": ("policy",),
    "aws_lambda_function": ("function_name", "handler", "timeout"),
    "aws_scheduler_schedule": ("schedule_expression",),
    "aws_s3_bucket_object_lock_configuration": ("rule",),
    "aws_eks_pod_identity_association": ("namespace", "service_account", "role_arn"),
}


def digest() -> str:
    """Return the SHA-256 of everything that ``rendered.json`` follows from."""
    whole = hashlib.sha256()
    files = sorted({*ROOT.rglob("*.tf"), ROOT / "modules/settings/contract.json", SAMPLE})
    for file in files:
        if ".terraform" not in file.parts:
            whole.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return whole.hexdigest()


class Failed(Exception):
    """Terraform did not do what it was asked; the text is what it said."""


class Workplace:
    """Runs Terraform in a copy of ``terraform/``, with the stand-in for its providers."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment

    def terraform(self, example: str, *words: str) -> str:
        """Run a command in ``examples/<example>`` and return what it prints; raises :class:`Failed`."""
        place = self.folder / "terraform" / "examples" / example
        done = subprocess.run(  # noqa: S603
            ["terraform", *words],  # noqa: S607
            cwd=place,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"terraform {' '.join(words[:2])} in examples/{example}: {done.stderr or done.stdout}")
        return done.stdout

    def variables(self, **more: str) -> Sequence[str]:
        """Return the variables of a run on the sample."""
        given = {"name": NAME, "region": REGION, **more}
        return [f"-var={name}={value}" for name, value in given.items()]


@contextmanager
def workplace() -> Iterator[Workplace]:
    """Yield a workplace; its folder and the stand-in are gone afterwards."""
    from terraform.check.standin import server

    schema = Schema.load().raw
    servers = {provider: server.serve(schema, provider) for provider in schema["provider"]}
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-terraform-") as name:
            folder = Path(name)
            shutil.copytree(
                ROOT, folder / "terraform", ignore=shutil.ignore_patterns(".terraform*", "check", "*.tfstate*")
            )
            (folder / "handlers.zip").write_bytes(b"no code")
            ports = {provider: port for provider, (_, port) in servers.items()}
            ours = {
                "TF_REATTACH_PROVIDERS": server.reattach(ports, os.getpid()),
                "TF_IN_AUTOMATION": "1",
                "CHECKPOINT_DISABLE": "1",
                "TF_CLI_CONFIG_FILE": os.devnull,
                "PATH": os.environ["PATH"],
                "HOME": name,
            }
            yield Workplace(folder, ours)
    finally:
        for running, _ in servers.values():
            running.stop(None)


def render() -> dict[str, Any]:
    """Validate, apply, plan again, destroy; return what ``rendered.json`` holds. Raises :class:`Failed`."""
    with workplace() as place:
        given = place.variables(handlers_zip=str(place.folder / "handlers.zip"), pipeline_file=str(SAMPLE))
        place.terraform("complete", "init", "-no-color", "-backend=false")
        place.terraform("complete", "validate", "-no-color")
        place.terraform("complete", "apply", "-no-color", "-auto-approve", *given)
        if "No changes." not in place.terraform("complete", "plan", "-no-color", *given):
            raise Failed("a second plan wants changes although nothing changed")
        state = place.terraform("complete", "show", "-json")
        if PLANTED in state:
            raise Failed("there is a secret in the state")
        outputs = json.loads(place.terraform("complete", "output", "-json"))["sluice"]["value"]
        _destroyed(place, given)
        _existing_cluster(place)
        _variants(place)
    root = json.loads(state)["values"]["root_module"]
    resources = [resource for resource in _resources(root) if resource["mode"] == "managed"]
    return {"digest": digest(), "counts": _counts(resources), "resources": _kept(resources), "outputs": outputs}


def _destroyed(place: Workplace, given: Sequence[str]) -> None:
    """Destroy refuses to take the audit, and takes all else once the audit is let go."""
    try:
        place.terraform("complete", "destroy", "-no-color", "-auto-approve", *given)
    except Failed as refused:
        if "prevent_destroy" not in str(refused):
            raise
    else:
        raise Failed("destroy took the audit bucket")
    place.terraform("complete", "state", "rm", "module.sluice.module.audit")
    place.terraform("complete", "destroy", "-no-color", "-auto-approve", *given)


def _existing_cluster(place: Workplace) -> None:
    zipped = place.folder / "build" / "handlers.zip"
    zipped.parent.mkdir()
    zipped.write_bytes(b"no code")
    shutil.copy(SAMPLE, place.folder / "pipeline.yaml")
    place.terraform("existing-cluster", "init", "-no-color", "-backend=false")
    place.terraform("existing-cluster", "validate", "-no-color")
    place.terraform("existing-cluster", "apply", "-no-color", "-auto-approve", *place.variables(cluster="shared"))


_VARIANTS: Final = {
    "no cluster": 'with_cluster = false\n new_network = { nat = "none" }\n state = { replicas = 2 }',
    "closed cluster": (
        'new_network = { nat = "per_zone", zone_count = 3 }\n keda = { install = false }\n'
        "new_cluster = { admin_cidrs = [], node_pools = {} }"
    ),
    "given network": 'network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"] }',
}
_REFUSED: Final = {
    "region: the provider works in": 'region = "eu-west-1"',
    "name: 3 to 20": 'name = "Acme"',
    "node_type:": 'state = { node_type = "cache.t4g.small" }',
    "http at most 29": (
        'functions = { for it in ["http", "s3", "seal", "sqs", "sweep"] : it => { timeout = 60, memory = 512 } }'
    ),
    "two availability zones": 'network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"] }',
}


def _variants(place: Workplace) -> None:
    """Plan what the examples do not ask for, and see that what must not be is refused in words."""
    for text in _VARIANTS.values():
        _planned(place, text)
    for words, text in _REFUSED.items():
        try:
            _planned(place, text)
        except Failed as refused:
            if words not in " ".join(str(refused).replace("│", " ").split()):
                raise
        else:
            raise Failed(f"not refused: {text}")


def _planned(place: Workplace, text: str) -> None:
    folder = place.folder / "terraform" / "examples" / "variant"
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "versions.tf", folder)
    given = {"name": f'"{NAME}"', "region": f'"{REGION}"'}
    lines = [f"{name} = {value}" for name, value in given.items() if not text.startswith(f"{name} =")]
    body = "\n".join(['source = "../.."', *lines, text])
    (folder / "main.tf").write_text(f'provider "aws" {{\n region = "{REGION}"\n}}\nmodule "sluice" {{\n{body}\n}}\n')
    place.terraform("variant", "init", "-no-color", "-backend=false")
    place.terraform("variant", "plan", "-no-color", "-input=false")


def _resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources", ())
    for child in module.get("child_modules", ()):
        yield from _resources(child)


def _counts(resources: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how many of each type there are, by module."""
    counts: dict[str, Counter[str]] = {}
    for resource in resources:
        counts.setdefault(resource["address"].split(".")[3].partition("[")[0], Counter())[resource["type"]] += 1
    return {module: dict(found) for module, found in counts.items()}


def _kept(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        resource["address"].removeprefix("module.sluice.module."): {
            name: _parsed(resource["values"].get(name)) for name in _KEPT[resource["type"]]
        }
        for resource in resources
        if resource["type"] in _KEPT
    }


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value
