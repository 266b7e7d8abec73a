"""The table: every role, action and resource, allowed and denied. What no policy permits is denied."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.access.policy import DECISIONS, Act, Question, Table, load_policy
from tasks.errors import SettingsError
from tests.support import decisions as packaged
from tests.support import trust

ASKING = {
    Act.REQUEST_SUBMIT,
    Act.REQUEST_READ,
    Act.REQUEST_CANCEL,
    Act.SESSION_READ,
    Act.SESSION_DELETE,
    Act.ATTACHMENT_READ,
    Act.AGENT_INVOKE,
    Act.TOOL_USE,
}
ALLOWED = {
    "user": ASKING,
    "developer": ASKING | {Act.INTENT_OVERRIDE, Act.MODEL_OVERRIDE},
    "operator": {
        Act.REQUEST_READ,
        Act.REQUEST_CANCEL,
        Act.SESSION_READ,
        Act.ESCALATION_ANSWER,
        Act.DLQ_REDRIVE,
        Act.MODEL_PROMOTE,
    },
    "auditor": {Act.AUDIT_READ},
    "admin": set(Act),
    "stranger": set[Act](),
    "": set[Act](),
}
NAMES = {
    Act.AGENT_INVOKE: ("planner", "executor", "responder", "human_escalation", "of_my_own"),
    Act.TOOL_USE: ("sql_parser", "api_caller", "of my own", 'a "quote"'),
    Act.INTENT_OVERRIDE: ("plan_task", "call_api", "out_of_scope"),
    Act.MODEL_OVERRIDE: ("embedded", "gpt-4-1106-preview", "org/model:1"),
}
TABLE = [(role, act, name) for role, act in itertools.product(ALLOWED, Act) for name in NAMES.get(act, ("",))]


@pytest.mark.parametrize(("role", "act", "name"), TABLE)
def test_a_role_may_do_what_the_table_says_in_its_own_tenant_alone(role: str, act: Act, name: str) -> None:
    roles = (role,) if role else ()
    own = trust.policy().decide(Question(roles, "acme", act, name))
    assert own.allowed is (act in ALLOWED[role]), own.because()
    assert not own.errors
    other = trust.policy().decide(Question(roles, "acme", act, name, owner="evil"))
    # What belongs to no tenant is nobody else's either.
    assert other.allowed is (own.allowed and act is Act.MODEL_PROMOTE), other.because()


def test_what_is_packaged_is_what_cedar_says_now() -> None:
    assert DECISIONS.read_bytes() == packaged.spelt(packaged.fresh()), "run: python -m tests.support.decisions"


def test_of_every_set_of_roles_the_table_says_what_cedar_says() -> None:
    """So a process with the packaged policies need not start Cedar."""
    engine, table = packaged.engine(), trust.policy()
    names = [*packaged.roles(), "stranger"]
    sets = [roles for count in range(len(names) + 1) for roles in itertools.combinations(names, count)]
    for roles, act in itertools.product(sets, Act):
        for tenant, name in (("acme", NAMES.get(act, ("",))[0]), ('o"ther', "admin" if act in NAMES else "")):
            question = Question(roles, tenant, act, name)
            assert table.decide(question) == engine.decide(question), question


def test_the_packaged_policies_decide_without_cedar() -> None:
    script = (
        "import sys; from tasks.access.policy import *; p = load_policy(); "
        "assert p.decide(Question(('user',), 'a', Act.TOOL_USE, 't')).allowed; assert 'cedarpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3])


def test_a_packaged_policy_that_was_changed_is_asked_and_not_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "default.cedar").write_text(packaged.TEXTS[0].replace('Role::"user"', 'Role::"nobody"'))
    monkeypatch.setattr("tasks.access.policy.PACKAGED", tmp_path)
    assert not load_policy().decide(Question(("user",), "acme", Act.REQUEST_SUBMIT)).allowed
    assert load_policy().decide(Question(("nobody",), "acme", Act.REQUEST_SUBMIT)).allowed


def test_roles_add_up() -> None:
    both = (
        Question(("auditor", "user"), "acme", Act.AUDIT_READ),
        Question(("auditor", "user"), "acme", Act.TOOL_USE, "t"),
    )
    assert all(trust.policy().decide(question).allowed for question in both)


def test_an_answer_says_which_policy_decided() -> None:
    decide = trust.policy().decide
    assert decide(Question(("user",), "a", Act.REQUEST_SUBMIT)).because() == "permitted by users-ask"
    assert decide(Question(("user",), "a", Act.AUDIT_READ)).because() == "no policy permits it"
    assert decide(Question(("admin",), "a", Act.AUDIT_READ, owner="b")).because() == "forbidden by tenants-apart"


def test_a_decision_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy()
    asked: list[Question] = []
    decided = Table.decide
    monkeypatch.setattr(Table, "decide", lambda self, question: (asked.append(question), decided(self, question))[1])
    for _ in range(3):
        policy.decide(Question(("user",), "a", Act.REQUEST_SUBMIT))
    policy.decide(Question(("user",), "b", Act.REQUEST_SUBMIT))
    assert [question.tenant for question in asked] == ["a", "b"]


def test_policies_of_your_own_replace_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(
        '@id("only-sql") permit (principal in Role::"analyst", action == Action::"tool:use",'
        ' resource == Tool::"sql_parser");'
    )
    (tmp_path / "b.cedar").write_text(
        '@id("acme-only") permit (principal in Role::"analyst", action == Action::"request:submit", resource)'
        ' when { resource.tenant == "acme" };'
    )
    policy = load_policy(tmp_path)

    def may(role: str, tenant: str, act: Act, name: str = "") -> bool:
        return policy.decide(Question((role,), tenant, act, name)).allowed

    assert may("analyst", "x", Act.TOOL_USE, "sql_parser")
    assert not may("analyst", "x", Act.TOOL_USE, "api_caller")
    assert may("analyst", "acme", Act.REQUEST_SUBMIT)
    assert not may("analyst", "x", Act.REQUEST_SUBMIT)
    assert not may("admin", "acme", Act.REQUEST_SUBMIT)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permit(principal", "a.cedar: unexpected end of input"),
        ('permit(principal, action == Action::"request:sumbit", resource);', "unrecognized action"),
        ('permit(principal, action, resource) when { resource.owner == "x" };', "attribute `owner`"),
        ('permit(principal == User::"alice", action, resource);', "User"),
    ],
)
def test_a_wrong_policy_is_named_at_start(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.cedar").write_text(text)
    with pytest.raises(SettingsError, match=told):
        load_policy(tmp_path)


def test_a_directory_without_policies_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SettingsError, match="no policy files"):
            load_policy(folder)
