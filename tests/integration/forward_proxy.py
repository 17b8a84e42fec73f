"""A forward proxy in a process of its own: ``python -m tests.integration.forward_proxy PORT TARGET_PORT LOG``.

It takes CONNECT (RFC 9110 §9.3.6) for whatever name, and connects to 127.0.0.1:TARGET_PORT, as the proxy of a network
does whose names nobody else knows. Each request line goes into LOG.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends."""
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()


async def main(port: int, target: int, log: Path) -> None:
    """Serve until somebody ends it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        with log.open("a") as file:
            file.write(head.partition("\r\n")[0] + "\n")
        if not head.startswith("CONNECT "):
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(relay(reader, there_writer), relay(there_reader, writer))
        for each in (writer, there_writer):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
