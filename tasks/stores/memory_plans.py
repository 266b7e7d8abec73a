"""The register's part for the steps of a plan, in memory: step for step what :mod:`tasks.stores.step_scripts` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks import keys
from tasks.contracts.row import Row
from tasks.stores.register import Branch

if TYPE_CHECKING:
    from tasks.stores.memory_register import Index


@dataclass
class MemoryPlan:
    """One plan: its steps, those that have ended, and whether the request is to wait no longer."""

    steps: tuple[str, ...] = ()
    ended: set[str] = field(default_factory=set)
    branches: dict[str, Branch] = field(default_factory=dict)
    woken: bool = False

    def freed_by(self, step: str) -> list[str]:
        """Return the steps that needed ``step`` and now have all that they need."""
        return [name for name, other in self.branches.items() if step in other.needs and self.ended >= set(other.needs)]


class MemorySteps:
    """A part of the register in memory. ``_plans`` are by what the refs of their steps begin with."""

    rows: dict[str, Row]
    _plans: dict[str, MemoryPlan]
    _done: dict[str, Any]
    _released: dict[str, str]
    _unpublished: Index
    _leases: Index

    def _set(self, ref: str, **fields: Any) -> Row:
        raise NotImplementedError

    def _held(self, ref: str, holder: str) -> Row:
        raise NotImplementedError

    def _bury(self, ref: str, digest: str, revision: int) -> None:
        raise NotImplementedError

    async def fan_out(
        self,
        ref: str,
        holder: str,
        branches: Sequence[Branch],
        *,
        steps: Sequence[str],
        ended: Sequence[str],
        due: float,
        look: float,
    ) -> list[str] | None:
        """See the port."""
        plan = self._plans[keys.plan_ref(ref, branches[0].row.revision)]
        again = self._released.get(ref) == holder
        if not again:
            row = self._held(ref, holder)
            plan.steps = tuple(steps)
            self._set(ref, steps=" ".join(steps))
            plan.ended |= set(ended)
            if plan.woken or plan.ended >= set(steps):
                return None
            for branch in branches:
                self._open_branch(plan, branch, due)
            self._released[ref] = holder
            self._set(
                ref,
                holder="",
                parked=True,
                published=False,
                attempts=0,
                due=look,
                generation=row.generation + 1,
            )
            self._leases.pop(ref, None)
            self._unpublished[ref] = look
        refs = [keys.ref(branch.row.tenant, branch.row.id) for branch in branches]
        return [ref for ref in refs if (row_of := self.rows.get(ref)) and row_of.state == "delayed"]

    def _open_branch(self, plan: MemoryPlan, branch: Branch, due: float) -> None:
        ref = keys.ref(branch.row.tenant, branch.row.id)
        if ref in self.rows or ref in self._done:
            return
        plan.branches[branch.step] = branch
        is_ready = plan.ended >= set(branch.needs)
        self.rows[ref] = branch.row.changed(parked=not is_ready)
        if is_ready:
            self._unpublished[ref] = due

    async def join(self, ref: str, *, revision: int, step: str, ok: bool, now: float) -> list[str]:
        """See the port."""
        row = self.rows.get(ref)
        name = keys.plan_ref(ref, revision)
        plan = self._plans[name]
        if row is None or row.revision != revision or not plan.steps:
            return []
        plan.ended.add(step)
        own = plan.branches.get(step) if f"{name}.{step}" in self.rows else None
        is_fatal = own is not None and own.vital and not ok
        freed = [] if own is None or is_fatal else [f"{name}.{after}" for after in plan.freed_by(step)]
        released = [other for other in freed if (found := self.rows.get(other)) and found.parked]
        if is_fatal or plan.ended >= set(plan.steps):
            plan.woken = True
            released += [ref] if row.parked and not row.holder else []
        for other in released:
            self._set(other, parked=False, published=False, due=now, generation=self.rows[other].generation + 1)
            self._unpublished[other] = now
        return released

    def _disband(self, ref: str, revision: int) -> None:
        name = keys.plan_ref(ref, revision)
        for step in self._plans.pop(name, MemoryPlan()).steps:
            row = self.rows.get(f"{name}.{step}")
            if row:
                self._bury(f"{name}.{step}", row.digest, revision)
