"""The journal on real object storage."""

import asyncio

import pytest

from tasks.contracts.base import sha256
from tasks.contracts.journal import CallOutcome, JournalKey, Scope
from tasks.errors import CallInDoubt
from tasks.stores.connect import Stores
from tasks.stores.journal import JournalStore


async def test_of_many_that_begin_a_call_at_once_one_makes_it(stores: Stores, tenant: str) -> None:
    key = JournalKey(Scope(tenant, "r1", 1, "pay"), "api_caller", sha256(b"{}"))
    begun = await asyncio.gather(*(JournalStore(stores.data).begin(key) for _ in range(12)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in begun) == ["CallInDoubt"] * 11 + ["NoneType"]


async def test_a_call_is_found_as_it_was_left(stores: Stores, tenant: str) -> None:
    journal, scope = JournalStore(stores.data), Scope(tenant, "r1", 2)
    ended, open_ = (JournalKey(scope, "server__tool-1", sha256(b"{}"), number) for number in (1, 2))
    assert await journal.calls(scope) == {}
    for key in (ended, open_):
        assert await journal.begin(key) is None
    for _ in range(2):
        await journal.end(ended, CallOutcome(text="d\u00f8ne"))
    assert await journal.calls(scope) == {ended: True, open_: False}
    assert await journal.calls(Scope(tenant, "r1", 1)) == {}
    assert await journal.begin(ended) == CallOutcome(text="d\u00f8ne")
    with pytest.raises(CallInDoubt):
        await journal.begin(open_)
