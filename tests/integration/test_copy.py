"""``roadstead copy`` between real registries: Debian's docker-registry in its kinds, Roadstead, an image layout."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from tests.integration.token_service import token_service
from typer.testing import CliRunner

from roadstead.cli.main import app
from roadstead.errors import RoadsteadError
from roadstead.oci.mediatypes import MANIFESTS, OCI_INDEX
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.testing import scripted_upstream as scripted
from roadstead.testing.client import Client
from roadstead.testing.components import require
from roadstead.testing.images import TestImage, TestIndex, make_artifact, make_attestation, make_image, make_index
from roadstead.testing.registry_peer import RegistryPeer, open_registry_peer
from roadstead.testing.scripted_upstream import answers, gives, scripted_upstream, stalls
from roadstead.testing.server import RoadsteadServer
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.repository import RemoteRepository
from roadstead.upstream.transport import Transport

_SOURCE = str(Path(__file__).parents[2] / "src")
USER, PASSWORD = "ana", "pass:word"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A Roadstead, one for each test process; take repositories of your own."""
    with RoadsteadServer(tmp_path_factory.mktemp("roadstead"), workers=1) as server:
        yield server


@pytest.fixture
def name() -> str:
    """A repository of one's own."""
    return f"team/{uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


NOBODY = {"HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent", "XDG_RUNTIME_DIR": "/nonexistent"}


def roadstead(*arguments: str, environment: Mapping[str, str] | None = None) -> Done:
    """Run ``roadstead copy`` in this process, with nobody's credentials but those given."""
    ran = CliRunner().invoke(app, ["copy", *arguments], env={**NOBODY, **(environment or {})})
    if isinstance(ran.exception, RoadsteadError):
        return Done(1, ran.stdout, f"{ran.stderr}{ran.exception}\n{ran.exception.advice()}")
    return Done(ran.exit_code, ran.stdout, ran.stderr)


def copied(*arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run ``roadstead copy --json``, which does it; return the summary."""
    done = roadstead(*arguments, "--json", environment=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def push(host: str, name: str, image: TestImage | TestIndex, tag: str | None = None) -> None:
    """Push an image, or an index with all that it lists."""
    with Client(host) as client:
        _push(client, name, image, tag)


def _push(client: Client, name: str, image: TestImage | TestIndex, tag: str | None) -> None:
    if isinstance(image, TestIndex):
        for child in image.children:
            _push(client, name, child, None)
    else:
        for data in image.blobs.values():
            client.push_blob(name, data)
    client.push_manifest(name, tag or str(image.digest), image.raw, image.media_type)


def manifest(host: str, name: str, reference: object) -> bytes | None:
    """Return a manifest's bytes, None if it isn't there."""
    with Client(host) as client:
        answer = client.get(f"/v2/{name}/manifests/{reference}", {"Accept": ", ".join(sorted(MANIFESTS))})
        return answer.body if answer.status == 200 else None


def many(seed: str = "") -> TestIndex:
    """Return an index of two platforms, with a build's attestation."""
    images = [
        make_image(layers=2, size=20_000, platform=name, seed=f"{seed}{name}")
        for name in ("linux/amd64", "linux/arm64")
    ]
    return make_index([*images, make_attestation(images[0])])


# One image


@pytest.mark.parametrize("direction", ["from docker-registry", "to docker-registry", "within"])
def test_all_of_an_image(here: RoadsteadServer, registry_peer: RegistryPeer, name: str, direction: str) -> None:
    """All platforms and all referrers come along, byte for byte; the second time nothing is sent."""
    there, target = {
        "from docker-registry": (registry_peer.host, here.host),
        "to docker-registry": (here.host, registry_peer.host),
        "within": (here.host, here.host),
    }[direction]
    image = many(name)
    sbom = make_artifact(subject=image.children[0].descriptor(), content=name.encode())
    signature = make_artifact("application/vnd.example.signature", subject=sbom.descriptor())
    push(there, name, image, "1.0")
    push(there, name, sbom)
    push(there, name, signature)
    if there == registry_peer.host:
        for artifact, subject in ((sbom, image.children[0]), (signature, sbom)):
            listed = make_index([artifact])
            push(there, name, listed, str(subject.digest).replace(":", "-"))

    summary = copied(f"{there}/{name}:1.0", f"{target}/copied/{name}")

    assert summary["digest"] == str(image.digest)
    assert manifest(target, f"copied/{name}", "1.0") == image.raw
    for one in (*image.children, sbom, signature):
        assert manifest(target, f"copied/{name}", one.digest) == one.raw
    if target == registry_peer.host:
        listed_raw = manifest(target, f"copied/{name}", str(sbom.digest).replace(":", "-"))
        assert listed_raw is not None
        assert [one["digest"] for one in json.loads(listed_raw)["manifests"]] == [str(signature.digest)]
    else:
        with Client(target) as client:
            referrers = client.get(f"/v2/copied/{name}/referrers/{sbom.digest}").json()
        assert [one["digest"] for one in referrers["manifests"]] == [str(signature.digest)]
    assert summary["blobs_mounted" if direction == "within" else "blobs"] > 0
    assert (summary["bytes"] == 0) is (direction == "within")

    again = copied(f"{there}/{name}:1.0", f"{target}/copied/{name}:1.0")
    assert (again["manifests"], again["blobs"], again["bytes"]) == (0, 0, 0)


def test_one_platform(here: RoadsteadServer, registry_peer: RegistryPeer, name: str) -> None:
    """With --platform that image alone gets the tag; one that isn't there names those that are."""
    image = many(name)
    push(registry_peer.host, name, image, "1")

    summary = copied(f"{registry_peer.host}/{name}:1", f"{here.host}/{name}:arm", "--platform", "linux/arm64")

    assert summary["digest"] == str(image.children[1].digest)
    assert manifest(here.host, name, "arm") == image.children[1].raw
    assert manifest(here.host, name, image.children[0].digest) is None
    missing = roadstead(f"{registry_peer.host}/{name}:1", f"{here.host}/{name}:x", "--platform", "linux/s390x")
    assert missing.returncode == 1
    assert "only for linux/amd64, linux/arm64" in missing.stderr


def test_without_referrers_and_with_cosign(here: RoadsteadServer, registry_peer: RegistryPeer, name: str) -> None:
    """Signatures that cosign keeps under tags come along, unless referrers are not wanted."""
    image, signature = make_image(seed=name), make_artifact(content=name.encode())
    tag = f"sha256-{image.digest.encoded}.sig"
    push(registry_peer.host, name, image, "1")
    push(registry_peer.host, name, signature, tag)

    copied(f"{registry_peer.host}/{name}:1", f"{here.host}/{name}", "--no-referrers")
    assert manifest(here.host, name, tag) is None
    copied(f"{registry_peer.host}/{name}:1", f"{here.host}/{name}")
    assert manifest(here.host, name, tag) == signature.raw


def test_by_digest(here: RoadsteadServer, registry_peer: RegistryPeer, name: str) -> None:
    """An image named by its digest goes under the tag that is said, or under none."""
    image = make_image(seed=name)
    push(registry_peer.host, name, image, "1")

    copied(f"{registry_peer.host}/{name}@{image.digest}", f"{here.host}/{name}")

    assert manifest(here.host, name, image.digest) == image.raw
    assert manifest(here.host, name, "latest") is None
    copied(f"{registry_peer.host}/{name}@{image.digest}", f"{here.host}/{name}:2")
    assert manifest(here.host, name, "2") == image.raw


def test_layouts(here: RoadsteadServer, registry_peer: RegistryPeer, name: str, tmp_path: Path) -> None:
    """An image goes into a folder and out of it again, referrers and all, and skopeo understands the folder."""
    image = many(name)
    sbom = make_artifact(subject=image.descriptor())
    push(here.host, name, image, "1")
    push(here.host, name, sbom)

    copied(f"{here.host}/{name}:1", f"oci:{tmp_path / 'layout'}:1")
    out = copied(f"oci:{tmp_path / 'layout'}", f"{registry_peer.host}/{name}:back")

    assert out["digest"] == str(image.digest)
    assert manifest(registry_peer.host, name, "back") == image.raw
    assert manifest(registry_peer.host, name, sbom.digest) == sbom.raw
    copied(f"oci:{tmp_path / 'layout'}", f"{registry_peer.host}/{name}/again")  # by the tag that it has there
    assert manifest(registry_peer.host, f"{name}/again", "1") == image.raw
    skopeo = require("skopeo", install="apt-get install skopeo")
    told = subprocess.run(
        [skopeo, "inspect", "--raw", f"oci:{tmp_path / 'layout'}:1"], capture_output=True, check=True, timeout=60
    )
    assert told.stdout == image.raw
    assert not list((tmp_path / "layout").rglob(".*"))


def test_what_is_missing_is_named(here: RoadsteadServer, registry_peer: RegistryPeer, name: str) -> None:
    """An image that isn't there is an error of one line that names it."""
    failed = subprocess.run(
        [sys.executable, "-m", "roadstead", "copy", f"{registry_peer.host}/{name}:1", f"{here.host}/{name}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **NOBODY, "PYTHONPATH": _SOURCE},
    )

    assert failed.returncode == 1
    assert f"error: {registry_peer.host}/{name}:1 isn't there" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_layout_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A folder that isn't there, or has no image, is no layout; which of the two is said."""
    (tmp_path / "empty").mkdir()
    told = [
        str(CliRunner().invoke(app, ["copy", f"oci:{tmp_path / folder}", "a.test/x:1"]).exception)
        for folder in ("missing", "empty")
    ]

    assert "there is no such folder" in told[0]
    assert "it holds no image" in told[1]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a.test/x:1",),
        ("a.test/x:1", "b.test/x", "--match", "x"),
        ("--all", "a.test", "b.test"),
        ("a.test/x:1", "b.test/x@sha256:" + "0" * 64),
        ("--all", "a.test", "--repositories", "/nonexistent"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """What can't be meant is told before anything is done, with status 2."""
    assert roadstead(*arguments).returncode == 2


async def test_a_target_that_hides_what_is_not_there(here: RoadsteadServer, name: str) -> None:
    """A registry that refuses readers of a repository to come is asked as a writer, who is told that it's empty."""
    image = many(name)
    push(here.host, name, image, "1")
    async with scripted_upstream(auth="bearer") as target:

        def scopes() -> set[str]:
            return {one.path for one in target.seen("GET", "/token") if "scope" in one.path}

        await asyncio.to_thread(
            copied,
            f"{here.host}/{name}:1",
            f"{target.host}/new/app",
            environment={"COPY_DEST_CREDS": f"{scripted.USER}:{scripted.PASSWORD}"},
        )
        assert all("pull%2Cpush" in scope for scope in scopes())
        assert target.manifests["new/app", "1"][0] == image.raw


async def test_referrers_in_a_circle(here: RoadsteadServer, name: str) -> None:
    """Manifests that a registry lists as referring to each other are copied once."""
    image, other = make_image(seed=name), make_image(seed=f"{name}o")
    async with scripted_upstream() as old:
        old.hold(name, image, "1")
        old.hold(name, other)
        for subject, one in ((image, other), (other, image)):
            body = make_index([one]).raw
            old.will("GET", f"referrers/{subject.digest}", *[answers(200, {"Content-Type": OCI_INDEX}, body)] * 5)

        summary = await asyncio.to_thread(copied, f"{old.host}/{name}:1", f"{here.host}/{name}")

    assert summary["manifests"] == 2
    assert manifest(here.host, name, other.digest) == other.raw


# Signing in


def test_htpasswd(here: RoadsteadServer, name: str, tmp_path: Path) -> None:
    """Credentials come from docker login's file or the environment; without them the error says what to do."""
    htpasswd = require("htpasswd", install="apt-get install apache2-utils")
    (tmp_path / "htpasswd").write_bytes(
        subprocess.run([htpasswd, "-Bbn", "-C", "4", USER, PASSWORD], capture_output=True, check=True).stdout
    )
    image = make_image(seed=name)
    push(here.host, name, image, "1")
    with open_registry_peer(more={"auth": {"htpasswd": {"realm": "r", "path": str(tmp_path / "htpasswd")}}}) as private:
        source, target = f"{here.host}/{name}:1", f"{private.host}/{name}:1"
        config = {"auths": {private.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
        (tmp_path / "config.json").write_text(json.dumps(config))

        refused = roadstead(source, target)
        assert refused.returncode == 1
        assert f"docker login {private.host}" in refused.stderr

        assert copied(source, target, environment={"DOCKER_CONFIG": str(tmp_path)})["manifests"] == 1
        back = copied(target, f"{here.host}/back/{name}:1", environment={"COPY_SRC_CREDS": f"{USER}:{PASSWORD}"})
        assert back["digest"] == str(image.digest)
        wrong = roadstead(target, f"{here.host}/x/{name}:1", environment={"COPY_SRC_CREDS": f"{USER}:s3cret"})
        assert wrong.returncode == 1
        assert "s3cret" not in wrong.stderr


async def test_tokens(here: RoadsteadServer, name: str, tmp_path: Path) -> None:
    """A registry with a token service is written to and read from; mounting asks for both repositories."""
    image = many(name)
    push(here.host, name, image, "1")
    async with token_service(tmp_path, USER, PASSWORD) as service:
        with open_registry_peer(more={"auth": service.trust()}) as private:
            environment = {"COPY_DEST_CREDS": f"{USER}:{PASSWORD}", "COPY_SRC_CREDS": f"{USER}:{PASSWORD}"}

            def run() -> dict[str, Any]:
                only = {"COPY_DEST_CREDS": environment["COPY_DEST_CREDS"]}
                copied(f"{here.host}/{name}:1", f"{private.host}/public/{name}", environment=only)
                return copied(
                    f"{private.host}/public/{name}:1", f"{private.host}/other/{name}", environment=environment
                )

            summary = await asyncio.to_thread(run)
            assert summary["blobs"] == 0
            assert summary["blobs_mounted"] > 0
            assert any("other/" in asked and "public/" in asked for asked in service.asked)

            anonymous = await asyncio.to_thread(
                copied, f"{private.host}/public/{name}:1", f"{here.host}/anonymous/{name}"
            )
            assert anonymous["digest"] == str(image.digest)
            denied = await asyncio.to_thread(roadstead, f"{private.host}/other/{name}:1", f"{here.host}/x/{name}")
            assert denied.returncode == 1


# A whole registry


def test_a_whole_registry(tmp_path: Path) -> None:
    """Every repository, tag, untagged child and referrer moves in; a second run sends nothing, new tags come along."""
    with open_registry_peer() as old, RoadsteadServer(tmp_path, workers=1) as new:
        images = {f"team/app{number}": many(str(number)) for number in range(3)}
        for repository, image in images.items():
            push(old.host, repository, image, "1")
            push(old.host, repository, image, "latest")
        sbom = make_artifact(subject=images["team/app0"].descriptor())
        push(old.host, "team/app0", sbom)
        push(old.host, "team/app0", make_index([sbom]), str(images["team/app0"].digest).replace(":", "-"))
        push(old.host, "base", make_image(seed="shared"), "1")
        push(old.host, "derived", make_image(seed="shared"), "2")

        report = copied("--all", old.host, "--to", new.url)

        assert (report["repositories"], report["tags"], report["failures"]) == (5, 9, [])
        assert report["blobs_mounted"] > 0
        for repository, image in images.items():
            assert manifest(new.host, repository, "latest") == image.raw
            assert manifest(new.host, repository, image.children[2].digest) == image.children[2].raw
        with Client(new.host) as client:
            subject = images["team/app0"].digest
            listed = client.get(f"/v2/team/app0/referrers/{subject}").json()["manifests"]
        assert [one["digest"] for one in listed] == [str(sbom.digest)]

        push(old.host, "team/app1", make_image(seed="new"), "2")
        again = copied("--all", old.host, "--to", new.url)
        assert (again["tags"], again["manifests"]) == (10, 1)

        some = copied("--all", old.host, "--to", new.url, "--match", "team/*:latest")
        assert (some["repositories"], some["tags"]) == (3, 3)


def test_names_that_mean_something_else_at_the_target(
    tmp_path: Path, here: RoadsteadServer, registry_peer: RegistryPeer, name: str
) -> None:
    """With the target's settings at hand they are told before they are copied, and what can be copied is."""
    upstream = f'[[upstreams]]\nhost = "up.example"\nurl = "{registry_peer.url}"\ndefault_for = ["mirrored/**"]\n'
    config = f"{upstream}allow_push = true\n"
    names = {f"up.example/{name}": False, f"mirrored/{name}": True, name: None}
    for one in names:
        push(here.host, one, make_image(seed=name), "1")
    (tmp_path / "names").write_text("\n".join(names))
    with RoadsteadServer(tmp_path, config=config, workers=1) as there:
        to = ("--to", there.url, "--repositories", str(tmp_path / "names"))
        done = roadstead("--all", here.host, *to, "--config", str(tmp_path / "roadstead.toml"), "--json")
        report = json.loads(done.stdout)

        assert {one["name"]: one["reachable"] for one in report["collisions"]} == {
            one: reachable for one, reachable in names.items() if reachable is not None
        }
        assert done.returncode == 1
        assert [one["name"] for one in report["failures"]] == [f"up.example/{name}:1"]
        assert manifest(there.host, f"mirrored/{name}", "1")
        assert f"means something else there: up.example/{name}" in done.stderr


RULES = '[[augment.rules]]\nmatch = "team/**"\nenv = ["ADDED=1"]\n'


def test_a_target_with_rules_is_done_after_one_run(tmp_path: Path, registry_peer: RegistryPeer, name: str) -> None:
    """What is served under a tag isn't what was pushed there: the next run writes nothing, and tells no webhook."""
    push(registry_peer.host, name, many(), "1")
    push(registry_peer.host, name, make_image(seed="single"), "2")
    with RoadsteadServer(tmp_path, config=RULES, workers=1) as new:
        for arguments in (
            (f"{registry_peer.host}/{name}:1", f"{new.host}/{name}"),
            ("--all", registry_peer.host, "--match", name, "--to", new.url),
        ):
            copied(*arguments)
            with Client(new.host) as client:
                served = client.head(f"/v2/{name}/manifests/1").headers["docker-content-digest"]
            assert served != str(many().digest)

            assert copied(*arguments)["manifests"] == 0


def test_originals_move_out_of_a_registry_with_rules(tmp_path: Path, here: RoadsteadServer, name: str) -> None:
    """The whole of a Roadstead is what was pushed to it, not what its rules make of that."""
    with RoadsteadServer(tmp_path, config=RULES, workers=1) as old:
        push(old.host, name, many(), "1")

        copied("--all", old.host, "--to", here.url)

    assert manifest(here.host, name, "1") == many().raw


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_other_registries_are_asked_for_originals_once(status: int) -> None:
    """They know no such names, and whatever they answer is no error."""
    image = make_image(seed="theirs")
    async with scripted_upstream() as upstream, Transport() as transport:
        upstream.hold("team/app", image, "1")
        upstream.will("HEAD", "/as-pushed/", answers(status))
        client = RegistryClient(RegistryAddress.parse(upstream.host), transport)
        source = RemoteRepository(client, RepositoryName.parse("team/app"), originals=True)

        found = [await source.find(Tag("1")) for _ in range(2)]

        assert [one and one.digest for one in found] == [image.digest] * 2
        assert len(upstream.seen("HEAD", "/as-pushed/")) == 1


def test_referrers_of_a_native_registry_move(tmp_path: Path, here: RoadsteadServer, name: str) -> None:
    """Untagged referrers that a registry lists by its API come along, to one that has none too."""
    image = make_image(seed=name)
    sbom = make_artifact(subject=image.descriptor(), content=name.encode())
    push(here.host, name, image, "1")
    push(here.host, name, sbom)
    with open_registry_peer() as new:
        report = copied("--all", here.url, "--to", new.url, "--match", name)

        assert report["failures"] == []
        assert manifest(new.host, name, sbom.digest) == sbom.raw
        listed = manifest(new.host, name, str(image.digest).replace(":", "-"))
        assert listed is not None
        assert json.loads(listed)["mediaType"] == OCI_INDEX


async def test_one_bad_repository_stops_nothing(here: RoadsteadServer, name: str, tmp_path: Path) -> None:
    """What fails is named, everything else is there, the status is 1; run again when it's mended it's complete."""
    good, bad, gone = make_image(seed=f"{name}g"), make_image(seed=f"{name}b"), make_image(seed=f"{name}x")
    async with scripted_upstream() as old:
        for part, image in (("good", good), ("bad", bad), ("gone", gone)):
            old.hold(f"{name}/{part}", image, "1")
        old.hold(f"{name}/good", bad, "-odd")
        old.will("GET", f"{name}/bad/blobs/", *[gives(b"rubbish")] * 50)
        old.will("GET", f"{name}/gone/tags/list", answers(403))

        failed = await asyncio.to_thread(roadstead, "--all", old.url, "--to", here.url, "--json")

        report = json.loads(failed.stdout)
        assert failed.returncode == 1
        assert report["repositories"] == 0
        assert report["tags"] == 1
        assert sorted(one["name"] for one in report["failures"]) == [
            f"{name}/bad:1",
            f"{name}/gone",
            f"{name}/good:-odd",
        ]
        assert manifest(here.host, f"{name}/good", "1") == good.raw
        assert manifest(here.host, f"{name}/bad", "1") is None

        old._misdeeds.clear()
        del old.manifests[f"{name}/good", "-odd"]
        mended = await asyncio.to_thread(copied, "--all", old.url, "--to", here.url)
        assert mended["tags"] == 3


async def test_an_interrupted_move_goes_on(here: RoadsteadServer, name: str) -> None:
    """Killed in the middle of a blob, a move leaves no tag without its image, and the next run finishes it."""
    images = {f"{name}/{number}": make_image(layers=2, size=300_000, seed=f"{name}{number}") for number in range(4)}
    async with scripted_upstream() as old:
        for repository, image in images.items():
            old.hold(repository, image, "1")
        stuck = images[f"{name}/2"].layers[1].digest
        reached, stall = asyncio.Event(), stalls(100_000, 20)

        async def tell_and_stall(request: web.Request, behave: scripted.Handler) -> web.StreamResponse:
            reached.set()
            return await stall(request, behave)

        old.will("GET", f"/blobs/{stuck}", tell_and_stall)
        command = [sys.executable, "-m", "roadstead", "copy", "--all", old.url, "--to", here.url]
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **NOBODY, "PYTHONPATH": _SOURCE}, stderr=asyncio.subprocess.DEVNULL
        )
        await asyncio.wait_for(reached.wait(), 60)
        process.kill()
        await process.wait()
        assert await asyncio.to_thread(manifest, here.host, f"{name}/2", "1") is None

        report = await asyncio.to_thread(copied, "--all", old.url, "--to", here.url)

        assert report["tags"] == 4
        for repository, image in images.items():
            assert await asyncio.to_thread(manifest, here.host, repository, "1") == image.raw


async def test_no_catalogue(here: RoadsteadServer, name: str, tmp_path: Path) -> None:
    """Where the catalogue is off the error says what to do, and a file of names does."""
    async with scripted_upstream() as old:
        old.hold(name, make_image(seed=name), "1")
        old.will("GET", "/_catalog", answers(401), answers(404))

        failed = await asyncio.to_thread(roadstead, "--all", old.url, "--to", here.url)
        assert failed.returncode == 1
        assert "--repositories" in failed.stderr

        (tmp_path / "names").write_text(f"# ours\n\n{name}  # the app\n")
        report = await asyncio.to_thread(
            copied, "--all", old.url, "--to", here.url, "--repositories", str(tmp_path / "names")
        )
        assert report["tags"] == 1
