"""One file, overridden by the environment; what is wrong is named with the file and the key."""

from pathlib import Path

import pytest

from tasks.contracts.words import Intent
from tasks.errors import InvalidInput, SettingsError
from tasks.settings import AgentSettings, ModelSettings, PoolSettings, RoutingSettings, Settings
from tasks.settings_load import load, parse

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

DUO = "{shape: round_robin, members: [{name: a, instructions: x}, {name: b, instructions: y}]}"


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


def test_a_route_for_a_label_of_ones_own_model(file: Path) -> None:
    file.write_text("routing: {intents: {book_flight: executor}}")
    assert load().agent_for("book_flight") == "executor"


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
        ("routing: {intents: {Order pizza: planner}}", "routing.intents.*Order pizza"),
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


def test_everything_that_is_wrong_is_named_at_once(file: Path) -> None:
    file.write_text(
        "agents: [{type: a}, {model: x}, {type: B, tools: 5}, 7]\n"
        "queue: {attempts: 0, visibility_seconds: 1, speed: 3}\n"
        "intent: {model_dir: 5}\n"
        "log_level: LOUD\n"
    )
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == (
        "pipeline.yaml:1: agents.1.type: is missing; pipeline.yaml:1: agents.2.type: expected str matching regex "
        r"'^[a-z][a-z0-9_]{0,62}\\Z'; "
        "pipeline.yaml:1: agents.2.tools: expected list, got int; pipeline.yaml:1: agents.3: expected map, got int; "
        "pipeline.yaml:2: queue.attempts: expected int >= 1; "
        "pipeline.yaml:2: queue.visibility_seconds: expected int >= 10; "
        "pipeline.yaml:2: queue.speed: there is no such key; pipeline.yaml:3: intent.model_dir: expected str, got int; "
        "pipeline.yaml:4: log_level: expected one of DEBUG, INFO, WARNING, ERROR"
    )


@pytest.mark.parametrize(
    ("said", "line", "told"),
    [
        ("fallback: magician", 7, "agents.executor.fallback names 'magician'"),
        ("fallback: planner", 4, "agents.planner.fallback leads back to itself: planner -> executor -> planner"),
        ("tools: [sql_praser]", 7, "agents.executor.tools: there is no tool 'sql_praser', did you mean sql_parser?"),
        ("max_turns: none", 7, "agents.1.max_turns: expected int, got str"),
        ("temprature: 1", 7, "agents.1.temprature: there is no such key, did you mean temperature?"),
        ("team: {shape: round_robin, members: []}", 7, "agents.1.team.members: expected list of length >= 2"),
        (f"plan: {{}}\n    team: {DUO}", 8, "agents.executor.team: an agent type that plans"),
    ],
)
def test_a_fault_of_an_agent_type_is_named_with_its_line(file: Path, said: str, line: int, told: str) -> None:
    file.write_text(
        "# the agents\nagents:\n  - type: planner\n    fallback: executor\n\n"
        f"  - type: executor\n    {said}\n\nmodels: {{}}\n"
    )
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"pipeline.yaml:{line}: {told}")


def test_a_missing_key_is_named_with_the_line_of_what_lacks_it(file: Path) -> None:
    file.write_text("agents:\n  - type: planner\n  - model: x\n")
    with pytest.raises(SettingsError, match=r"^pipeline\.yaml:3: agents\.1\.type: is missing$"):
        load()


def test_a_fault_that_a_variable_makes_names_the_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("agents: [{type: planner}]\n")
    monkeypatch.setenv("SLUICE_AGENTS", '[{"type": "planner", "tools": ["magic"]}]')
    with pytest.raises(SettingsError, match=r"^SLUICE_AGENTS: agents\.planner\.tools: there is no tool 'magic'"):
        load()


def test_a_team_is_read_and_its_rules_are_checked(file: Path) -> None:
    team = "{shape: selector, members: [{name: a, instructions: x, tools: [sql_parser]}, {name: b, instructions: y}]"
    file.write_text(f"agents: [{{type: crew, team: {team}, until: DONE}}}}]")
    assert load().agent("crew").all_tools == ("sql_parser",)
    file.write_text(f"agents: [{{type: crew, tools: [api_caller], team: {team}}}}}]")
    with pytest.raises(SettingsError) as caught:
        load()
    assert "agents.crew.team: shape selector needs `until`" in str(caught.value)
    assert "agents.crew.tools: name the tools at the team's members" in str(caught.value)


def test_the_type_planner_has_a_team_where_it_is_told_not_to_plan(file: Path) -> None:
    file.write_text(f"agents:\n  - type: planner\n    team: {DUO}\n")
    with pytest.raises(SettingsError, match=r"pipeline\.yaml:3: agents\.planner\.team: .* plan: \{max_steps: 0\}"):
        load()
    file.write_text(f"agents:\n  - type: planner\n    team: {DUO}\n    plan: {{max_steps: 0}}\n")
    assert load().agent("planner").planning is None


def test_an_agent_types_concurrency_is_its_pools() -> None:
    settings = Settings(agents=(AgentSettings(type="planner", concurrency=850),))
    assert settings.pool("agents.planner").concurrency == 850
    assert settings.pool("agents.responder").concurrency == 16


def test_an_azure_model_needs_an_address() -> None:
    with pytest.raises(ValueError, match=r"models\.gpt\.base_url"):
        Settings(models={"gpt": ModelSettings(provider="azure")})


def test_every_name_that_leads_nowhere_is_named_at_once(file: Path) -> None:
    file.write_text("routing: {fallback: nobody, intents: {draft_text: noone}}\nscaling: {pools: {agents.nobody: {}}}")
    with pytest.raises(SettingsError) as caught:
        load()
    assert all(
        f"{key} names" in str(caught.value) for key in ("routing.intents.draft_text", "routing.fallback", "pools")
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("quue: {}", "queue"),
        ("queue: {atempts: 1}", "attempts"),
        ("agents: [{type: a, temprature: 1}]", "temperature"),
        ("tools: {sql_praser: {}}", "sql_parser"),
    ],
)
def test_a_slip_of_the_pen_is_recognised(file: Path, text: str, meant: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=rf"no such key, did you mean {meant}\?$"):
        load()


@pytest.mark.parametrize(
    "text",
    [
        "redis_url: [hunter2]",
        "log_level: hunter2",
        "queue: {attempts: hunter2}",
        "redis_url: *hunter2",
        "redis_url: !hunter2 x",
        "redis_url: 'hunter2",
        "redis_url: hunter2\n  queue: 5: 6",
    ],
)
def test_no_value_is_repeated_in_an_error(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_file_of_json_is_read_as_such(file: Path, tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text('{"queue": {"attempts": 2}}')
    assert load(Path("some.json")).queue.attempts == 2
    (tmp_path / "some.json").write_text("queue: {attempts: 2}")
    with pytest.raises(SettingsError, match=r"some\.json: not valid JSON"):
        load(Path("some.json"))


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


def test_maps_merge_and_lists_replace(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(
        "tools: {api_caller: {allowed_hosts: [a, b], max_bytes: 7}}\nqueue: {attempts: 2, retry_seconds: 9}"
    )
    monkeypatch.setenv("SLUICE_TOOLS__API_CALLER__ALLOWED_HOSTS", ' ["c"]')
    monkeypatch.setenv("SLUICE_QUEUE__ATTEMPTS", "4")
    monkeypatch.setenv("SLUICE_QUEUE", '{"attempts": 3, "hand_back_seconds": 1}')
    monkeypatch.setenv("SLUICE_SCALING__POOLS", '{"agents.planner": {"max_workers": 2}}')
    settings = load()
    assert (settings.tools.api_caller.allowed_hosts, settings.tools.api_caller.max_bytes) == (("c",), 7)
    queue = settings.queue
    assert (queue.attempts, queue.retry_seconds, queue.hand_back_seconds) == (4, 9, 1)
    assert settings.pool("agents.planner").max_workers == 2


def test_variables_are_read_in_any_case_and_by_type(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("sluice_Leases__Heartbeat_Seconds", "0.5")
    monkeypatch.setenv("SLUICE_ROUTING__INTENTS__DRAFT_TEXT", "planner")
    monkeypatch.setenv("SLUICE_MODELS__HOUSE__NATIVE_TOOLS", "false")
    monkeypatch.setenv("SLUICE_INTENT__MODEL_DIR", "some/model")
    monkeypatch.setenv("SLUICE_DEFAULT_MODEL", "5")
    settings = load()
    assert settings.leases.heartbeat_seconds == 0.5
    assert settings.agent_for("draft_text") == "planner"
    assert not settings.models["house"].native_tools
    assert settings.intent.model_dir == Path("some/model")
    assert settings.default_model == "5"


def test_variables_of_other_names_are_somebody_elses(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_EMBEDDED_MODEL_KEY", "k")
    monkeypatch.setenv("SLUICE_INTENT_SERVICE_HOST", "10.0.0.1")
    assert load() == Settings()


def test_what_is_wrong_is_put_where_it_was_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("queue: {attempts: 0}")
    monkeypatch.setenv("SLUICE_QUEUE__RETRY_SECONDS", "soon")
    monkeypatch.setenv("SLUICE_QUEUE__ATEMPTS", "1")
    monkeypatch.setenv("SLUICE_REDIS_URL__HOST", "h")
    with pytest.raises(SettingsError) as caught:
        load()
    assert [problem.rpartition(": ")[0] for problem in str(caught.value).split("; ")] == [
        "pipeline.yaml:1: queue.attempts",
        "SLUICE_QUEUE__ATEMPTS: queue.atempts",
        "SLUICE_QUEUE__RETRY_SECONDS: queue.retry_seconds",
        "SLUICE_REDIS_URL__HOST: redis_url",
    ]


def test_an_empty_variable_is_no_override(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", "")
    assert load().redis_url == Settings().redis_url


def test_a_wrong_variable_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_QUEUE__ATTEMPTS", "many")
    with pytest.raises(SettingsError, match=r"^SLUICE_QUEUE__ATTEMPTS: queue\.attempts"):
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
    settings = Settings()
    with pytest.raises(AttributeError, match="immutable"):
        settings.log_level = "DEBUG"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        settings.queue.attempts = 9  # type: ignore[misc]
    assert settings == Settings()


def test_a_changed_copy_is_another_one() -> None:
    settings = Settings()
    changed = settings.changed(queue=settings.queue.changed(attempts=9))
    assert (settings.queue.attempts, changed.queue.attempts) == (5, 9)
    assert changed.queue.retry_seconds == settings.queue.retry_seconds


def test_a_constructed_name_must_lead_somewhere_too() -> None:
    with pytest.raises(ValueError, match=r"routing\.fallback names 'nobody'"):
        Settings(routing=RoutingSettings(fallback="nobody"))


def test_a_part_of_the_settings_is_checked_by_itself() -> None:
    assert parse(PoolSettings, {"max_workers": 3}) == PoolSettings(max_workers=3)
    with pytest.raises(SettingsError, match="max_workers: expected int >= 1"):
        parse(PoolSettings, {"max_workers": 0})


def test_a_lease_outlasts_two_lost_heartbeats() -> None:
    leases = Settings().leases
    assert leases.lease_seconds > 2 * leases.heartbeat_seconds
