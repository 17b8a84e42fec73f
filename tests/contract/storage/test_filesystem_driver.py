"""The filesystem driver keeps the contract."""

from pathlib import Path

import pytest

from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.contracts.driver import DriverContract, OpenDriver


class TestFilesystemDriver(DriverContract):
    @pytest.fixture
    def open_driver(self, tmp_path: Path) -> OpenDriver:
        return lambda: FilesystemDriver(tmp_path / "store")
