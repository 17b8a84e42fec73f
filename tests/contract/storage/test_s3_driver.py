"""The S3 driver keeps the contract on a real server."""

import pytest

from roadstead.storage.drivers.s3 import S3Driver
from roadstead.testing.contracts.driver import DriverContract, OpenDriver


class TestS3Driver(DriverContract):
    @pytest.fixture
    def open_driver(self, open_s3_driver: type[S3Driver]) -> OpenDriver:
        return open_s3_driver
