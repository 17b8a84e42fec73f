"""A real S3 server for the drivers' contract: one a test process, a folder of its own for each test."""

from collections.abc import Callable
from itertools import count

import pytest

from roadstead.secret import Secret
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.testing.seaweedfs import SeaweedFS

OpenS3Driver = Callable[[], S3Driver]

_numbers = count()


@pytest.fixture
def open_s3_driver(seaweedfs: SeaweedFS) -> OpenS3Driver:
    """Return what opens drivers over an empty folder of the bucket."""
    prefix = f"test-{next(_numbers)}"

    def open_driver() -> S3Driver:
        return S3Driver(
            "test",
            prefix=prefix,
            region=seaweedfs.region,
            endpoint=seaweedfs.endpoint,
            access_key=seaweedfs.access_key,
            secret_key=Secret(seaweedfs.secret_key),
            part_size=5 << 20,  # The least that S3 allows: the contract's objects are larger.
        )

    return open_driver
