"""The memory driver keeps the contract."""

import pytest

from roadstead.storage.drivers.memory import MemoryDriver, MemoryStore
from roadstead.testing.contracts.driver import DriverContract, OpenDriver


class TestMemoryDriver(DriverContract):
    @pytest.fixture
    def open_driver(self) -> OpenDriver:
        store = MemoryStore()
        return lambda: MemoryDriver(store)
