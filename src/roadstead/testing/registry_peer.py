"""Another registry: Debian's ``docker-registry`` (distribution 2.8), to copy from, to proxy and to compare with."""

import http.client
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roadstead.testing.components import require
from roadstead.testing.ports import free_port
from roadstead.testing.servers import Process

INSTALL = "apt-get install docker-registry"


@dataclass(frozen=True, slots=True)
class RegistryPeer:
    """A running distribution registry, without authentication unless it was given some; deletes are allowed."""

    port: int
    root: Path  # storage.filesystem.rootdirectory: the tree ``docker/registry/v2`` lies below

    @property
    def host(self) -> str:
        """What stands before the repository in an image's name, ``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address of the API's host, without ``/v2/``."""
        return f"http://{self.host}"

    def answers(self) -> bool:
        """Say whether ``/v2/`` answers (distribution-spec end-1)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in {http.client.OK, http.client.UNAUTHORIZED}
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def open_registry_peer(
    root: Path | None = None,
    *,
    storage: Mapping[str, Mapping[str, object]] | None = None,
    more: Mapping[str, object] | None = None,
    program: Path | None = None,
) -> Iterator[RegistryPeer]:
    """Run a registry until the block is left; over the tree *root*, which is kept, or over an empty one, which isn't.

    *storage* is a driver's section of its configuration in place of a folder, such as ``{"s3": {…}}``, which Debian's
    *program* doesn't know and distribution 3 does (``go_clients.DISTRIBUTION``). *more* are further
    sections.

    Raises ComponentMissingError, ServerNotReadyError.
    """
    program = program or require("docker-registry", install=INSTALL)
    home = Path(tempfile.mkdtemp(prefix="roadstead-registry-"))
    peer = RegistryPeer(free_port(), root or home / "root")
    config = home / "config.yml"
    config.write_text(_config(peer, storage or {"filesystem": {"rootdirectory": str(peer.root)}}, more or {}))
    try:
        with Process([program, "serve", config], log=home / "log", directory=home) as process:
            process.wait_ready(peer.answers)
            yield peer
    finally:
        shutil.rmtree(home)


def _config(peer: RegistryPeer, storage: Mapping[str, Mapping[str, object]], more: Mapping[str, object]) -> str:
    """Return distribution's ``config.yml``, as JSON, which YAML includes."""
    return json.dumps(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                **storage,
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": True},
            },
            "http": {"addr": peer.host},
            **more,
        }
    )
