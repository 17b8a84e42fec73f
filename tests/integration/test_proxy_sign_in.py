"""Who we are at upstreams, and the way to them: Docker's files, helpers, AWS, an authority of one's own, a proxy.

One server for all of it; its upstreams are real registries of Debian, and a scripted one that speaks TLS.
"""

import asyncio
import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.test_proxy import ask, pull, push, serving
from tests.integration.test_proxy_manners import is_listened_at

from roadstead.testing.aws import REGION, AwsServer
from roadstead.testing.components import require
from roadstead.testing.images import make_image
from roadstead.testing.ports import free_port
from roadstead.testing.registry_peer import open_registry_peer
from roadstead.testing.scripted_upstream import PASSWORD, USER, ScriptedUpstream, scripted_upstream
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import Process, wait_until
from roadstead.tls.self_signed import self_signed

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCOUNT = "123456789012"
ECR = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
IMAGE = make_image(layers=2, size=300_000, seed="signed in")

CONFIG = f"""
[upstreams]
trace = true

[[upstreams.registries]]
host = "file.example"
url = "PEER"
sign_in = "docker"
docker_config = "config.json"

[[upstreams.registries]]
host = "helped.example"
url = "PEER"
sign_in = "docker"
docker_config = "config.json"

[[upstreams.registries]]
host = "unhelped.example"
url = "PEER"
sign_in = "docker"
docker_config = "config.json"

[[upstreams.registries]]
host = "{ECR}"
url = "AMAZON"
sign_in = "ecr"

[[upstreams.registries]]
host = "own.example"
url = "https://own.example"
username = "{USER}"
password = "{PASSWORD}"
ca = "own.pem"
"""

HELPER = f"""#!/bin/sh
read key
echo "$key" >> "$(dirname "$0")/asked"
[ "$key" = helped.example ] || {{ echo 'the keychain is locked'; exit 1; }}
echo '{{"ServerURL":"helped.example","Username":"{USER}","Secret":"{PASSWORD}"}}'
"""


@dataclass(frozen=True, slots=True)
class Signed:
    """The server, and what is around it."""

    server: RoadsteadServer
    own: ScriptedUpstream
    directory: Path

    def tells(self, text: str) -> None:
        """Wait until the log says it: it is written beside the answers."""
        assert wait_until(lambda: text in self.server.log, timeout=timedelta(seconds=20))


def htpasswd(path: Path, *accounts: tuple[str, str]) -> Path:
    """Write a file with these accounts, as ``htpasswd`` does."""
    program = require("htpasswd", install="apt-get install apache2-utils")
    lines = [
        subprocess.run([program, "-Bbn", "-C", "4", user, secret], capture_output=True, check=True).stdout.strip()
        for user, secret in accounts
    ]
    path.write_bytes(b"\n".join([*lines, b""]))
    return path


def authority(directory: Path) -> ssl.SSLContext:
    """Make a certificate for own.example, and return what a server speaks TLS with."""
    material = self_signed(["own.example"], datetime.now(UTC))
    (directory / "own.pem").write_text(material.certificate)
    (directory / "own.key").write_text(material.key.reveal())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(directory / "own.pem", directory / "own.key")
    return tls


def docker_files(directory: Path) -> None:
    """Write a config.json, and the helper that it names."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    document = {
        "auths": {"file.example": {"auth": auth}},
        "credHelpers": {"helped.example": "harbour", "unhelped.example": "harbour"},
    }
    (directory / "config.json").write_text(json.dumps(document))
    helper = directory / "docker-credential-harbour"
    helper.write_text(HELPER)
    helper.chmod(0o755)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def signed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Signed]:
    """The server that all tests here share."""
    directory = tmp_path_factory.mktemp("signed")
    docker_files(directory)
    with ExitStack() as stack:
        aws = await asyncio.to_thread(stack.enter_context, AwsServer(directory))
        token = aws.call("ecr", "get_authorization_token")["authorizationData"][0]["authorizationToken"]
        user, _, secret = base64.b64decode(token).decode().partition(":")
        accounts = htpasswd(directory / "htpasswd", (USER, PASSWORD), (user, secret))
        root = directory / "root"
        with open_registry_peer(root) as open_to_all:
            await asyncio.to_thread(push, open_to_all.host, "team/app", IMAGE, "1")
        peer = stack.enter_context(
            open_registry_peer(root, more={"auth": {"htpasswd": {"realm": "r", "path": str(accounts)}}})
        )
        async with scripted_upstream(auth="basic", tls=authority(directory)) as own:
            own.hold("team/app", IMAGE, "1")
            port = free_port()
            command = [sys.executable, "-m", "tests.integration.forward_proxy", str(port), own.host.partition(":")[2]]
            proxy = Process([*command, str(directory / "proxied")], log=directory / "proxy.log")
            stack.enter_context(proxy)
            proxy.wait_ready(lambda: is_listened_at(port))
            environment = {
                **aws.environment,
                "PATH": f"{directory}:{os.environ['PATH']}",
                "HTTPS_PROXY": f"http://127.0.0.1:{port}",
            }
            config = CONFIG.replace("PEER", peer.url).replace("AMAZON", peer.url)
            async with serving(directory, config, environment=environment) as server:
                yield Signed(server, own, directory)


@pytest.mark.parametrize("host", ["file.example", "helped.example", ECR, "own.example"])
async def test_an_image_is_pulled_as_somebody(signed: Signed, host: str) -> None:
    """By a file of Docker's, by a helper, by AWS's password, and over TLS that we trust, through a proxy."""
    pulled = await asyncio.to_thread(pull, signed.server.host, f"{host}/team/app", "1")

    assert pulled == {str(digest): data for digest, data in IMAGE.blobs.items()}


async def test_a_helper_that_fails(signed: Signed) -> None:
    """A client is told that it isn't its fault; the log says what is wrong, and not more."""
    answer = await ask(signed.server, "/v2/unhelped.example/team/app/manifests/1")

    assert answer.status == 503
    assert "we can't sign in there; see the log" in answer.body.decode()
    assert "docker-credential-harbour" not in answer.body.decode()
    await asyncio.to_thread(signed.tells, "docker-credential-harbour: ended with status 1")


async def test_a_file_that_changes_is_read_again(signed: Signed) -> None:
    """Credentials that are taken away aren't used any more, without a restart."""
    file = signed.directory / "config.json"
    before = file.read_text()
    assert (await ask(signed.server, "/v2/file.example/team/other/manifests/1")).status == 404
    try:
        file.write_text("{}")
        assert (await ask(signed.server, "/v2/file.example/team/third/manifests/1")).status == 403
    finally:
        file.write_text(before)


async def test_the_way_is_through_the_proxy(signed: Signed) -> None:
    """TLS is spoken with the registry itself, through the proxy; what is on this machine is asked directly."""
    await ask(signed.server, "/v2/own.example/team/app/manifests/latest")

    lines = set((signed.directory / "proxied").read_text().splitlines())
    assert lines == {"CONNECT own.example:443 HTTP/1.1"}
    assert signed.own.requests


async def test_requests_are_logged_without_secrets(signed: Signed) -> None:
    """With `upstreams.trace` (`serve --trace-upstream`) each request is a line; no password is in any."""
    await ask(signed.server, "/v2/own.example/team/app/manifests/traced")

    await asyncio.to_thread(signed.tells, "url=https://own.example/v2/team/app/manifests/traced status=404")
    log = signed.server.log
    secrets = [PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(), "auth-token"]
    assert not [secret for secret in secrets if secret in log]
