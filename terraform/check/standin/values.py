"""What the stand-in invents for what only AWS knows: names that follow from what was asked, the same each time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

ACCOUNT: Final = "123456789012"
ZONES: Final = ("a", "b", "c")

Values = Mapping[str, Any]

_ARNS: Final = {
    "aws_sqs_queue": "sqs:{region}:{account}:{name}",
    "aws_s3_bucket": "s3:::{bucket}",
    "aws_iam_role": "iam::{account}:role/{name}",
    "aws_lambda_function": "lambda:{region}:{account}:function:{function_name}",
    "aws_cloudwatch_log_group": "logs:{region}:{account}:log-group:{name}",
    "aws_kms_key": "kms:{region}:{account}:key/{key_id}",
    "aws_secretsmanager_secret": "secretsmanager:{region}:{account}:secret:{name}-AbCdEf",
    "aws_sns_topic": "sns:{region}:{account}:{name}",
    "aws_eks_cluster": "eks:{region}:{account}:cluster/{name}",
    "aws_ecr_repository": "ecr:{region}:{account}:repository/{name}",
}
_OTHERS: Final = {
    ("aws_sqs_queue", "id"): "https://sqs.{region}.amazonaws.com/{account}/{name}",
    ("aws_sqs_queue", "url"): "https://sqs.{region}.amazonaws.com/{account}/{name}",
    ("aws_s3_bucket", "id"): "{bucket}",
    ("aws_iam_role", "id"): "{name}",
    ("aws_cloudwatch_log_group", "id"): "{name}",
    ("aws_eks_cluster", "id"): "{name}",
    ("aws_eks_cluster", "endpoint"): "https://{name}.eks.{region}.example",
    ("aws_secretsmanager_secret", "id"): "arn:aws:secretsmanager:{region}:{account}:secret:{name}-AbCdEf",
    ("aws_ecr_repository", "repository_url"): "{account}.dkr.ecr.{region}.amazonaws.com/{name}",
    (
        "aws_elasticache_replication_group",
        "configuration_endpoint_address",
    ): "clustercfg.{replication_group_id}.abcdef.{region}.cache.example",
    ("aws_api_gateway_rest_api", "execution_arn"): "arn:aws:execute-api:{region}:{account}:{id}",
    ("aws_api_gateway_stage", "invoke_url"): "https://{rest_api_id}.execute-api.{region}.amazonaws.com/{stage_name}",
}


def unique(kind: str, values: Values) -> str:
    """Return an id in hexadecimal that only this resource has."""
    text = json.dumps(
        {"kind": kind, **{name: value for name, value in values.items() if _plain(value)}}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def invent(kind: str, name: str, values: Values, region: str) -> str:
    """Return the text that attribute ``name`` of a resource has once it is made."""
    known = {
        "account": ACCOUNT,
        "region": region,
        "id": unique(kind, values),
        **{k: v for k, v in values.items() if _plain(v)},
    }
    known.setdefault("key_id", known["id"])
    if "name" not in known and isinstance(values.get("name_prefix"), str):
        known["name"] = values["name_prefix"] + known["id"]
    if name == "arn":
        return "arn:aws:" + _ARNS.get(kind, f"{kind.split('_')[1]}:{{region}}:{{account}}:{kind}/{{id}}").format(
            **known
        )
    template = _OTHERS.get((kind, name))
    if template is None:
        return (
            str(known["name"])
            if name == "name" and "name" in known
            else str(known["id"])
            if name in {"id", "key_id"}
            else f"{name}-{known['id']}"
        )
    return template.format(**known)


def data(kind: str, config: Values, region: str) -> dict[str, Any]:
    """Return what a data source answers."""
    answers: dict[str, dict[str, Any]] = {
        "aws_caller_identity": {"account_id": ACCOUNT, "id": ACCOUNT},
        "aws_partition": {"partition": "aws", "id": "aws"},
        "aws_region": {"region": region, "id": region},
        "aws_availability_zones": {"names": [region + zone for zone in ZONES], "id": region},
        "aws_route_tables": {"ids": ["rtb-1", "rtb-2"], "id": region},
        "aws_vpc": {"cidr_block": "10.9.0.0/16", "id": config.get("id")},
        "aws_eks_cluster": {
            "arn": f"arn:aws:eks:{region}:{ACCOUNT}:cluster/{config.get('name')}",
            "endpoint": f"https://{config.get('name')}.eks.{region}.example",
            "certificate_authority": [{"data": "Y2E="}],
            "vpc_config": [
                {"vpc_id": "vpc-9", "subnet_ids": ["subnet-1", "subnet-2"], "cluster_security_group_id": "sg-9"}
            ],
        },
    }
    if kind == "aws_iam_policy_document":
        text = json.dumps(policy(config), indent=2, sort_keys=True)
        return {"json": text, "minified_json": text, "id": hashlib.sha256(text.encode()).hexdigest()[:8]}
    return answers[kind]


def policy(config: Values) -> dict[str, Any]:
    """Return the policy document that ``aws_iam_policy_document`` describes."""
    statements: list[dict[str, Any]] = []
    for source in config.get("source_policy_documents") or []:
        statements += json.loads(source)["Statement"]
    for block in config.get("statement") or []:
        statement: dict[str, Any] = {"Effect": block.get("effect") or "Allow"}
        if block.get("sid"):
            statement["Sid"] = block["sid"]
        for key, name in (
            ("Action", "actions"),
            ("NotAction", "not_actions"),
            ("Resource", "resources"),
            ("NotResource", "not_resources"),
        ):
            if block.get(name):
                statement[key] = sorted(block[name])
        for principal in block.get("principals") or []:
            statement.setdefault("Principal", {}).setdefault(principal["type"], []).extend(
                sorted(principal["identifiers"])
            )
        for condition in block.get("condition") or []:
            statement.setdefault("Condition", {}).setdefault(condition["test"], {})[condition["variable"]] = condition[
                "values"
            ]
        statements.append(statement)
    return {"Version": "2012-10-17", "Statement": statements}
