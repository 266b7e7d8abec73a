"""The wire formats: what earlier versions wrote is read, and what is written now is what they would have written."""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.asked import Asked
from tasks.contracts.audit import GENESIS, Action, AuditRecord, Decision, Event
from tasks.contracts.base import Contract, canonical, parse_versioned, sha256
from tasks.contracts.message import Body, Message
from tasks.contracts.result import AgentInfo, ErrorInfo, IntentInfo, Result, Status, Step, Timings, Usage
from tasks.contracts.session import SessionVersion
from tasks.contracts.words import Intent, Priority
from tasks.errors import MalformedMessage
from tasks.stores.bodies import to_request
from tests.support import build

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
IN_THE_EAST = datetime(2030, 1, 1, 2, 0, 0, 120_000, tzinfo=timezone(timedelta(hours=2)))
INTENT = IntentInfo(label="query_data", confidence=0.9375, model_version="minilm-0123456789ab")

RESULT = Result(
    request_id="r1",
    tenant="default",
    status=Status.SUCCEEDED,
    timings=Timings(accepted_at=NEW_YEAR, finished_at=NEW_YEAR),
    request_digest="d",
    attempt="a1",
)
RESULT_LINE = (
    b'{"attempt":"a1","output":"","request_digest":"d","request_id":"r1","revision":1,"schema_version":"1.0",'
    b'"status":"succeeded","steps":[],"tenant":"default","timings":{"accepted_at":"2030-01-01T00:00:00Z",'
    b'"finished_at":"2030-01-01T00:00:00Z"},"usage":{"input_tokens":0,"output_tokens":0,"tool_calls":0}}'
)

GOLDEN: list[tuple[Contract, bytes]] = [
    (
        Message(
            id="order:17",
            tenant="acme",
            revision=2,
            digest="d" * 64,
            grant="g.s",
            body=Body(encoding="json", data='{"text":"é\\n\\u0001"}'),
            priority=Priority.HIGH,
            session_id="s.1",
            deadline=IN_THE_EAST,
            traceparent="00-1-2-01",
            accepted_at=NEW_YEAR,
            agent_type="executor",
            fallback_from="responder",
            intent=INTENT,
            routed_at=NEW_YEAR + timedelta(microseconds=1),
            classify_ms=1.5,
        ),
        (
            b'{"accepted_at":"2030-01-01T00:00:00Z","agent_type":"executor","body":{"data":"{\\"text\\":'
            b'\\"\xc3\xa9\\\\n\\\\u0001\\"}","encoding":"json"},"classify_ms":1.5,"deadline":"2030-01-01T00:00:00.120000Z",'
            b'"digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","fallback_from":"responder",'
            b'"grant":"g.s","id":"order:17","intent":{"confidence":0.9375,"label":"query_data",'
            b'"model_version":"minilm-0123456789ab"},"priority":"high","revision":2,'
            b'"routed_at":"2030-01-01T00:00:00.000001Z","schema_version":"1.0","session_id":"s.1","tenant":"acme",'
            b'"traceparent":"00-1-2-01"}'
        ),
    ),
    (
        Message(id="r1", tenant="default", digest="d", body=Body(encoding="object"), accepted_at=NEW_YEAR),
        (
            b'{"accepted_at":"2030-01-01T00:00:00Z","body":{"data":"","encoding":"object"},"digest":"d","id":"r1",'
            b'"priority":"normal","revision":1,"schema_version":"1.0","tenant":"default"}'
        ),
    ),
    (
        Result(
            request_id="order:17",
            revision=2,
            tenant="acme",
            status=Status.FAILED,
            intent=INTENT,
            agent=AgentInfo(type="executor", model="m"),
            output='é "quoted"\n',
            error=ErrorInfo(code="model", message="busy"),
            usage=Usage(input_tokens=3, output_tokens=2, tool_calls=1),
            timings=Timings(
                accepted_at=NEW_YEAR,
                routed_at=IN_THE_EAST,
                started_at=NEW_YEAR + timedelta(seconds=1, microseconds=123_000),
                finished_at=NEW_YEAR + timedelta(seconds=2),
                classify_ms=1.25,
                agent_ms=1000.0,
            ),
            session_id="s.1",
            steps=(Step(name="sql_parser", detail="x", ok=False, milliseconds=0.001), Step(name="think")),
            request_digest="d" * 64,
            attempt="a1",
        ),
        (
            b'{"agent":{"model":"m","type":"executor"},"attempt":"a1","error":{"code":"model","message":"busy"},'
            b'"intent":{"confidence":0.9375,"label":"query_data","model_version":"minilm-0123456789ab"},'
            b'"output":"\xc3\xa9 \\"quoted\\"\\n",'
            b'"request_digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",'
            b'"request_id":"order:17","revision":2,"schema_version":"1.0","session_id":"s.1","status":"failed",'
            b'"steps":[{"detail":"x","milliseconds":0.001,"name":"sql_parser","ok":false},'
            b'{"detail":"","name":"think","ok":true}],"tenant":"acme","timings":{"accepted_at":"2030-01-01T00:00:00Z",'
            b'"agent_ms":1000.0,"classify_ms":1.25,"finished_at":"2030-01-01T00:00:02Z",'
            b'"routed_at":"2030-01-01T00:00:00.120000Z","started_at":"2030-01-01T00:00:01.123000Z"},'
            b'"usage":{"input_tokens":3,"output_tokens":2,"tool_calls":1}}'
        ),
    ),
    (RESULT, RESULT_LINE),
    (
        AuditRecord(
            action=Action.TOOL_CALLED,
            actor="agents.executor@host-1",
            tenant="acme",
            request_id="order:17",
            resource="tool:sql_parser",
            decision=Decision.DENY,
            reason="é: denied",
            details={"z": "x", "n": 7, "ms": 1.5, "ok": False},
            time=IN_THE_EAST,
            stream="s1",
            sequence=41,
            previous=GENESIS,
        ),
        (
            b'{"action":"tool.called","actor":"agents.executor@host-1","decision":"deny",'
            b'"details":{"ms":1.5,"n":7,"ok":false,"z":"x"},'
            b'"previous":"0000000000000000000000000000000000000000000000000000000000000000",'
            b'"reason":"\xc3\xa9: denied","request_id":"order:17","resource":"tool:sql_parser","schema_version":"1.0",'
            b'"sequence":41,"stream":"s1","tenant":"acme","time":"2030-01-01T00:00:00.120000Z"}'
        ),
    ),
    (
        SessionVersion(
            tenant="acme",
            session_id="s.1",
            version=3,
            saved_at=NEW_YEAR,
            state={"b": None, "a": [1, {"d": 2.5e20, "c": None}]},
            result=RESULT,
        ),
        b'{"result":' + RESULT_LINE + b',"saved_at":"2030-01-01T00:00:00Z","schema_version":"1.0","session_id":"s.1",'
        b'"state":{"a":[1,{"c":null,"d":2.5e+20}],"b":null},"tenant":"acme","version":3}',
    ),
]


@pytest.mark.parametrize(("record", "line"), GOLDEN, ids=lambda value: type(value).__name__)
def test_a_line_of_version_0_1_is_read_and_written(record: Contract, line: bytes) -> None:
    assert record.to_bytes() == line
    assert parse_versioned(type(record), line) == record
    assert parse_versioned(type(record), orjson.loads(line)) == record


def test_the_hash_of_a_record_of_version_0_1() -> None:
    [record] = [record for record, _ in GOLDEN if isinstance(record, AuditRecord)]
    assert record.hash() == "9b4f8f7daf9a7aff02c7b912c386b63429e8273b821481d4ce039571c3e3f1c4"


# Any record ---------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text("abcXYZ019._:-", min_size=1, max_size=8)
zones = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(-timedelta(hours=3, minutes=30))])
times = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001  (zones)
counts = st.integers(0, 2**53)
numbers = st.floats(-1e15, 1e15)
shares = st.floats(0, 1)


def records(kind: type[Contract], **fields: Any) -> st.SearchStrategy[Any]:
    """Return records of ``kind`` in which any field that has a default may be missing."""
    named = {field.name: field for field in msgspec.structs.fields(kind)}
    needed = {name: made for name, made in fields.items() if named[name].required}
    optional = {name: made for name, made in fields.items() if name not in needed}
    return st.fixed_dictionaries(needed, optional=optional).map(lambda values: kind(**values))


intents = records(IntentInfo, label=texts, confidence=shares, model_version=texts)
bodies = records(Body, encoding=st.sampled_from(["json", "zstd", "object"]), data=texts)
messages = records(
    Message,
    id=names,
    tenant=st.just("acme"),
    revision=counts,
    digest=texts,
    grant=st.none() | texts,
    body=bodies,
    priority=st.sampled_from(Priority),
    session_id=st.none() | names,
    deadline=st.none() | times,
    traceparent=texts,
    accepted_at=times,
    agent_type=texts,
    fallback_from=texts,
    intent=st.none() | intents,
    routed_at=times,
    classify_ms=numbers,
)
timings = records(
    Timings, accepted_at=times, routed_at=st.none() | times, started_at=times, finished_at=times, agent_ms=numbers
)
results = records(
    Result,
    request_id=texts,
    revision=counts,
    tenant=texts,
    status=st.sampled_from(Status),
    intent=intents,
    agent=records(AgentInfo, type=texts, model=texts),
    output=texts,
    error=st.none() | records(ErrorInfo, code=texts, message=texts),
    usage=records(Usage, input_tokens=counts, output_tokens=counts, tool_calls=counts),
    timings=timings,
    session_id=st.none() | texts,
    steps=st.lists(
        records(
            Step,
            name=texts,
            detail=texts,
            ok=st.booleans(),
            milliseconds=numbers,
            status=st.none() | st.sampled_from(Status),
            finished_at=st.none() | times,
            depends_on=st.none() | st.lists(texts, max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    request_digest=texts,
    attempt=texts,
)
audited = records(
    AuditRecord,
    action=st.sampled_from(Action),
    actor=texts,
    tenant=texts,
    request_id=texts,
    resource=texts,
    decision=st.sampled_from(Decision),
    reason=texts,
    details=st.dictionaries(
        texts, texts | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ),
    time=times,
    stream=texts,
    sequence=counts,
    previous=texts,
)


def spelt(value: Any) -> Any:
    """Spell a record as its JSON values, without a serialiser: the wire format in plain words."""
    if isinstance(value, Contract):
        pairs = {name: getattr(value, name) for name in value.__struct_fields__}
        return {name: spelt(item) for name, item in pairs.items() if item is not None}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [spelt(item) for item in value]
    return value


@given(messages | results | audited)
def test_any_record_is_spelt_canonically_and_comes_back(record: Contract) -> None:
    line = record.to_bytes()
    assert line == canonical(spelt(record))
    assert line == canonical(orjson.loads(line))
    again = parse_versioned(type(record), line)
    assert again == record
    assert again.to_bytes() == line


@given(audited)
def test_a_record_is_named_by_the_hash_of_its_line(record: AuditRecord) -> None:
    assert record.hash() == sha256(record.to_bytes())


# What is refused ----------------------------------------------------------------------------------------

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", SECRET + "\n"),
        ("id", 5),
        ("tenant", f"{SECRET}/.."),
        ("tenant", ""),
        ("revision", "2"),
        ("revision", True),
        ("priority", SECRET),
        ("deadline", "2030-01-01T00:00:00"),
        ("deadline", 1893456000),
        ("deadline", SECRET),
        ("digest", None),
        ("body.encoding", SECRET),
        ("intent.confidence", SECRET),
        ("intent.label", None),
        ("session_id", f"{SECRET} x"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(field: str, value: object) -> None:
    raw = orjson.loads(build.message(intent=build.intent()).to_bytes())
    holder, _, name = field.rpartition(".")
    (raw[holder] if holder else raw)[name] = value
    for data in (raw, canonical(raw)):
        with pytest.raises(MalformedMessage, match=rf"^Message: {field}: ") as caught:
            parse_versioned(Message, data)
        assert SECRET not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    raw = orjson.loads(RESULT_LINE)
    del raw["timings"]["accepted_at"]
    with pytest.raises(MalformedMessage, match=r"^Result: timings.accepted_at: is missing$"):
        parse_versioned(Result, raw)


def test_a_time_without_a_zone_is_refused_also_where_we_build_the_record_ourselves() -> None:
    with pytest.raises(ValueError, match="accepted_at"):
        build.message(accepted_at=NEW_YEAR.replace(tzinfo=None))


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, b"x", NEW_YEAR])
def test_details_of_an_event_are_plain(value: Any) -> None:
    with pytest.raises(TypeError, match=r"details\.thing"):
        build.event(details={"thing": value})
    event = build.event()
    with pytest.raises(TypeError, match=r"details\.thing"):
        event.changed(details={"thing": value})
    raw = {**event.to_dict(), "details": {"thing": orjson.loads(orjson.dumps(value, default=repr))}}
    if not isinstance(raw["details"]["thing"], str):
        with pytest.raises(msgspec.ValidationError, match="details"):
            msgspec.convert(raw, Event)


# The body, as a hop reads it ----------------------------------------------------------------------------


def test_a_hop_reads_every_field_of_a_body() -> None:
    asked = build.request(
        "hello",
        id="r1",
        tenant="acme",
        session_id="s.1",
        attachments=["acme/a.txt"],
        intent="query_data",
        model="m",
        priority="high",
        deadline=IN_THE_EAST,
        callback="https://example.org/done",
        metadata={"a": [1, None]},
        traceparent="00-1-2-01",
    )
    back = to_request(build.message(asked, traceparent=asked.traceparent), asked.body())
    assert back == Asked(
        id="r1",
        tenant="acme",
        text="hello",
        session_id="s.1",
        attachments=("acme/a.txt",),
        intent=Intent.QUERY_DATA,
        model="m",
        priority=Priority.HIGH,
        deadline=IN_THE_EAST,
        callback="https://example.org/done",
        metadata={"a": [1, None]},
        traceparent="00-1-2-01",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", " "),
        ("text", "x" * 1_100_000),
        ("metadata", {"a": "x" * 9000}),
        ("metadata", {"a": 2**64}),
        ("attachments", ["a"] * 17),
        ("attachments", [""]),
        ("model", ""),
        ("callback", "file:///etc/passwd"),
        ("intent", "Sing"),
        ("tenant", "../x"),
    ],
)
def test_a_body_that_no_door_lets_in_is_malformed(field: str, value: object) -> None:
    body = str({"text": "hello", field: value}).replace("'", '"').encode()
    with pytest.raises(MalformedMessage, match=field):
        to_request(build.message(), body)
