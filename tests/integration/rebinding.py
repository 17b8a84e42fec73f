"""A server in a network of its own, where names lead where an attacker's DNS server says, each time elsewhere.

`told` runs this module as a program in new namespaces of network and mounts: a public address is on its loopback, and
so are private ones, at which nobody may ever be connected to; `/etc/resolv.conf` names the program's own DNS server.
"""

import asyncio
import fcntl
import json
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from tests.integration.container_api import ask, layer_object, push

from roadstead.testing.client import Answer, Client
from roadstead.testing.components import require
from roadstead.testing.images import make_image, make_layer
from roadstead.testing.scripted_upstream import Handler, ScriptedUpstream, scripted_upstream
from roadstead.testing.server import RoadsteadServer

PUBLIC = "9.9.9.9"
PRIVATE = ("127.0.0.1", "10.1.2.3", "169.254.169.254")
PORTS = (80, 443)
LAYER = make_layer({"foo.txt": b"from the internet\n"})
GOOD, MANY = "good.test", 6

# By name, what each look-up is answered with; the last answer stays.
NAMES: Mapping[str, Sequence[Sequence[str]]] = {
    GOOD: [[PUBLIC]],
    "moves.test": [[PUBLIC], ["127.0.0.1"]],
    "mixed.test": [[PUBLIC, "127.0.0.1"]],
    "mixed-too.test": [["10.1.2.3", PUBLIC]],
    "inner.test": [["10.1.2.3"]],
    "metadata.test": [["169.254.169.254"]],
    "flips.test": [[PUBLIC], ["127.0.0.1"]] * MANY,
    "registry.test": [["127.0.0.1"]],
    "registry-moves.test": [[PUBLIC], ["10.1.2.3"]],
}

_SET_ADDRESS, _GET_FLAGS, _SET_FLAGS, _UP = 0x8916, 0x8913, 0x8914, 1  # netdevice(7)
_HEADER = struct.Struct("!6H")  # RFC 1035 §4.1.1
_TYPE_A = 1


def told(directory: Path) -> dict[str, Any]:
    """Run the program and return what it saw."""
    unshare = require("unshare", install="apt-get install util-linux")
    resolv = directory / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:5\n")
    command = [
        *(str(unshare), "--map-root-user", "--net", "--mount"),
        *("sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolv)),
        *(sys.executable, "-m", "tests.integration.rebinding", str(directory / "server")),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def bring_up() -> None:
    """Give this network a loopback, and the addresses to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        names = ["lo", *(f"lo:{number}" for number in range(1, 1 + len(PRIVATE)))]
        for name, address in zip(names, (PRIVATE[0], PUBLIC, *PRIVATE[1:]), strict=True):
            where = struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, _SET_ADDRESS, where)
            (flags,) = struct.unpack_from(
                "H", fcntl.ioctl(control, _GET_FLAGS, struct.pack("16s16x", name.encode())), 16
            )
            fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH14x", name.encode(), flags | _UP))


@dataclass
class Names(asyncio.DatagramProtocol):
    """The DNS server (RFC 1035): A records alone, which may not be kept for a moment."""

    asked: dict[str, int] = field(default_factory=dict)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        number, *_ = _HEADER.unpack_from(data)
        name, end = self._name(data)
        kind, _ = struct.unpack_from("!2H", data, end)
        answers = self._answers(name) if kind == _TYPE_A else []
        records = [struct.pack("!3HIH4s", 0xC00C, _TYPE_A, 1, 0, 4, socket.inet_aton(one)) for one in answers]
        code = 0 if name in NAMES else 3
        head = _HEADER.pack(number, 0x8180 | code, 1, len(records), 0, 0)
        self._transport.sendto(head + data[_HEADER.size : end + 4] + b"".join(records), addr)

    def _answers(self, name: str) -> Sequence[str]:
        answers = NAMES.get(name, [[]])
        turn = self.asked.get(name, 0)
        self.asked[name] = turn + 1
        return answers[min(turn, len(answers) - 1)]

    def _name(self, data: bytes) -> tuple[str, int]:
        labels, place = [], _HEADER.size
        while size := data[place]:
            labels.append(data[place + 1 : place + 1 + size].decode())
            place += 1 + size
        return ".".join(labels).lower(), place + 1


@asynccontextmanager
async def strangers() -> AsyncIterator[list[str]]:
    """Listen at the private addresses, and note who is connected to."""
    met: list[str] = []

    def noting(address: str, port: int) -> Any:
        async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            met.append(f"{address}:{port}")
            writer.close()

        return note

    async with AsyncExitStack() as listening:
        for address in PRIVATE:
            for port in PORTS:
                server = await asyncio.start_server(noting(address, port), address, port)
                await listening.enter_async_context(server)
        yield met


async def _ends(request: web.Request, _: Handler) -> web.StreamResponse:
    """Answer that there is trouble, on a connection that ends: whoever asks again has to look up the name again."""
    return web.Response(status=503, headers={"Connection": "close"})


async def _gives(request: web.Request, _: Handler) -> web.StreamResponse:
    return web.Response(body=LAYER.raw, headers={"Connection": "close"})


def _moves_to(target: str) -> Any:
    async def move(request: web.Request, _: Handler) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target, "Connection": "close"})

    return move


def _wanted(location: str) -> Mapping[str, Any]:
    return {"containerImage": "team/app:1", "containerConfig": {"layers": [layer_object(LAYER, location=location)]}}


def _cases(host: str) -> dict[str, list[Any]]:
    """Ask for a layer at each name, and for what else makes the server ask others."""

    def said(answer: Answer) -> list[Any]:
        document = answer.json()
        return [answer.status, document.get("message", "") if isinstance(document, dict) else document]

    found: dict[str, list[Any]] = {}
    with Client(host) as client:
        push(client, "team/app", make_image(seed="rebinding"), "1")
        for name in (GOOD, "moves.test", "mixed.test", "mixed-too.test", "inner.test", "metadata.test"):
            found[name] = said(ask(client, _wanted(f"http://{name}/layer")))
        for target in ("inner.test", "metadata.test"):
            found[f"a redirect to {target}"] = said(ask(client, _wanted(f"http://{GOOD}/to-{target}")))
        found["flips.test"] = [ask(client, _wanted("http://flips.test/layer")).status for _ in range(2 * MANY)]
        for name in ("registry.test", "registry-moves.test"):
            found[f"a blob of {name}"] = said(ask(client, _wanted(f"docker://{name}/team/layers@{LAYER.digest}")))
            image = f"{name}/team/app:1"
            found[f"an image of {name}"] = said(
                ask(client, {"containerImage": "team/app:1", "containerIncludes": [image]})
            )
            credentials = {"userName": "u", "password": "p", "registry": name}
            found[f"a password for {name}"] = said(ask(client, credentials, path="/validate-creds"))
            found[f"a look at {name}"] = said(ask(client, {"containerImage": image}, path="/v1alpha1/inspect"))
    return found


def _prepare(upstream: ScriptedUpstream) -> None:
    """Have the public server stumble with the name that moves on, and give the layer with the others."""
    upstream.will("GET", "/layer", _gives, _ends, *[_gives] * (2 * MANY))
    for target in ("inner.test", "metadata.test"):
        upstream.will("GET", f"/to-{target}", _moves_to(f"http://{target}/latest"))


async def main(directory: Path) -> None:
    """Print, as JSON, what callers were told, who was met, and how often each name was looked up."""
    bring_up()
    loop = asyncio.get_running_loop()
    names = Names()
    transport, _ = await loop.create_datagram_endpoint(lambda: names, local_addr=("127.0.0.1", 53))
    async with strangers() as met, scripted_upstream(address=PUBLIC, port=80) as upstream:
        _prepare(upstream)
        server = await asyncio.to_thread(RoadsteadServer(directory, workers=1).start)
        try:
            cases = await asyncio.to_thread(_cases, server.host)
        finally:
            await asyncio.to_thread(server.stop)
            transport.close()
    print(json.dumps({"cases": cases, "met": met, "asked": names.asked, "public": len(upstream.requests)}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
