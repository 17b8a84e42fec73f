"""Every client does what it has commands for: push, pull, copy, attach, discover, list, delete."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.e2e.clients import CLIENTS, NOTE, PAGE, Ability, page
from tests.e2e.containers import Containers

from roadstead.oci.mediatypes import OCI_LAYER_ZSTD
from roadstead.testing.client import Client
from roadstead.testing.containerd import Containerd
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.go_clients import CRANE, HELM, ORAS, REGCTL, find_or_build
from roadstead.testing.images import TestImage, TestIndex, make_artifact, make_image, make_index
from roadstead.testing.layouts import pack_layout, write_layout
from roadstead.testing.server import RoadsteadServer

CELLS = [(client.name, ability) for client in CLIENTS for ability in client.commands]
COMMANDS = {(client.name, ability): commands for client in CLIENTS for ability, commands in client.commands.items()}
GO_CLIENTS = {client.name: client for client in (CRANE, REGCTL, ORAS, HELM)}
TIMEOUT_S = 120

Run = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Case:
    """One cell: a repository with content, a folder with files, and the commands to run there."""

    client: Client
    host: str
    name: str
    copy: str
    folder: Path
    run: Run

    def ask(self, commands: tuple[str, ...]) -> str:
        """Run the commands and return what the last one printed."""
        printed = ""
        for command in commands:
            words = [self._filled(word) for word in shlex.split(command)]
            printed = self.run(*words)
        return printed

    def push(self, root: TestImage | TestIndex, tag: str) -> None:
        """Bring an image with everything it needs into the repository, not by the client under test."""
        if isinstance(root, TestIndex):
            for child in root.children:
                self.push(child, str(child.digest))
        else:
            for blob in root.blobs.values():
                self.client.push_blob(self.name, blob)
        self.client.push_manifest(self.name, tag, root.raw, root.media_type)

    def manifest(self, repository: str, reference: str) -> Any:
        """Return a manifest that must be there, parsed."""
        accept = {"Accept": "*/*"}
        answer = self.client.get(f"/v2/{repository}/manifests/{reference}", accept)
        assert answer.status == 200, answer.body
        return answer.json()

    def referrers(self, repository: str, image: TestImage) -> list[Any]:
        """Return the descriptors of what is attached to an image."""
        found: list[Any] = self.client.get(f"/v2/{repository}/referrers/{image.digest}").json()["manifests"]
        return found

    def _filled(self, word: str) -> str:
        return re.sub(r"\b(HOST|NAME|COPY)\b", lambda token: getattr(self, token[0].lower()), word)


@pytest.fixture
def case(request: pytest.FixtureRequest, greeter: RoadsteadServer, tmp_path: Path) -> Iterator[Case]:
    """A repository of the test's own and the client that its parameter names."""
    unique = uuid4().hex[:12]
    with greeter.client() as client:
        yield Case(
            client,
            greeter.host,
            f"clients/{unique}",
            f"clients/{unique}-copy",
            tmp_path,
            _runner(request, request.node.callspec.params["program"], greeter.host, tmp_path),
        )


def _runner(request: pytest.FixtureRequest, program: str, host: str, folder: Path) -> Run:
    if program == "docker":
        engine: DockerEngine = request.getfixturevalue("docker_engine")
        (folder / "docker").mkdir()  # `docker manifest` keeps there what it will push
        return lambda _, *words: engine.docker(*_at(folder, words), configuration=folder / "docker").stdout
    if program == "containerd":
        daemon: Containerd = request.getfixturevalue("containerd")
        return lambda _, *words: daemon.ctr(*_at(folder, words)).stdout
    if program == "regctl":
        # It looks for TLS everywhere but on a registry that it was told of.
        return lambda name, *words: _run_go_client(name, ("--host", f"reg={host},tls=disabled", *words), folder)
    if program in GO_CLIENTS:
        return lambda name, *words: _run_go_client(name, words, folder)
    containers: Containers = request.getfixturevalue("containers")
    return containers.run


def _at(folder: Path, words: tuple[str, ...]) -> list[str]:
    """Return the words with the archive's whole path, for clients that aren't run in the folder."""
    return [str(folder / word) if word == "image.tar" else word for word in words]


def _run_go_client(name: str, words: tuple[str, ...], folder: Path) -> str:
    environment = {**os.environ, "HOME": str(folder), "DOCKER_CONFIG": str(folder / "docker")}
    done = subprocess.run(
        [find_or_build(GO_CLIENTS[name]), *words],
        cwd=folder,
        env={variable: value for variable, value in environment.items() if not variable.startswith("XDG_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, f"{name} {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def _write_image(case: Case) -> TestImage:
    """Write an image as ``layout`` and ``image.tar`` into the case's folder.

    Nobody has seen its layers: clients remember what a registry has, and would mount instead of push.
    """
    image = make_image(layers=2, seed=case.name)
    write_layout(case.folder / "layout", image, name=f"{case.host}/{case.name}:1")
    pack_layout(case.folder / "layout", case.folder / "image.tar")
    return image


def _whole_image(case: Case) -> Any:
    """Return the manifest that the repository's tag ``1`` points to; all that it names must be there."""
    manifest = case.manifest(case.name, "1")
    assert len(manifest["layers"]) == 2
    for blob in [manifest["config"], *manifest["layers"]]:
        assert case.client.head(f"/v2/{case.name}/blobs/{blob['digest']}").status == 200
    return manifest


# What a client did, ability by ability


def check_push(case: Case, commands: tuple[str, ...]) -> None:
    """The registry has the image: its config to the byte, and every blob that its manifest names."""
    image = _write_image(case)

    case.ask(commands)

    manifest = _whole_image(case)
    assert manifest["config"]["digest"] == str(image.config_digest)


def check_pull(case: Case, commands: tuple[str, ...]) -> None:
    """The client shows the image by its config's digest: in a list, as the image's id, or as a file's name."""
    image = make_image(layers=2)
    case.push(image, "1")

    printed = case.ask(commands)

    files = " ".join(path.name for path in (case.folder / "out").rglob("*"))
    assert image.config_digest.encoded in printed + files


def check_platforms(case: Case, commands: tuple[str, ...]) -> None:
    """The other repository has an index of both platforms, and both of its images."""
    index = make_index([make_image(platform="linux/amd64"), make_image(platform="linux/arm64", seed="arm")])
    case.push(index, "multi")
    for child, tag in zip(index.children, ("amd64", "arm64"), strict=True):
        case.push(child, tag)

    case.ask(commands)

    entries = case.manifest(case.copy, "multi")["manifests"]
    assert sorted(entry["platform"]["architecture"] for entry in entries) == ["amd64", "arm64"]
    for entry in entries:
        child = case.manifest(case.copy, entry["digest"])
        for blob in [child["config"], *child["layers"]]:
            assert case.client.head(f"/v2/{case.copy}/blobs/{blob['digest']}").status == 200


def check_files(case: Case, commands: tuple[str, ...]) -> None:
    """The file that comes back is the one that went."""
    (case.folder / "note.txt").write_text("looked at it\n")
    (case.folder / "out").mkdir()

    case.ask(commands)

    assert (case.folder / "out" / "note.txt").read_text() == "looked at it\n"


def check_attach(case: Case, commands: tuple[str, ...]) -> None:
    """The image has one referrer, of the type that was asked for."""
    image = make_image()
    case.push(image, "1")
    (case.folder / "note.txt").write_text("looked at it\n")

    case.ask(commands)

    assert [entry["artifactType"] for entry in case.referrers(case.name, image)] == [NOTE]


def check_discover(case: Case, commands: tuple[str, ...]) -> None:
    """The client prints the digest of what is attached."""
    image = make_image()
    artifact = make_artifact(NOTE, subject=image.descriptor())
    case.push(image, "1")
    case.push(artifact, str(artifact.digest))

    printed = case.ask(commands)

    assert str(artifact.digest) in printed


def check_copy_attached(case: Case, commands: tuple[str, ...]) -> None:
    """In the other repository the image has the same referrer."""
    image = make_image()
    artifact = make_artifact(NOTE, subject=image.descriptor())
    case.push(image, "1")
    case.push(artifact, str(artifact.digest))

    case.ask(commands)

    assert case.manifest(case.copy, "1") == json.loads(image.raw)
    assert [entry["digest"] for entry in case.referrers(case.copy, image)] == [str(artifact.digest)]


def check_list(case: Case, commands: tuple[str, ...]) -> None:
    """The client prints every tag."""
    image = make_image()
    tags = {"1", "1.2", "latest"}
    for tag in tags:
        case.push(image, tag)

    printed = case.ask(commands)

    assert tags <= set(re.findall(r"[\w.]+", printed))


def check_repositories(case: Case, commands: tuple[str, ...]) -> None:
    """The client prints the repository among the others."""
    case.push(make_image(), "1")

    printed = case.ask(commands)

    assert case.name in printed.replace(f"{case.host}/", "").split()


def check_delete(case: Case, commands: tuple[str, ...]) -> None:
    """The tag is gone."""
    case.push(make_image(), "1")

    case.ask(commands)

    assert case.client.head(f"/v2/{case.name}/manifests/1").status == 404


def check_zstd(case: Case, commands: tuple[str, ...]) -> None:
    """The registry has the image, with every layer's type and first bytes those of Zstandard (RFC 8878)."""
    _write_image(case)

    case.ask(commands)

    for layer in _whole_image(case)["layers"]:
        assert layer["mediaType"] == OCI_LAYER_ZSTD
        assert case.client.get(f"/v2/{case.name}/blobs/{layer['digest']}").body.startswith(b"\x28\xb5\x2f\xfd")


def check_sha512(case: Case, commands: tuple[str, ...]) -> None:
    """Everything that the manifest names, it names by SHA-512; it is found by its own, too."""
    _write_image(case)

    case.ask(commands)

    manifest = _whole_image(case)
    digests = [blob["digest"] for blob in [manifest["config"], *manifest["layers"]]]
    assert [digest.partition(":")[0] for digest in digests] == ["sha512"] * 3


CHECKS = {
    Ability.PUSH: check_push,
    Ability.PULL: check_pull,
    Ability.PLATFORMS: check_platforms,
    Ability.FILES: check_files,
    Ability.ATTACH: check_attach,
    Ability.DISCOVER: check_discover,
    Ability.COPY_ATTACHED: check_copy_attached,
    Ability.LIST: check_list,
    Ability.REPOSITORIES: check_repositories,
    Ability.DELETE: check_delete,
    Ability.ZSTD: check_zstd,
    Ability.SHA512: check_sha512,
}


@pytest.mark.parametrize(
    ("program", "ability"), [cell for cell in CELLS if cell[0] != "helm"], ids=lambda part: part.replace(" ", "-")
)
def test_a_client_does_what_it_has_commands_for(case: Case, program: str, ability: Ability) -> None:
    """A cell of the table: the commands end well, and the registry or the client shows what they did."""
    CHECKS[ability](case, COMMANDS[program, ability])

    if program == "docker":
        _forget_images(case)


@pytest.mark.parametrize(("program", "ability"), [cell for cell in CELLS if cell[0] == "helm"])
def test_helm_keeps_its_charts_here(case: Case, program: str, ability: Ability) -> None:
    """A chart is pushed and comes back; its version's ``+``, which no tag may have, is ``_`` here."""
    (case.folder / "chart").mkdir()
    (case.folder / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: tide\nversion: 1.2.3+four\n")
    (case.folder / "out").mkdir()

    case.ask(COMMANDS[program, ability])

    manifest = case.manifest(f"{case.name}/tide", "1.2.3_four")
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
    if ability is Ability.PULL:
        sent, came = (case.folder / where / "tide-1.2.3+four.tgz" for where in (".", "out"))
        assert came.read_bytes() == sent.read_bytes()


def test_the_page_is_the_table() -> None:
    """docs/reference/clients.md says what is tested here: write it again with `python -m tests.e2e.clients`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def _forget_images(case: Case) -> None:
    """Remove the test's images from the engine, which others use too."""
    listed = case.run("docker", "images", "--quiet", "--no-trunc", f"{case.host}/{case.name}")
    if listed:
        case.run("docker", "rmi", "--force", *set(listed.split()))
