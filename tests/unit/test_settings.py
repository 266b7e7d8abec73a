"""One file, overridden by the environment; what is wrong is named with the file and the key."""

from pathlib import Path

import pytest

from tasks.contracts.request import Intent
from tasks.errors import InvalidInput, SettingsError
from tasks.settings import Settings, load

DESIGNED = """
agents:
  - {type: planner, model: gpt-4-1106-preview, temperature: 0.3, max_tokens: 2000}
  - {type: executor, tools: [sql_parser, api_caller], fallback: human_escalation}
auditing:
  retention_days: 180
  sensitive_fields: [api_key, credit_card]
  alert_rules:
    - {type: permission_violation, severity: critical}
    - {type: model_override, severity: high}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file, in a folder of its own that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pipeline.yaml"


def test_the_shapes_that_users_write_load_as_they_are(file: Path) -> None:
    file.write_text(DESIGNED)
    settings = load()
    planner, executor = settings.agent("planner"), settings.agent("executor")
    assert (planner.model, planner.temperature, planner.max_tokens) == ("gpt-4-1106-preview", 0.3, 2000)
    assert (executor.tools, executor.fallback) == (("sql_parser", "api_caller"), "human_escalation")
    assert settings.auditing.retention_days == 180
    assert settings.auditing.sensitive_fields == ("api_key", "credit_card")
    rules = [(rule.type, rule.severity) for rule in settings.auditing.alert_rules]
    assert rules == [("permission_violation", "critical"), ("model_override", "high")]


def test_agent_types_that_the_file_leaves_out_keep_their_defaults(file: Path) -> None:
    file.write_text(DESIGNED)
    assert load().agent_types == ("planner", "executor", "responder", "human_escalation")


def test_nothing_needs_to_be_configured(file: Path) -> None:
    assert load() == Settings()
    file.write_text("")
    assert load() == Settings()


def test_each_intent_has_an_agent_type(file: Path) -> None:
    settings = load()
    assert {intent: settings.agent_for(intent) for intent in Intent} == {
        "plan_task": "planner",
        "query_data": "executor",
        "call_api": "executor",
        "answer_question": "responder",
        "summarize_text": "responder",
        "draft_text": "responder",
        "talk_to_human": "human_escalation",
        "out_of_scope": "human_escalation",
    }


def test_a_label_that_only_a_newer_model_knows_goes_to_the_fallback() -> None:
    assert Settings().agent_for("book_flight") == "human_escalation"


def test_one_route_changes_one_route(file: Path) -> None:
    file.write_text("routing: {intents: {draft_text: planner}, fallback: responder}")
    settings = load()
    assert settings.agent_for("draft_text") == "planner"
    assert settings.agent_for("query_data") == "executor"
    assert settings.agent_for("out_of_scope") == "responder"


def test_pools_are_the_intent_pool_and_one_for_each_agent_type(file: Path) -> None:
    file.write_text("agents: [{type: lawyer}]\nscaling: {default: {concurrency: 3}, pools: {intent: {max_workers: 7}}}")
    settings = load()
    assert settings.pools[:2] == ("intent", "agents.lawyer")
    assert settings.pool("intent").max_workers == 7
    assert settings.pool("agents.lawyer").concurrency == 3


def test_unknown_names_are_invalid_input() -> None:
    with pytest.raises(InvalidInput, match=r"'lawyer' is not configured; there are planner, "):
        Settings().agent("lawyer")
    with pytest.raises(InvalidInput, match=r"no pool 'agents.lawyer'; there are intent, "):
        Settings().pool("agents.lawyer")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("agents: [{type: planner, temprature: 1}]", "agents.0.temprature"),
        ("agents: [{type: planner, temperature: 3}]", "agents.0.temperature"),
        ("agents: [{type: Planner}]", "agents.0.type"),
        ("agents: [{model: x}]", "agents.0.type"),
        ("agents: [{type: a}, {type: a}]", "agents: .*listed twice: a"),
        ("agents: [{type: a, fallback: nobody}]", "agents.a.fallback names 'nobody'"),
        ("agents: 5", "agents"),
        ("routing: {fallback: nobody}", "routing.fallback names 'nobody'"),
        ("routing: {intents: {draft_text: nobody}}", "routing.intents.draft_text names 'nobody'"),
        ("routing: {intents: {order_pizza: planner}}", "routing.intents.order_pizza"),
        ("routing: {threshold: 2}", "routing.threshold"),
        ("scaling: {pools: {agents.nobody: {}}}", "scaling.pools names no pool: agents.nobody"),
        ("scaling: {default: {concurrency: 0}}", "scaling.default.concurrency"),
        ("queue: {visibility_seconds: 5}", "queue.visibility_seconds"),
        ("leases: {heartbeat_seconds: 0}", "leases.heartbeat_seconds"),
        ("auditing: {retention_days: never}", "auditing.retention_days"),
        ("auditing: {alert_rules: [{type: a, severity: loud}]}", "auditing.alert_rules.0.severity"),
        ("models: {m: {provider: magic}}", "models.m.provider"),
        ("log_level: LOUD", "log_level"),
        ("redis: {}", "redis"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_key(file: Path, text: str, key: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=rf"pipeline\.yaml.*{key}"):
        load()


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "5: 6", "a: [", "\x00"])
def test_a_file_that_is_no_map_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"pipeline\.yaml: "):
        load()


def test_a_file_that_is_not_there_is_named_if_it_was_asked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml: cannot be read"):
        load(Path("absent.yaml"))
    monkeypatch.setenv("SLUICE_CONFIG", "elsewhere.yaml")
    with pytest.raises(SettingsError, match=r"elsewhere\.yaml: cannot be read"):
        load()


def test_the_environment_wins_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("queue: {attempts: 2, retry_seconds: 9}\nlog_level: ERROR")
    monkeypatch.setenv("SLUICE_QUEUE__ATTEMPTS", "8")
    monkeypatch.setenv("SLUICE_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("SLUICE_AUDITING__SENSITIVE_FIELDS", '["pin"]')
    monkeypatch.setenv("SLUICE_REDIS_URL", "redis://elsewhere:1/2")
    settings = load()
    assert (settings.queue.attempts, settings.queue.retry_seconds, settings.log_level) == (8, 9, "DEBUG")
    assert settings.auditing.sensitive_fields == ("pin",)
    assert settings.redis_url == "redis://elsewhere:1/2"


def test_an_empty_variable_is_no_override(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", "")
    assert load().redis_url == Settings().redis_url


def test_a_wrong_variable_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_QUEUE__ATTEMPTS", "many")
    with pytest.raises(SettingsError, match=r"environment: queue\.attempts"):
        load()


def test_a_list_in_a_variable_that_is_not_json_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_AGENTS", "planner")
    with pytest.raises(SettingsError, match="agents"):
        load()


def test_a_running_embedded_stack_is_used_unless_something_else_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "env").write_text("SLUICE_REDIS_URL=redis://:p=q@127.0.0.1:7/0\n\n")
    monkeypatch.setenv("SLUICE_REDIS_URL", "redis://elsewhere:1/2")
    assert load().redis_url == "redis://elsewhere:1/2"
    monkeypatch.delenv("SLUICE_REDIS_URL")
    assert load().redis_url == "redis://:p=q@127.0.0.1:7/0"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().log_level = "DEBUG"  # type: ignore[misc]


def test_a_lease_outlasts_two_lost_heartbeats() -> None:
    leases = Settings().leases
    assert leases.lease_seconds > 2 * leases.heartbeat_seconds
