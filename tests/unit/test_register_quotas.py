"""The fake keeps the contract of slots and budgets; ``tests/integration/test_register_quotas.py`` has the real one."""

import pytest

from tasks.stores.memory_register import MemoryRegister
from tests.support.register_quotas import QuotaContract


@pytest.fixture
def register() -> MemoryRegister:
    return MemoryRegister()


class TestQuotas(QuotaContract):
    pass
