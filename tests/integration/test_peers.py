"""The servers that other tests rely on start, do their work and leave nothing behind."""

import http.client
import os
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from roadstead.testing.components import ComponentMissingError, require
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.keeper import shared_postgres, wait_stopped
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.servers import Process, ServerNotReadyError, accepts_connections


async def test_postgres_answers_a_query(postgres_url: str) -> None:
    """A test's database is reached over TCP, is empty and takes writes."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("CREATE TABLE ship (name text)")
        await connection.execute("INSERT INTO ship VALUES ($1)", "Æolus")

        assert await connection.fetch("SELECT name FROM ship") == [("Æolus",)]
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    finally:
        await connection.close()


async def test_postgres_databases_are_apart(postgres: PostgresServer) -> None:
    """Two databases of the shared server see nothing of each other; a database in use can be dropped."""
    first, second = postgres.create_database(), postgres.create_database()
    connection = await asyncpg.connect(first)
    other = await asyncpg.connect(second)
    try:
        await connection.execute("CREATE TABLE ship (name text)")

        assert await other.fetchval("SELECT to_regclass('ship')") is None
    finally:
        postgres.drop_database(first)
        postgres.drop_database(second)
        connection.terminate()
        other.terminate()


def test_a_shared_server_ends_with_its_last_user(tmp_path: Path) -> None:
    """A second user gets the running server; when both have left it stops, and the next user gets a new one."""
    with shared_postgres(tmp_path) as first, shared_postgres(tmp_path) as second:
        assert first == second
        assert accepts_connections(first.port)

    assert wait_stopped(tmp_path)
    assert not accepts_connections(first.port)
    assert not Path(first.sockets).exists()


def test_docker_runs_an_image(docker_engine: DockerEngine) -> None:
    """The engine runs an image made of an empty root and busybox, and prints what the container prints."""
    image = f"peers-{uuid4().hex}"
    docker_engine.import_busybox(image)
    try:
        assert docker_engine.docker("run", "--rm", "--network", "none", image).stdout == "roadstead\n"
    finally:
        docker_engine.docker("rmi", image)


def test_docker_builds_pushes_and_pulls(
    docker_engine: DockerEngine, registry_peer: RegistryPeer, tmp_path: Path
) -> None:
    """The engine builds on an image, pushes to a registry on loopback without TLS, and pulls it again."""
    base, image = f"peers-{uuid4().hex}", f"{registry_peer.host}/peers/{uuid4().hex}:1"
    docker_engine.import_busybox(base)
    (tmp_path / "Dockerfile").write_text(
        f'FROM {base}\nENV SHIP=Æolus\nCMD ["/bin/busybox", "sh", "-c", "echo $SHIP"]\n'
    )
    try:
        docker_engine.docker("build", "--tag", image, str(tmp_path))
        docker_engine.docker("push", image)
        docker_engine.docker("rmi", image)
        docker_engine.docker("pull", image)

        assert docker_engine.docker("run", "--rm", "--network", "none", image).stdout == "Æolus\n"
    finally:
        docker_engine.docker("rmi", "--force", image, base)


def test_the_registry_peer_answers(registry_peer: RegistryPeer) -> None:
    """Distribution answers ``/v2/`` with its version header (distribution-spec end-1)."""
    connection = http.client.HTTPConnection("127.0.0.1", registry_peer.port, timeout=10)
    try:
        connection.request("GET", "/v2/")
        response = connection.getresponse()

        assert response.status == 200
        assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    finally:
        connection.close()


def test_a_server_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    """Waiting for a server that failed ends at once, with its status and the end of what it wrote."""
    process = Process(["sh", "-c", "echo no berth left; exit 3"], log=tmp_path / "log")
    process.start()

    with pytest.raises(ServerNotReadyError, match=r"status 3(?s:.*)no berth left"):
        process.wait_ready(lambda: False)


def test_a_stopped_process_is_gone(tmp_path: Path) -> None:
    """Leaving the block ends the process, even one that hangs; stopping twice does nothing."""
    with Process(["sleep", "600"], log=tmp_path / "log") as process:
        pid = process.pid
        assert process.running

    process.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_missing_component_is_named_with_its_command() -> None:
    """The error tells the program and the command that installs it."""
    with pytest.raises(ComponentMissingError, match="apt-get install moonbeam") as raised:
        require("moonbeam-server", install="apt-get install moonbeam")

    assert raised.value.program == "moonbeam-server"
    assert raised.value.advice() == "apt-get install moonbeam"
