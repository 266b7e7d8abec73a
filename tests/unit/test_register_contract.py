"""The fake register keeps the contract; ``tests/integration/test_register.py`` shows that the real one does."""

import pytest

from tasks.stores.memory_register import MemoryRegister
from tasks.stores.register import Opened
from tests.support import build
from tests.support.register_callbacks import CallbackContract
from tests.support.register_contract import RegisterContract, RevisionContract, SessionContract
from tests.support.register_plans import PlanContract
from tests.support.register_retries import RetryContract


@pytest.fixture
def register() -> MemoryRegister:
    return MemoryRegister()


class TestRegister(RegisterContract):
    pass


class TestSessions(SessionContract):
    pass


class TestRevisions(RevisionContract):
    pass


class TestRetries(RetryContract):
    pass


class TestPlans(PlanContract):
    pass


class TestCallbacks(CallbackContract):
    pass


async def test_what_is_forgotten_is_new_again(register: MemoryRegister) -> None:
    row = build.row("r1")
    await register.open([row], due=0)
    await register.clear("default/r1", revision=1, digest=row.digest, now=0, remember=60)
    register.forget("default/r1")
    assert await register.open([row], due=0) == [Opened.CREATED]
