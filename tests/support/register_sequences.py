"""Random sequences of operations on a register, for comparing two of them step by step."""

from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import strategies as st

from tasks import keys
from tasks.contracts.row import Stage
from tasks.errors import LeaseLost
from tasks.stores.register import Branch, Due, Handover, Lease, Limits, Register
from tests.support import build
from tests.support.build import NOW

Operation = tuple[str, dict[str, Any]]

ROWS = {
    "t1": build.row("t1", session="s", deadline=NOW + 20),
    "t2": build.row("t2", session="s"),
    "t3": build.row("t3", session="s", stage=Stage.WORK, queue="agents.planner"),
    "r1": build.row("r1", queue="requests.high", deadline=NOW + 5.5),
    "t1#r1~callback": build.row("t1#r1~callback", digest="digest-of-t1", stage=Stage.DELIVER, queue="callbacks"),
    **{f"t3#r1.{step}": build.row(f"t3#r1.{step}", digest="digest-of-t3", stage=Stage.WORK) for step in "abc"},
}
NEEDS = {"a": (), "b": ("a",), "c": ("a",)}
QUEUES = ("requests", "requests.high", "agents.planner", "agents.responder", "callbacks")

_ids = st.sampled_from(sorted(ROWS))
_holders = st.sampled_from(["h1", "h2"])
_dues = st.floats(-5, 30).map(lambda value: round(value, 3))


def _op(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(name), st.fixed_dictionaries({"id": _ids, **fields}))


OPERATIONS = st.lists(
    st.one_of(
        _op(
            "open",
            other=st.sampled_from([False, False, False, True]),
            slots=st.sampled_from([None, None, 1]),
            revision=st.sampled_from([1, 1, 1, 2]),
        ),
        _op("outbox", again=st.sampled_from([False, False, True])),
        _op("release", slots=st.sampled_from([None, 1, 2])),
        _op("publish", stale=st.sampled_from([0, 0, 0, 1])),
        _op("begin", holder=_holders, stale=st.sampled_from([False, False, False, True]), attempts=st.integers(1, 3)),
        _op("begin", holder=_holders, stale=st.just(False), attempts=st.integers(1, 3)),
        _op("extend", holder=_holders),
        _op("advance", holder=_holders, queue=st.sampled_from(QUEUES[2:4]), due=_dues),
        _op("postpone", holder=_holders, due=_dues, counted=st.booleans()),
        _op("clear", revision=st.sampled_from([1, 1, 1, 2])),
        _op("seize", holder=_holders),
        _op("reclaim", why=st.sampled_from(list(Due)), before=_dues, due=_dues),
        _op("fan_out", holder=_holders, ended=st.sampled_from([(), (), ("a",), ("a", "b"), ("a", "b", "c")])),
        _op("join", step=st.sampled_from(sorted(NEEDS)), ok=st.booleans()),
        _op("wait", seconds=st.sampled_from([0.5, 3.0, 10.0])),
    ),
    min_size=5,
    max_size=40,
)


class Player:
    """Plays operations on one register. What an operation does depends on the operations and this register alone."""

    def __init__(self, register: Register) -> None:
        self.register = register
        self.now = NOW

    async def play(self, operation: Operation) -> Any:
        """Return what the operation returned, or the name of the error that it raised."""
        name, fields = operation
        act: Callable[..., Awaitable[Any]] = getattr(self, f"_{name}")
        try:
            return await act(**{**fields, "id": fields["id"]})
        except LeaseLost:
            return "LeaseLost"

    async def view(self) -> dict[str, Any]:
        """Return everything that the port shows."""
        register, refs, far = self.register, [f"default/{name}" for name in ROWS], NOW + 10_000
        return {
            "rows": [await register.get(ref) for ref in refs],
            "open": await register.are_open(refs),
            "unpublished": await register.unpublished(now=far, limit=10),
            "due": await register.unpublished(now=self.now, limit=10),
            "lapsed": await register.lapsed(before=far, limit=10),
            "overdue": await register.overdue(now=self.now, limit=2),
            "lost": [await register.lost(queue, before=far, limit=10) for queue in QUEUES],
            "counts": await register.counts(),
            "load": await register.load("default"),
            "throttled": await register.throttled_tenants(),
        }

    async def _open(self, id: str, other: bool, slots: int | None, revision: int) -> Any:  # noqa: A002
        if "#" in id:
            return None  # a step or a callback is opened by its request
        row = ROWS[id].changed(revision=revision, **({"digest": "another"} if other else {}))
        return await self.register.open([row], due=self.now + 10, limits=[Limits(most_open=3, slots=slots)])

    async def _outbox(self, id: str, again: bool) -> Any:  # noqa: A002
        if not keys.is_delivery(id):
            return None
        return await self.register.outbox(ROWS[id], due=self.now + 10, again=again)

    async def _release(self, id: str, slots: int | None) -> Any:  # noqa: A002
        return await self.register.release("default", slots=slots, now=self.now, due=self.now + 10, most=2)

    async def _publish(self, id: str, stale: int) -> Any:  # noqa: A002
        row = await self.register.get(f"default/{id}") or ROWS[id]
        await self.register.published([(f"default/{id}", row.queue, row.generation - stale)], now=self.now)

    async def _begin(self, id: str, holder: str, stale: bool, attempts: int) -> Any:  # noqa: A002
        row = await self.register.get(f"default/{id}") or ROWS[id]
        stage = row.stage if not stale else Stage.ROUTE if row.stage is Stage.WORK else Stage.WORK
        return await self.register.begin(
            f"default/{id}",
            stage=stage,
            revision=row.revision,
            digest=ROWS[id].digest,
            holder=holder,
            now=self.now,
            lease=5,
            attempts=attempts,
        )

    async def _extend(self, id: str, holder: str) -> Any:  # noqa: A002
        return await self.register.extend([Lease(f"default/{id}", holder)], now=self.now, lease=5)

    async def _advance(self, id: str, holder: str, queue: str, due: float) -> Any:  # noqa: A002
        handover = Handover(Stage.WORK, queue, '{"text":"grüße"}')
        return await self.register.advance(f"default/{id}", holder, handover, due=self.now + due)

    async def _postpone(self, id: str, holder: str, due: float, counted: bool) -> Any:  # noqa: A002
        return await self.register.postpone(f"default/{id}", holder, due=self.now + due, counted=counted)

    async def _clear(self, id: str, revision: int) -> Any:  # noqa: A002
        digest = ROWS[id].digest
        return await self.register.clear(f"default/{id}", revision=revision, digest=digest, now=self.now, remember=600)

    async def _seize(self, id: str, holder: str) -> Any:  # noqa: A002
        return await self.register.seize(f"default/{id}", holder, now=self.now, lease=5)

    async def _reclaim(self, id: str, why: Due, before: float, due: float) -> Any:  # noqa: A002
        return await self.register.reclaim(f"default/{id}", why, before=self.now + before, due=self.now + due)

    async def _fan_out(self, id: str, holder: str, ended: tuple[str, ...]) -> Any:  # noqa: A002
        branches = [
            Branch(ROWS[f"t3#r1.{step}"], step, needs, vital=step != "b")
            for step, needs in NEEDS.items()
            if step not in ended
        ] or [Branch(ROWS["t3#r1.a"], "a")]
        return await self.register.fan_out(
            "default/t3", holder, branches, steps=tuple(NEEDS), ended=ended, due=self.now + 10, look=self.now + 20
        )

    async def _join(self, id: str, step: str, ok: bool) -> Any:  # noqa: A002
        freed = await self.register.join("default/t3", revision=1, step=step, ok=ok, now=self.now)
        return sorted(freed)

    async def _wait(self, id: str, seconds: float) -> None:  # noqa: A002
        self.now += seconds
