"""Each role's policy as Terraform renders it, held against calls that must be allowed, and calls that must not."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import keys
from terraform.check import render
from tests.support.iam import allowed

REGION, ACCOUNT = render.REGION, "123456789012"
POOLS = (
    "intent",
    "agents.planner",
    "agents.translator",
    "agents.executor",
    "agents.responder",
    "agents.human_escalation",
    "callbacks",
)
FUNCTIONS = ("s3", "sqs", "http", "sweep", "seal")
ROLES = (*POOLS, *FUNCTIONS, "keda")
DATA = f"arn:aws:s3:::acme-data-{ACCOUNT}-{REGION}"
AUDIT = f"arn:aws:s3:::acme-audit-{ACCOUNT}-{REGION}"
CREATE = {"s3:if-none-match": "*"}


def queue(name: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{keys.sqs_queue(render.NAME, name)}"


def secret(name: str) -> str:
    return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:acme/{name}-AbCdEf"


def data(key: str) -> str:
    return f"{DATA}/{key}"


def audit(key: str) -> str:
    return f"{AUDIT}/{key}"


QUEUES = {name: queue(name) for pool in POOLS for name in keys.queues(pool)}
QUEUES |= {name: queue(name) for name in (keys.DEAD_LETTERS, keys.QUARANTINE, keys.UPLOADED, keys.EVENTS)}
READS = {pool: set(keys.queues(pool)) for pool in POOLS} | {
    "s3": {keys.UPLOADED},
    "sqs": {keys.EVENTS},
    "sweep": {keys.DEAD_LETTERS},
}
REQUESTS = set(keys.queues("intent"))
DEAD_ENDS = {keys.DEAD_LETTERS, keys.QUARANTINE}
AGENTS = {name for pool in POOLS[1:-1] for name in keys.queues(pool)}
CALLBACKS = set(keys.queues("callbacks"))
SENDS = {
    **dict.fromkeys(("intent", *POOLS[1:-1], "http", "sweep"), REQUESTS | AGENTS | CALLBACKS | DEAD_ENDS),
    "callbacks": CALLBACKS | DEAD_ENDS,
    **dict.fromkeys(("s3", "sqs"), REQUESTS | DEAD_ENDS),
}
OBJECTS = {
    "result": data(keys.result("t", "r")),
    "session": data(keys.session("t", "s", 1)),
    "body": data(keys.body("t", "r", "d")),
    "plan": data(keys.plan("t", "r")),
    "step": data(keys.step_result("t", "r", 1, "s")),
    "escalation": data(keys.escalation("t", "r", 1)),
    "journal": data(keys.journal_entry(keys.journal_prefix("t", "r", 1, "s"), "tool", "d", 1, "begun")),
    "attachment": data(f"{keys.attachment_prefix('t')}a.csv"),
    "model": data(keys.model_file("intent", "v", "model.onnx")),
    "promotion": data(keys.promotion("intent", 1)),
    "upload": data(f"{keys.UPLOADS}t/a.jsonl"),
    "manifest": data(f"{keys.MANIFESTS}t/a.jsonl"),
    "segment": audit(f"{keys.AUDIT_PREFIX}2030/01/01/00/0000.000~s~0.jsonl.zst"),
    "checkpoint": audit(keys.checkpoint(1)),
    "leaves": audit(keys.leaves(1, "d")),
}
AGENT_WRITES = {"result", "session", "step", "escalation", "journal", "segment"}
AGENT_READS = AGENT_WRITES - {"segment"} | {"body", "plan", "attachment"}
GETS = {
    "intent": {"result", "body", "model", "promotion"},
    **dict.fromkeys(POOLS[1:-1], AGENT_READS),
    "callbacks": {"result", "body"},
    "s3": {"result", "upload"},
    "sqs": {"result"},
    "http": {"result", "session", "body", "plan", "step", "escalation"},
    "sweep": {"result", "body", "plan", "step"},
    "seal": {"segment", "checkpoint", "leaves"},
}
PUTS = {
    "intent": {"result", "segment"},
    **dict.fromkeys(POOLS[1:-1], AGENT_WRITES),
    "callbacks": {"segment"},
    "agents.planner": AGENT_WRITES | {"plan"},
    "s3": {"body", "manifest", "segment"},
    "sqs": {"body", "segment"},
    "http": {"body", "result", "escalation", "segment"},
    "sweep": {"result", "step", "segment"},
    "seal": {"segment", "checkpoint", "leaves"},
}
SHARED = {"ring", "redis-url", "commitment"}
SECRETS = {
    **{pool: SHARED | {f"signing/{pool}", "model-api-key"} for pool in POOLS[1:-1]},
    "intent": SHARED | {"signing/intent"},
    "callbacks": SHARED | {"signing/callbacks", "callbacks"},
    **dict.fromkeys(("s3", "sqs", "http"), SHARED | {"signing/door"}),
    "sweep": SHARED | {"signing/sweeper"},
    "seal": SHARED,
}
EVERY_SECRET = {
    *SHARED,
    "state-password",
    "model-api-key",
    "callbacks",
    *(f"signing/{signer}" for signer in (*POOLS, "door", "sweeper")),
}


@pytest.fixture
def statements(resources: dict[str, Any]) -> dict[str, list[Any]]:
    def of(address: str) -> list[Any]:
        found: list[Any] = resources[f"identity.aws_iam_role_policy.{address}"]["policy"]["Statement"]
        return found

    pools = {pool: of(f'pool["{pool}"]') for pool in POOLS}
    return pools | {name: of(f'function["{name}"]') for name in FUNCTIONS} | {"keda": of("keda[0]")}


@pytest.fixture
def bucket_rules(resources: dict[str, Any]) -> list[Any]:
    rules: list[Any] = []
    for address in ("audit.aws_s3_bucket_policy.audit", "storage.aws_s3_bucket_policy.data"):
        rules += resources[address]["policy"]["Statement"]
    return rules


@pytest.mark.parametrize("role", ROLES)
def test_a_role_receives_from_its_own_queues_only(role: str, statements: dict[str, list[Any]]) -> None:
    for call in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"):
        assert {name for name, arn in QUEUES.items() if allowed(statements[role], call, arn)} == READS.get(role, set())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_sends_only_where_its_work_goes_on(role: str, statements: dict[str, list[Any]]) -> None:
    sends = {name for name, arn in QUEUES.items() if allowed(statements[role], "sqs:SendMessage", arn)}
    assert sends == SENDS.get(role, set())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_and_creates_the_objects_of_its_work(
    role: str, statements: dict[str, list[Any]], bucket_rules: list[Any]
) -> None:
    def may(call: str, **context: str) -> set[str]:
        return {
            name
            for name, arn in OBJECTS.items()
            if allowed(statements[role], call, arn, denials=bucket_rules, context=context)
        }

    assert may("s3:GetObject") == GETS.get(role, set())
    assert may("s3:PutObject", **CREATE) == PUTS.get(role, set())
    # Without If-None-Match nothing goes into the audit.
    assert may("s3:PutObject") == PUTS.get(role, set()) - {"segment", "checkpoint", "leaves"}
    # Nor does anything go anywhere in the clear.
    assert may("s3:GetObject", **{"aws:SecureTransport": "false"}) == set()


@pytest.mark.parametrize("role", ROLES)
def test_nobody_deletes_or_unlocks(role: str, statements: dict[str, list[Any]], bucket_rules: list[Any]) -> None:
    administrator = [{"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}]
    for call in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectRetention", "s3:BypassGovernanceRetention"):
        for arn in OBJECTS.values():
            assert not allowed(statements[role], call, arn)
        assert not allowed(administrator, call, OBJECTS["segment"], denials=bucket_rules)
    for call in (
        "s3:PutBucketPolicy",
        "s3:DeleteBucket",
        "s3:PutLifecycleConfiguration",
        "s3:PutBucketObjectLockConfiguration",
    ):
        assert not allowed(statements[role], call, AUDIT)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_its_own_secrets_only(role: str, statements: dict[str, list[Any]]) -> None:
    readable = {
        name for name in EVERY_SECRET if allowed(statements[role], "secretsmanager:GetSecretValue", secret(name))
    }
    assert readable == SECRETS.get(role, set())
    assert not any(allowed(statements[role], "secretsmanager:PutSecretValue", secret(name)) for name in EVERY_SECRET)


@pytest.mark.parametrize("role", ROLES)
def test_only_the_sealer_signs_checkpoints_and_lists_the_audit(
    role: str, statements: dict[str, list[Any]], outputs: dict[str, Any]
) -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{outputs['sealing_key']['id']}"
    assert allowed(statements[role], "kms:Sign", key) == (role == "seal")
    assert allowed(statements[role], "s3:ListBucket", AUDIT) == (role == "seal")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "call",
    [
        "iam:PassRole",
        "sts:AssumeRole",
        "kms:ScheduleKeyDeletion",
        "kms:CreateGrant",
        "sqs:PurgeQueue",
        "sqs:SetQueueAttributes",
        "lambda:UpdateFunctionCode",
        "lambda:InvokeFunction",
        "sns:Subscribe",
        "ec2:RunInstances",
        "logs:DeleteLogGroup",
    ],
)
def test_no_role_may_change_the_infrastructure(role: str, call: str, statements: dict[str, list[Any]]) -> None:
    named = {arn for statement in statements[role] for arn in statement["Resource"]}
    assert not any(
        allowed(statements[role], call, arn) for arn in {*named, "*", f"arn:aws:iam::{ACCOUNT}:role/acme-seal"}
    )


def test_keda_counts_messages_and_nothing_else(statements: dict[str, list[Any]]) -> None:
    counted = {name for name, arn in QUEUES.items() if allowed(statements["keda"], "sqs:GetQueueAttributes", arn)}
    assert counted == REQUESTS | AGENTS | CALLBACKS
    assert {call for statement in statements["keda"] for call in statement["Action"]} == {"sqs:GetQueueAttributes"}


def test_the_code_of_a_function_may_not_make_network_interfaces(statements: dict[str, list[Any]]) -> None:
    inside = {"lambda:SourceFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:acme-http"}
    assert allowed(statements["http"], "ec2:CreateNetworkInterface", "*")
    assert not allowed(statements["http"], "ec2:CreateNetworkInterface", "*", context=inside)


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_s_role_can_only_be_had_by_its_own_service_account(
    pool: str, resources: dict[str, Any], outputs: dict[str, Any]
) -> None:
    [statement] = resources[f'identity.aws_iam_role.pool["{pool}"]']["assume_role_policy"]["Statement"]
    assert statement["Principal"] == {"Service": ["pods.eks.amazonaws.com"]}
    wanted = statement["Condition"]["StringEquals"]
    assert wanted["aws:RequestTag/kubernetes-service-account"] == [outputs["pools"][pool]["service_account"]]
    assert wanted["aws:RequestTag/kubernetes-namespace"] == [outputs["namespace"]]


def test_s3_alone_sends_notices_and_only_of_the_data_bucket(resources: dict[str, Any]) -> None:
    policies = {
        address: it["policy"]["Statement"] for address, it in resources.items() if ".aws_sqs_queue_policy." in address
    }
    assert len(policies) == len(QUEUES)
    allows = {address: [it for it in statements if it["Effect"] == "Allow"] for address, statements in policies.items()}
    [(address, [notice])] = [(address, found) for address, found in allows.items() if found]
    assert f'"{keys.UPLOADED}"' in address
    assert notice["Condition"]["ArnEquals"] == {"aws:SourceArn": [DATA]}
    assert all(any(it["Effect"] == "Deny" and "Bool" in it["Condition"] for it in found) for found in policies.values())


def test_no_rendered_policy_has_a_wildcard_for_its_action(resources: dict[str, Any]) -> None:
    seen = 0
    for values in resources.values():
        for document in (it for it in values.values() if isinstance(it, dict) and "Statement" in it):
            for statement in document["Statement"]:
                seen += 1
                assert not any("*" in call for call in statement["Action"])
    assert seen > 100
