"""The CPU benchmark: whose a stack is, what a flame graph shows, and what bad input gets."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from benchmarks import where
from benchmarks.flame import NATIVE, WIDTH, Sampler, Stack, collapsed, stack_of, svg
from benchmarks.where import Found, Run, Saved, by_part, merged, part_of, told_json, told_text
from benchmarks.where_child import SWITCHED_OFF, Task
from tasks.errors import NotReady

RUNNER = "asyncio.runners:Runner.run"
STACKS: dict[Stack, float] = {
    ("main", RUNNER): 1.0,
    ("main", RUNNER, "tasks.hop:Hop.handle"): 2.0,
    ("main", RUNNER, "tasks.hop:Hop.handle", "tasks.contracts.base:parse_versioned"): 3.0,
    ("sluice-batch", "intent.batching:<lambda> & co"): 4.0,
}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("innermost", "part"),
    [
        ((), "event loop"),
        (("tasks.consumer:Consumer._run",), "hop"),
        (("tasks.leases:Leases.begin", "tasks.stores.redis_register:RedisRegister.begin"), "register"),
        (("tasks.stores.redis_relay:RedisRelay.hand_over",), "broker"),
        (("tasks.stores.redis_relay:RedisRelay.hand_over", "tasks.stores.link:Link.run"), "link"),
        (("tasks.finish:Finisher.finish", "tasks.stores.s3:S3ObjectStore.create"), "object store client"),
        (("tasks.stores.results:ResultStore.create",), "object store client"),
        (("tasks.audit.stream:AuditStream.report", "tasks.access.redact:Redactor.text"), "audit"),
        (("tasks.audit.stream:AuditStream.report", "tasks.contracts.audit:AuditRecord.to_bytes"), "contracts"),
        (("handlers.producer:to_request", "tasks.contracts.strict:parse_strict"), "door and client"),
        (("tasks.agents.team:TeamRunner.run", "pydantic.main:BaseModel.__init__"), "agent"),
        (("autogen_core._cancellation_token:CancellationToken.__init__", "re:compile"), "AutoGen"),
        (("intent.batching:Batcher.submit",), "classifier"),
        (("intentional:f",), "event loop"),
    ],
)
def test_a_stack_belongs_to_its_innermost_known_module(innermost: Stack, part: str) -> None:
    assert part_of(("main", RUNNER, *innermost)) == part


def test_what_is_unknown_is_other_and_what_runs_no_python_is_the_object_stores() -> None:
    assert part_of(("main", "__main__:<module>")) == "other"
    assert part_of((NATIVE,)) == "object store client"


def test_parts_add_up_to_what_was_spent() -> None:
    assert by_part(STACKS) == {"classifier": 4.0, "contracts": 3.0, "hop": 2.0, "event loop": 1.0}


def test_runs_are_averaged_and_their_samples_added() -> None:
    one = Run({"worker": 2.0}, 10, {"worker": {("main",): 2.0}})
    other = Run({"worker": 4.0}, 20, {"worker": {("main",): 1.0, ("beside",): 3.0}})
    assert merged([one, other]) == Run({"worker": 3.0}, 30, {"worker": {("main",): 1.5, ("beside",): 1.5}})


def boxes(picture: str) -> dict[str, tuple[float, float, float]]:
    """Return left edge, row and width by the first word of a box's title."""
    found = {}
    for group in fromstring(picture).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text is not None
        assert box is not None
        left, top, width = (float(box.attrib[name]) for name in ("x", "y", "width"))
        found[title.text.rpartition(":")[0]] = (left, top, width)
    return found


def test_a_flame_graph_is_well_formed_and_its_widths_add_up() -> None:
    drawn = boxes(svg(STACKS, "a <title> & more", part_of))
    assert drawn["main"][2] + drawn["sluice-batch"][2] == pytest.approx(WIDTH)
    assert drawn["main"][2] == pytest.approx(0.6 * WIDTH)
    assert drawn["main"][2] == drawn[RUNNER][2]
    assert drawn["tasks.hop:Hop.handle"][2] == pytest.approx(0.5 * WIDTH)
    assert drawn["intent.batching:<lambda> & co"][2] == drawn["sluice-batch"][2]


def test_no_box_of_a_flame_graph_hides_another() -> None:
    rows: dict[float, list[tuple[float, float]]] = {}
    for left, top, width in boxes(svg(STACKS, "", part_of)).values():
        rows.setdefault(top, []).append((left, left + width))
    for row in rows.values():
        edges = [edge for box in sorted(row) for edge in box]
        assert edges == sorted(edges)
        assert edges[-1] <= WIDTH + 0.01


def test_a_box_tells_its_share_and_its_part() -> None:
    assert "tasks.hop:Hop.handle: 5000.0 ms, 50.0% (hop)" in svg(STACKS, "", part_of)


def test_a_flame_graph_of_nothing_is_well_formed() -> None:
    assert boxes(svg({}, "", part_of)) == {}


def test_stacks_are_written_a_line_each() -> None:
    assert collapsed({("main", "a:b"): 0.0015, ("beside",): 1.0}) == "beside 1000000\nmain;a:b 1500\n"


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_sampler_accounts_for_all_that_was_spent() -> None:
    sampler = Sampler()
    sampler.start()
    burn(0.08)
    spent = sampler.stop()
    assert sum(sampler.stacks.values()) == pytest.approx(spent, rel=0.25)
    here = [seconds for stack, seconds in sampler.stacks.items() if stack[-1].endswith(":burn")]
    assert sum(here) > 0.5 * spent


def test_a_frame_is_spelt_from_the_outermost_to_itself() -> None:
    assert stack_of(sys._getframe())[-1].endswith(":test_a_frame_is_spelt_from_the_outermost_to_itself")
    assert stack_of(None) == ()


FOUND = Found(
    profile=Run({"submitter": 1.0, "worker": 10.0, "Redis": 2.0}, 2500, {"worker": STACKS}),
    plain=9.5,
    saved={name: Saved(without=[8.0, 9.0], around=[10.0, 10.0]) for name in SWITCHED_OFF},
)
TASK = Task("worker", "", requests=1000, concurrency=16, profile=False)


def test_tables_are_in_milliseconds_for_each_request() -> None:
    text = told_text(FOUND, TASK, repeats=1)
    assert "| worker | classifier | 4.000 | 30.8% |" in text
    assert "| worker | **all** | 10.000 | 76.9% |" in text
    assert "| **total** |  | 13.000 | 100.0% |" in text
    assert "| batching | max_batch=1 | 10.000 | 8.500 | 1.500 | 1.000 .. 2.000 |" in text
    assert "Celery: 0" in text
    assert '"classifier": 4.0' in told_json(FOUND, TASK)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["where", *arguments])
    with pytest.raises(SystemExit) as raised:
        where.main()
    return raised.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--requests", "0"], "--requests: must be a whole number of at least 1, is '0'"),
        (["--repeats", "two"], "--repeats: must be a whole number of at least 1, is 'two'"),
        (["--concurrency", "-1"], "--concurrency: must be a whole number of at least 1"),
        (["--part", "audit"], "unrecognized arguments: --part audit"),
    ],
)
def test_bad_input_names_the_flag(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run_main(monkeypatch, "--out", str(tmp_path / "file" / "out")) == 2
    assert "--out: " in capsys.readouterr().err


def test_without_servers_it_exits_3_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.contextmanager
    def missing() -> Iterator[None]:
        raise NotReady("no S3 server: pip install 'sluice[local]'")
        yield

    monkeypatch.setattr(where, "servers", missing)
    assert run_main(monkeypatch, "--out", str(tmp_path)) == 3
    assert "pip install 'sluice[local]'" in capsys.readouterr().err
