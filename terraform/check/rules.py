"""What must hold of this infrastructure whatever the schema allows: the promises of docs/terraform.md, block by block.

A finding is waived by ``# sluice:skip=RULE: reason`` on its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from terraform.check.evaluate import UNKNOWN, evaluate
from terraform.check.hcl import Block, Finding, Folder, every_attribute, only, references, strings

_TIMES: Final = (1, 30, 900)
_WAIVED: Final = re.compile(r"sluice:skip=([a-z-]+): *(\S.*)")


class Demand(NamedTuple):
    """An argument of a type, by its path through blocks, that must have one of ``values``, where there are any."""

    kind: str
    path: str
    values: tuple[Any, ...]
    rule: str
    why: str


_DEMANDS: Final = (
    Demand("aws_sqs_queue", "kms_master_key_id", (), "unencrypted", "messages are encrypted with a key of ours"),
    *(
        Demand("aws_s3_bucket_public_access_block", name, (True,), "public-bucket", "no bucket is public")
        for name in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    ),
    Demand(
        "aws_s3_bucket_versioning",
        "versioning_configuration.status",
        ("Enabled",),
        "unversioned",
        "buckets keep versions",
    ),
    Demand(
        "aws_s3_bucket_server_side_encryption_configuration",
        "rule.apply_server_side_encryption_by_default.sse_algorithm",
        ("aws:kms",),
        "unencrypted",
        "objects are encrypted with a key of ours",
    ),
    Demand(
        "aws_s3_bucket_object_lock_configuration",
        "rule.default_retention.mode",
        ("COMPLIANCE",),
        "unlocked",
        "governance can be overridden: nobody may shorten the lock",
    ),
    Demand(
        "aws_ecr_repository", "image_tag_mutability", ("IMMUTABLE",), "mutable-tags", "a tag names one image for ever"
    ),
    Demand(
        "aws_ecr_repository", "image_scanning_configuration.scan_on_push", (True,), "unscanned", "images are scanned"
    ),
    Demand(
        "aws_elasticache_replication_group",
        "durability",
        ("sync",),
        "not-durable",
        "what is acknowledged must survive: an accepted request is a row here",
    ),
    Demand("aws_elasticache_replication_group", "transit_encryption_enabled", (True,), "no-tls", "clients use TLS"),
    Demand(
        "aws_elasticache_replication_group",
        "at_rest_encryption_enabled",
        (True,),
        "unencrypted",
        "snapshots are encrypted",
    ),
    Demand("aws_elasticache_replication_group", "multi_az_enabled", (True,), "one-zone", "a zone may be lost"),
    Demand(
        "aws_elasticache_replication_group", "automatic_failover_enabled", (True,), "one-zone", "a zone may be lost"
    ),
    Demand("aws_elasticache_replication_group", "auth_token_wo", (), "no-auth", "clients have a password"),
    Demand(
        "aws_lambda_event_source_mapping",
        "function_response_types",
        (["ReportBatchItemFailures"],),
        "whole-batch",
        "one bad message must not bring back the good ones",
    ),
    Demand("aws_cloudwatch_log_group", "retention_in_days", (), "kept-for-ever", "logs end some day"),
    Demand("aws_cloudwatch_log_group", "kms_key_id", (), "unencrypted", "logs are encrypted with a key of ours"),
    Demand("aws_sns_topic", "kms_master_key_id", (), "unencrypted", "alerts are encrypted with a key of ours"),
    Demand("aws_secretsmanager_secret", "kms_key_id", (), "unencrypted", "secrets are encrypted with a key of ours"),
    Demand(
        "aws_launch_template",
        "metadata_options.http_tokens",
        ("required",),
        "imds-v1",
        "pods must not get node credentials",
    ),
    Demand("aws_launch_template", "block_device_mappings.ebs.encrypted", (True,), "unencrypted", "disks are encrypted"),
    Demand(
        "aws_eks_cluster", "encryption_config.provider.key_arn", (), "unencrypted", "Kubernetes secrets are encrypted"
    ),
    Demand(
        "aws_api_gateway_method_settings",
        "settings.data_trace_enabled",
        (False,),
        "logs-bodies",
        "traces log whole requests, with what is secret in them",
    ),
    Demand("aws_lambda_function", "vpc_config.subnet_ids", (), "outside-vpc", "functions must reach the state store"),
)

_SECRET_ARGUMENTS: Final = {
    ("aws_elasticache_replication_group", "auth_token"),
    ("aws_secretsmanager_secret_version", "secret_string"),
    ("aws_secretsmanager_secret_version", "secret_binary"),
    ("aws_elasticache_user", "passwords"),
    ("aws_api_gateway_api_key", "value"),
}
_SECRET_TYPES: Final = {"random_password", "tls_private_key", "aws_iam_access_key", "aws_api_gateway_api_key"}
_BUCKET_PARTS: Final = {
    "aws_s3_bucket_public_access_block": "public-bucket",
    "aws_s3_bucket_versioning": "unversioned",
    "aws_s3_bucket_server_side_encryption_configuration": "unencrypted",
    "aws_s3_bucket_ownership_controls": "public-bucket",
    "aws_s3_bucket_policy": "no-tls",
    "aws_s3_bucket_lifecycle_configuration": "kept-for-ever",
}


def check(folders: Iterable[Folder]) -> Iterator[Finding]:
    """Yield what breaks a rule and is not waived."""
    for folder in folders:
        for finding in _found(folder):
            waiver = _WAIVED.search(folder.lines[finding.file][finding.line - 1])
            if waiver is None or waiver[1] != finding.rule:
                yield finding


def _found(folder: Folder) -> Iterator[Finding]:
    for block in folder.blocks:
        for rule in _RULES.get((block.kind, block.labels[0] if block.labels else ""), ()):
            yield from rule(block)
        if block.kind == "resource":
            yield from _demanded(block)
            yield from _secret(block)
    yield from _buckets(folder)


def _at(block: Block, path: str) -> Iterator[tuple[Block, Any]]:
    """Yield the value at the end of ``path`` in each place where it leads, and None where it ends before."""
    step, _, rest = path.partition(".")
    if rest:
        inner = list(block.of(step))
        for below in inner:
            yield from _at(below, rest)
        if not inner:
            yield block, None
    elif step in block.attributes:
        yield block, block.attributes[step]
    else:
        yield block, None


def _demanded(block: Block) -> Iterator[Finding]:
    for kind, path, wanted, rule, why in _DEMANDS:
        if kind != block.labels[0]:
            continue
        for place, attribute in _at(block, path):
            value = evaluate(attribute.value) if attribute else None
            if attribute is None or value is None or (wanted and value not in wanted):
                line = attribute.line if attribute else place.line
                needed = f"must be {' or '.join(map(repr, wanted))}" if wanted else "is missing"
                yield Finding(block.file, line, rule, f"{block.address}: {path} {needed}: {why}")


def _secret(block: Block) -> Iterator[Finding]:
    if block.labels[0] in _SECRET_TYPES:
        yield Finding(block.file, block.line, "secret-in-state", f"{block.address} keeps a secret in the state")
    for name, attribute in block.attributes.items():
        if (block.labels[0], name) in _SECRET_ARGUMENTS:
            yield Finding(
                block.file,
                attribute.line,
                "secret-in-state",
                f"{block.address}: {name} is kept in the state: use {name}_wo",
            )


# Policies ---------------------------------------------------------------------------------------------------


def _policy(block: Block) -> Iterator[Finding]:  # noqa: C901  a rule each
    for statement in block.of("statement"):
        effect = statement.attributes.get("effect")
        allows = effect is None or evaluate(effect.value) != "Deny"
        for name, rule in (("not_actions", "wildcard-action"), ("not_resources", "wildcard-resource")):
            if name in statement.attributes and allows:
                yield Finding(
                    block.file, statement.attributes[name].line, rule, f"{block.address}: {name} allows all else"
                )
        for text, line in _words(statement, "actions"):
            if "*" in text:
                yield Finding(block.file, line, "wildcard-action", f"{block.address}: {text}: name each call")
        for text, line in _words(statement, "resources"):
            if text == "*":
                yield Finding(block.file, line, "wildcard-resource", f"{block.address}: name the ARN")
        for principals in statement.of("principals"):
            for text, line in _words(principals, "identifiers"):
                if text == "*" and allows:
                    yield Finding(block.file, line, "public", f"{block.address} allows everybody")


def _words(block: Block, name: str) -> Iterator[tuple[str, int]]:
    attribute = block.attributes.get(name)
    yield from strings(attribute.value) if attribute else ()


# Queues ---------------------------------------------------------------------------------------------------------


def _queue(block: Block) -> Iterator[Finding]:
    """A queue that a function reads is hidden for six times its time-out, whatever that is; what is read redrives."""
    visibility = block.attributes.get("visibility_timeout_seconds")
    if block.labels[1] == "intake":
        values = [evaluate(visibility.value, {"each.value": time}) if visibility else 30 for time in _TIMES]
        if any(value is UNKNOWN or value < 6 * time for value, time in zip(values, _TIMES, strict=True)):
            line = visibility.line if visibility else block.line
            yield Finding(
                block.file,
                line,
                "short-visibility",
                f"{block.address}: visibility must be six times the function's time-out at least",
            )
    if visibility and "redrive_policy" not in block.attributes:
        yield Finding(block.file, block.line, "no-redrive", f"{block.address}: poison messages would go round for ever")


# Audit, keys, network -----------------------------------------------------------------------------------------------


def _audit_bucket(block: Block) -> Iterator[Finding]:
    if block.labels[1] != "audit":
        return
    lock = block.attributes.get("object_lock_enabled")
    if lock is None or evaluate(lock.value) is not True:
        yield Finding(
            block.file,
            lock.line if lock else block.line,
            "unlocked",
            f"{block.address}: object_lock_enabled must be true, and can only be had from the start",
        )
    if "force_destroy" in block.attributes:
        yield Finding(
            block.file, block.attributes["force_destroy"].line, "destroyable", f"{block.address}: no force_destroy here"
        )
    yield from _kept(block)


def _kept(block: Block) -> Iterator[Finding]:
    for place, attribute in _at(block, "lifecycle.prevent_destroy"):
        if attribute is None or evaluate(attribute.value) is not True:
            line = attribute.line if attribute else place.line
            yield Finding(block.file, line, "destroyable", f"{block.address}: prevent_destroy must be true")


def _lock_time(block: Block) -> Iterator[Finding]:
    for place, attribute in _at(block, "rule.default_retention.days"):
        days = evaluate(attribute.value, {"var.retention_days": 180}) if attribute else None
        if not isinstance(days, int | float) or days < 181:
            line = attribute.line if attribute else place.line
            yield Finding(
                block.file, line, "unlocked", f"{block.address}: the lock must outlast retention_days by a day"
            )


def _key(block: Block) -> Iterator[Finding]:
    usage, rotation = block.attributes.get("key_usage"), block.attributes.get("enable_key_rotation")
    signs = usage is not None and evaluate(usage.value) == "SIGN_VERIFY"
    if not signs and (rotation is None or evaluate(rotation.value) is not True):
        line = rotation.line if rotation else block.line
        yield Finding(block.file, line, "unrotated", f"{block.address}: enable_key_rotation must be true")
    if block.labels[1] == "audit":
        yield from _kept(block)


def _ingress(block: Block) -> Iterator[Finding]:
    for name in ("cidr_ipv4", "cidr_ipv6"):
        attribute = block.attributes.get(name)
        if attribute and evaluate(attribute.value) in {"0.0.0.0/0", "::/0", UNKNOWN} and not _of_vpc(attribute.value):
            yield Finding(block.file, attribute.line, "open-ingress", f"{block.address}: {name} is open to the world")


def _of_vpc(node: Any) -> bool:
    return any(reference.path[-1] == "vpc_cidr" for reference in references(node))


def _access_log(block: Block) -> Iterator[Finding]:
    formats = [attribute for inner, attribute in every_attribute(block) if attribute.name == "format"]
    if not formats:
        yield Finding(block.file, block.line, "no-access-log", f"{block.address} needs access_log_settings")
    for attribute in formats:
        for text, line in strings(attribute.value):
            if re.search(r"header|authorizer|queryString|\$context\.path|apiKey$", text, re.IGNORECASE):
                yield Finding(block.file, line, "logs-secrets", f"{block.address}: {text} may hold a secret")


def _firewall(block: Block) -> Iterator[Finding]:
    kinds = {
        inner.kind for rule in block.of("rule") for statement in rule.of("statement") for inner in statement.blocks
    }
    for needed in ("size_constraint_statement", "rate_based_statement", "managed_rule_group_statement"):
        if needed not in kinds:
            yield Finding(block.file, block.line, "weak-firewall", f"{block.address} has no {needed}")


def _callable_by(block: Block) -> Iterator[Finding]:
    principal = block.attributes.get("source_arn")
    if principal is None:
        yield Finding(
            block.file, block.line, "public", f"{block.address}: without source_arn any API may call the function"
        )


_RULES: Final[Mapping[tuple[str, str], tuple[Callable[[Block], Iterator[Finding]], ...]]] = {
    ("data", "aws_iam_policy_document"): (_policy,),
    ("resource", "aws_sqs_queue"): (_queue,),
    ("resource", "aws_s3_bucket"): (_audit_bucket,),
    ("resource", "aws_s3_bucket_object_lock_configuration"): (_lock_time,),
    ("resource", "aws_kms_key"): (_key,),
    ("resource", "aws_vpc_security_group_ingress_rule"): (_ingress,),
    ("resource", "aws_api_gateway_stage"): (_access_log,),
    ("resource", "aws_wafv2_web_acl"): (_firewall,),
    ("resource", "aws_lambda_permission"): (_callable_by,),
}


def _buckets(folder: Folder) -> Iterator[Finding]:
    """Every bucket has each of its parts beside it; a stage of an API has its firewall."""
    made = list(folder.of("resource"))
    buckets = [block for block in made if block.labels[0] == "aws_s3_bucket"]
    parts = dict(_BUCKET_PARTS)
    for bucket in buckets:
        wanted = parts | (
            {"aws_s3_bucket_object_lock_configuration": "unlocked"} if bucket.labels[1] == "audit" else {}
        )
        for kind, rule in wanted.items():
            if not any(block.labels[0] == kind and _names(block, "bucket", bucket.labels[1]) for block in made):
                yield Finding(bucket.file, bucket.line, rule, f"{bucket.address} has no {kind}")
    if not any(block.labels[0] == "aws_wafv2_web_acl_association" for block in made):
        for stage in (block for block in made if block.labels[0] == "aws_api_gateway_stage"):
            yield Finding(
                stage.file, stage.line, "weak-firewall", f"{stage.address} has no aws_wafv2_web_acl_association"
            )


def _names(block: Block, argument: str, name: str) -> bool:
    attribute = block.attributes.get(argument)
    return attribute is not None and any(
        reference.path[1:2] == (name,) for reference in references(only(attribute.value))
    )
