"""Signing in with real clients: docker and skopeo, with htpasswd (bcrypt and apr1), an account and a key.

Nothing is said of tokens here: clients are sent for them because there are accounts, or policies for everyone.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from roadstead.testing.components import require
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.server import RoadsteadServer

CONFIG = """
[auth]
htpasswd = "users"
accounts = true

[[auth.policies]]
subjects = ["authenticated"]
repositories = ["team/*"]
actions = ["pull", "push"]

[[auth.policies]]
subjects = ["user:ana", "robot:ci"]
repositories = ["release/*"]
actions = ["pull"]
"""


def output(*command: str, given: str = "") -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, input=given, timeout=60).stdout.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A file made by `htpasswd` and `openssl`, as stacks make it, and an account of our own."""
    directory = tmp_path_factory.mktemp("signed-in")
    require("htpasswd", install="apt-get install apache2-utils")
    lines = [
        output("htpasswd", "-nbB", "ana", "of ana"),
        f"bob:{output('openssl', 'passwd', '-apr1', 'of bob')}",
    ]
    (directory / "users").write_text("\n".join(lines) + "\n")
    with RoadsteadServer(directory, config=CONFIG) as running:
        roadstead(running, "user", "add", "carol", given="of carol")
        roadstead(running, "user", "add", "ci", "--robot")
        yield running


def roadstead(server: RoadsteadServer, *words: str, given: str = "") -> str:
    command = [sys.executable, "-m", "roadstead", *words, str(server.directory / "roadstead.toml"),
               "--data", str(server.data)]  # fmt: skip
    return output(*command, given=given)


@pytest.fixture
def passwords(server: RoadsteadServer) -> dict[str, str]:
    """What each signs in with; the robot has a key that can push and pull."""
    key = roadstead(server, "key", "create", "ci", "--action", "pull", "--action", "push")
    return {"ana": "of ana", "bob": "of bob", "carol": "of carol", "ci": key}


def login(engine: DockerEngine, host: str, name: str, password: str, configuration: Path) -> "tuple[int, str]":
    done = engine.docker(
        "login", "--username", name, "--password", password, host, check=False, configuration=configuration
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("who", ["ana", "bob", "carol", "ci"])
def test_docker_signs_in_pushes_and_pulls(
    server: RoadsteadServer, docker_engine: DockerEngine, passwords: dict[str, str], tmp_path: Path, who: str
) -> None:
    """Whatever kind of hash or key; a wrong password is told at the login."""
    image = f"{server.host}/team/{uuid4().hex[:12]}:1"
    docker_engine.import_busybox(image)
    status, said = login(docker_engine, server.host, who, "wrong", tmp_path)
    assert status != 0
    assert "unauthorized" in said.lower()
    status, said = login(docker_engine, server.host, who, passwords[who], tmp_path)
    assert (status, "Login Succeeded" in said) == (0, True), said

    docker_engine.docker("push", image, configuration=tmp_path)
    docker_engine.docker("rmi", image)
    docker_engine.docker("pull", image, configuration=tmp_path)

    docker_engine.docker("rmi", image)


def test_docker_is_told_what_it_may_not(
    server: RoadsteadServer, docker_engine: DockerEngine, passwords: dict[str, str], tmp_path: Path
) -> None:
    """Without signing in, and where policies say no: the push ends at once, and it says what wasn't allowed."""
    image = f"{server.host}/release/{uuid4().hex[:12]}:1"
    docker_engine.import_busybox(image)
    without = docker_engine.docker("push", image, check=False, configuration=tmp_path)
    login(docker_engine, server.host, "ana", passwords["ana"], tmp_path)

    refused = docker_engine.docker("push", image, check=False, configuration=tmp_path)

    docker_engine.docker("rmi", image)
    assert without.returncode != 0
    denied = f"denied: the token is not good to push {image.removeprefix(f'{server.host}/').removesuffix(':1')}"
    assert denied in without.stdout + without.stderr
    assert refused.returncode != 0
    assert denied in refused.stdout + refused.stderr


def test_skopeo_copies_with_credentials(
    server: RoadsteadServer, docker_engine: DockerEngine, passwords: dict[str, str], tmp_path: Path
) -> None:
    """In and out again, and neither without them."""
    skopeo = str(require("skopeo", install="apt-get install skopeo"))
    source = f"{server.host}/team/{uuid4().hex[:12]}:1"
    docker_engine.import_busybox(source)
    login(docker_engine, server.host, "ana", passwords["ana"], tmp_path)
    docker_engine.docker("push", source, configuration=tmp_path)
    docker_engine.docker("rmi", source)

    def copy(target: str, *credentials: str) -> "subprocess.CompletedProcess[str]":
        command = [skopeo, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *credentials,
                   f"docker://{source}", target]  # fmt: skip
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    by = [f"--{end}-creds=bob:{passwords['bob']}" for end in ("src", "dest")]
    assert copy(f"dir:{tmp_path}/without").returncode != 0
    done = copy(f"docker://{server.host}/team/copy:1", *by)
    assert done.returncode == 0, done.stderr
    refused = copy(f"docker://{server.host}/release/copy:1", *by)

    assert refused.returncode != 0
    assert "denied: the token is not good to pull release/copy" in refused.stderr  # it looks first what is there


OPEN_TO_READ = """
[auth]
htpasswd = "users"

[[auth.policies]]
subjects = ["everyone"]
repositories = ["library/**"]
actions = ["pull"]

[[auth.policies]]
subjects = ["authenticated"]
repositories = ["library/**"]
actions = ["pull", "push"]
"""


def test_everybody_pulls_and_some_push(docker_engine: DockerEngine, tmp_path: Path) -> None:
    """docker pulls without signing in, is refused a push, and pushes once it has signed in."""
    directory, signed_in, stranger = (tmp_path / name for name in ("server", "signed-in", "stranger"))
    for folder in (directory, signed_in, stranger):
        folder.mkdir()
    (directory / "users").write_text(output("htpasswd", "-nbB", "ana", "of ana") + "\n")
    with RoadsteadServer(directory, config=OPEN_TO_READ) as server:
        image = f"{server.host}/library/{uuid4().hex[:12]}:1"
        docker_engine.import_busybox(image)
        refused = docker_engine.docker("push", image, check=False, configuration=stranger)
        status, said = login(docker_engine, server.host, "ana", "of ana", signed_in)
        assert status == 0, said
        docker_engine.docker("push", image, configuration=signed_in)
        docker_engine.docker("rmi", image)

        docker_engine.docker("pull", image, configuration=stranger)

        docker_engine.docker("rmi", image)
    assert refused.returncode != 0
    assert "denied" in refused.stdout + refused.stderr or "unauthorized" in refused.stdout + refused.stderr
