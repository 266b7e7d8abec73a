"""A person answers on the command line, and looks after sessions: real servers, real workers."""

from __future__ import annotations

import json
import time
from typing import Any

import click
import pytest
from click.testing import CliRunner

from handlers.cli.main import cli
from tasks import keys
from tasks.errors import NotFound
from tasks.settings import Settings
from tests.e2e.conftest import Fleet
from tests.e2e.test_command_line import sluice

ANSWER = "Your parcel is in Bergen; it will be there on Monday."


def said(*arguments: str) -> str:
    """What the command prints; in this process, because a new one for each takes longer than what it does."""
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.stdout


def told(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


@pytest.fixture
def workers(fleet: Fleet, settings: Settings) -> Fleet:
    fleet.sweeper()
    for pool in (keys.INTENT_POOL, keys.agent_pool("responder"), keys.agent_pool("human_escalation")):
        fleet.worker(pool)
    return fleet


def test_a_person_answers_and_the_session_goes_on_from_there(workers: Fleet) -> None:
    tenant = f"people-{time.time_ns()}"
    of = ("--tenant", tenant)
    turn = (*of, "--session", "talk", "--wait", "--timeout", "60")
    asked = told("submit", "Where is my parcel?", "--id", "q1", "--intent", "talk_to_human", *turn)
    assert asked["status"] == "escalated"

    [waiting] = told("escalations", "list", *of)
    assert (waiting["request_id"], waiting["revision"]) == ("q1", 1)
    assert told("escalations", "list", "--older-than", "1h", *of) == []
    shown = told("escalations", "show", "q1", *of)
    assert (shown["text"], shown["reason"], shown["answer"]) == ("Where is my parcel?", "talk_to_human", None)
    assert "Where is my parcel?" in said("escalations", "show", "q1", *of)

    assert told("escalations", "answer", "q1", ANSWER, *of) == {
        "request_id": "q1",
        "tenant": tenant,
        "revision": 2,
        "fresh": True,
        "answered_by": "local",
    }
    result = told("result", "q1", *of, "--timeout", "60")
    assert (result["revision"], result["status"], result["output"]) == (2, "succeeded", ANSWER)
    assert result["agent"] == {"type": "human", "model": "local"}
    assert not told("escalations", "answer", "q1", ANSWER, *of)["fresh"]
    other = sluice("escalations", "answer", "q1", "No idea.", *of)
    assert (other.returncode, "answered by local" in other.stderr) == (2, True)
    assert told("escalations", "list", *of) == []
    assert [each["request_id"] for each in told("escalations", "list", "--answered", *of)] == ["q1"]
    with pytest.raises(NotFound):
        said("escalations", "show", "none", *of)

    told("submit", "Thank you!", "--id", "q2", "--intent", "answer_question", *turn)
    session = told("session", "show", "talk", *of)
    contents = [message["content"] for message in session["state"]["llm_context"]["messages"]]
    assert contents.index(ANSWER) < contents.index("Thank you!")
    assert session["version"] == 3
    assert ANSWER in said("session", "show", "talk", *of)

    [listed] = told("session", "list", *of)
    assert (listed["session_id"], listed["version"], listed["deleted"]) == ("talk", 3, False)
    assert told("session", "delete", "talk", *of)["erased"] == 3
    assert told("session", "list", *of) == []
    assert "deleted by local" in said("session", "show", "talk", *of)
    told("submit", "Who am I?", "--id", "q3", "--intent", "answer_question", *turn)
    session = told("session", "show", "talk", *of)
    assert session["version"] == 5
    assert ANSWER not in json.dumps(session["state"])
    with pytest.raises(NotFound):
        said("session", "delete", "none", *of)

    actions = [record["action"] for record in told("audit", "show", *of)]
    assert {"escalation.opened", "escalation.answered", "escalation.read", "session.read", "session.deleted"} <= {
        *actions
    }
    assert told("audit", "verify")["ok"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("escalations", "show", "../x"),
        ("escalations", "list", "--older-than", "soon"),
        ("escalations", "answer", "r1"),
        ("session", "delete", "a/b"),
        ("session", "list", "--tenant", ".."),
    ],
)
def test_what_is_not_understood_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        said(*arguments)
