"""Names never collide: across tenants, ids, revisions and priorities."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks import keys

ids = st.from_regex(r"[A-Za-z0-9._:-]{1,12}", fullmatch=True)
tenants = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,6}", fullmatch=True)
requests = st.tuples(tenants, ids)


@given(requests, requests)
def test_two_requests_share_no_key(one: tuple[str, str], two: tuple[str, str]) -> None:
    assume(one != two)
    assert keys.ref(*one) != keys.ref(*two)
    assert keys.result(*one) != keys.result(*two)
    assert keys.body(*one, "d") != keys.body(*two, "d")
    assert not keys.session(*one, 1).startswith(keys.session_prefix(*two))


@given(requests)
def test_no_key_is_a_path_upwards(request: tuple[str, str]) -> None:
    for key in (keys.result(*request), keys.body(*request, "d"), keys.session(*request, 1)):
        assert not {"", ".", ".."} & set(key.split("/"))


def test_a_result_and_its_revisions() -> None:
    assert keys.result("acme", "r1") == "results/acme/r1.json"
    assert keys.result("acme", "r1", 2) == "results/acme/r1.r2.json"


def test_sessions_sort_by_version() -> None:
    versions = [keys.session("t", "s", version) for version in (1, 2, 10, 1000)]
    assert versions == sorted(versions)


def test_segments_sort_by_time_and_number() -> None:
    days = [datetime(2030, 1, 9, tzinfo=UTC), datetime(2030, 1, 10, tzinfo=UTC)]
    segments = [keys.segment("door-1", first, day) for day in days for first in (0, 9, 10)]
    assert segments == sorted(segments)
    assert segments[0] == "audit/2030/01/09/00/0000.000~door-1~000000000000.jsonl.zst"
    assert segments[0].startswith(keys.AUDIT_PREFIX)


def test_the_key_of_a_segment_says_time_stream_and_number() -> None:
    time = datetime(2030, 1, 9, 23, 59, 58, 123000, tzinfo=UTC)
    stream = keys.stream("intent+agents.planner", "a_host~b", "b1")
    assert stream == "intent+agents.planner~a-host-b~b1"
    key = keys.segment(stream, 17, time)
    assert keys.parse_segment(key) == (time, stream, 17)
    assert keys.segment_after(time) < key < keys.segment_after(time.replace(microsecond=124000))
    assert keys.stream_component(stream) == "intent+agents.planner"


@pytest.mark.parametrize(
    "key", ["audit/2030/13/09/00/0000.000~s~000000000000.jsonl.zst", "audit/x", "audit/2030/01/09/s/0"]
)
def test_what_is_no_key_of_a_segment_is_said(key: str) -> None:
    with pytest.raises(ValueError, match=r"segment|month"):
        keys.parse_segment(key)


def test_each_pool_has_two_queues_and_polls_the_high_one_first() -> None:
    assert keys.queues("intent") == ("requests.high", "requests")
    assert keys.queues(keys.agent_pool("planner")) == ("agents.planner.high", "agents.planner")


def test_a_shard_has_queues_of_its_own() -> None:
    pool = keys.shard_pool("agents.executor", "eu-1")
    assert pool == "agents.executor@eu-1"
    assert keys.queues(pool) == ("agents.executor.high@eu-1", "agents.executor@eu-1")
    assert (keys.base_pool(pool), keys.shard_of(pool)) == ("agents.executor", "eu-1")
    assert (keys.base_pool("intent"), keys.shard_of("intent")) == ("intent", "")


pools = st.tuples(
    st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True),
    st.one_of(st.just(""), st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)),
    st.sampled_from(["high", "normal"]),
)


@given(pools, pools)
def test_queues_keep_apart_where_names_are_plainer(one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
    def named(agent_type: str, shard: str, priority: str) -> str:
        assume(not f"{shard}-".startswith("high-"))  # the settings refuse it
        pool = keys.agent_pool(agent_type)
        return keys.sqs_queue("acme", keys.queue(keys.shard_pool(pool, shard) if shard else pool, priority))

    assert (named(*one) == named(*two)) == (one == two)
    assert re.fullmatch(r"[a-z0-9_-]+", named(*one))


def test_pools_share_no_queue_and_no_in_flight_key() -> None:
    pools = ["intent", *map(keys.agent_pool, ("planner", "executor"))]
    pools += [keys.shard_pool("agents.executor", shard) for shard in ("eu", "us")]
    queues = [queue for pool in pools for queue in keys.queues(pool)]
    marks = [name(pool) for pool in pools for name in (keys.unacked, keys.unacked_index)]
    lists = [name(queue) for queue in queues for name in (keys.waiting, keys.bell, keys.queued)]
    assert len(set(queues + lists + marks)) == len(queues) + len(lists) + len(marks)


def test_the_keys_of_one_script_share_a_hash_tag() -> None:
    names = [keys.row("r"), keys.done("r"), keys.session_line("t", "s"), keys.queued("q"), keys.LEASES]
    names += [keys.UNPUBLISHED, keys.DEADLINES]
    assert {name.partition("}")[0] for name in names} == {"{sluice"}


def test_a_queue_has_one_name_in_sqs_and_shares_it_with_none() -> None:
    queues = [queue for pool in ("intent", "agents.a", "agents.a_high") for queue in keys.queues(pool)]
    names = {keys.sqs_queue("acme", name) for name in (*queues, keys.DEAD_LETTERS, keys.QUARANTINE, keys.EVENTS)}
    assert len(names) == len(queues) + 3
    assert keys.sqs_queue("acme", "agents.human_escalation.high") == "acme-agents-human_escalation-high"


@given(st.from_regex(r"[A-Za-z0-9._:-]{1,40}", fullmatch=True), st.integers(1, 99))
def test_the_keys_of_sessions_and_escalations_say_what_they_were_made_of(name: str, number: int) -> None:
    assert keys.parse_session(keys.session("t", name, number)) == (name, number)
    assert keys.parse_escalation(keys.escalation("t", name, number)) == (name, number, False)
    assert keys.parse_escalation(keys.escalation_answer("t", name, number)) == (name, number, True)


@pytest.mark.parametrize("key", ["escalations/t/r1.json", "escalations/t/r.r1.answer", "results/t/r.r1.json"])
def test_what_is_no_escalation_has_no_such_key(key: str) -> None:
    with pytest.raises(ValueError, match="not the key of an escalation"):
        keys.parse_escalation(key)
