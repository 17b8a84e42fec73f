"""What the S3 driver asks of the store for every object it makes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from roadstead.secret import Secret
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.storage.ports import Key


class Listener:
    """An S3 server that takes single objects and remembers the heads of requests."""

    def __init__(self) -> None:
        self.heads: list[dict[str, str]] = []
        self.endpoint = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:]
            head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if head.get("expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await reader.readexactly(int(head["content-length"]))
            self.heads.append(head)
            writer.write(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
            await writer.drain()
        finally:
            writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listening = Listener()
    server = await asyncio.start_server(listening.serve, "127.0.0.1", 0)
    listening.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield listening


@pytest.mark.parametrize(
    ("encrypt", "kms_key", "storage_class", "sent"),
    [
        (False, None, None, (None, None, None)),
        (True, None, None, ("AES256", None, None)),
        (True, "key-1", "STANDARD_IA", ("aws:kms", "key-1", "STANDARD_IA")),
    ],
)
async def test_encryption_and_class_are_asked_for(
    listener: Listener, encrypt: bool, kms_key: str | None, storage_class: str | None, sent: tuple[str | None, ...]
) -> None:
    """Each object's request carries what settings say, and nothing where they say nothing."""
    driver = S3Driver(
        "bucket",
        region="us-east-1",
        endpoint=listener.endpoint,
        access_key="key",
        secret_key=Secret("secret"),
        encrypt=encrypt,
        kms_key=kms_key,
        storage_class=storage_class,
    )

    async with driver.write(Key("a/b")) as handle:
        await handle.append(b"data")
        await handle.commit()
    await driver.close()

    names = ("server-side-encryption", "server-side-encryption-aws-kms-key-id", "storage-class")
    assert [tuple(head.get(f"x-amz-{name}") for name in names) for head in listener.heads] == [sent]
