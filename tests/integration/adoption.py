"""What the tests of coming from distribution and going back share: a tree of its making, and who answers what."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.mediatypes import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, MANIFESTS, OCI_INDEX
from roadstead.oci.strict_json import compact
from roadstead.testing.client import Client, with_query
from roadstead.testing.images import TestImage, TestIndex, make_artifact, make_image, make_index

ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS | {DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED}))}
V2 = Path("docker/registry/v2")

Answered = tuple[int, str | None, str | None, bytes]


def push(client: Client, repository: str, image: TestImage | TestIndex, reference: str | None = None) -> None:
    """Push an image with all it needs, under a tag, or its digest alone."""
    if isinstance(image, TestIndex):
        for child in image.children:
            push(client, repository, child)
    else:
        for data in image.blobs.values():
            push_blob(client, repository, data)
    client.push_manifest(repository, reference or str(image.digest), image.raw, image.media_type)


def push_blob(client: Client, repository: str, data: bytes, algorithm: Algorithm = Algorithm.SHA256) -> Digest:
    """Push a blob the way that every registry knows: begin, then send it whole."""
    digest = Digest.of(data, algorithm)
    location = client.post(f"/v2/{repository}/blobs/uploads/").headers["location"]
    answer = client.put(with_query(_path(location), f"digest={digest}"), data)
    assert answer.status == 201, answer
    return digest


def _path(location: str) -> str:
    """Return a Location without its host: distribution names itself in it."""
    return "/" + location.partition("://")[2].partition("/")[2] if "://" in location else location


def fallback_index(referrers: Iterable[TestImage]) -> TestIndex:
    """Return what clients push under a fallback tag (distribution-spec, referrers tag schema)."""
    made = tuple(referrers)
    entries = [{**one.descriptor().as_json(), "artifactType": one.manifest.artifact_type} for one in made]
    return TestIndex(compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}), OCI_INDEX, made)


def fill(host: str) -> None:
    """Push through a registry's API whatever its users push."""
    with closing(Client(host)) as client:
        for number in range(3):
            push(client, "team/app", make_image(seed=f"app-{number}", docker=number == 1), f"v{number}")
        for number in range(3):  # a tag that moves
            push(client, "team/app", make_image(seed=f"app-{number}", docker=number == 1), "latest")
        several = make_index([make_image(seed="amd64"), make_image(seed="arm64", platform="linux/arm64")])
        push(client, "team/app", several, "multi")  # its children have no tags
        push(client, "team/app/nested", make_image(seed="nested", layers=2), "1")
        push(client, "team-b", make_image(seed="untagged"))
        doomed = make_image(seed="doomed")
        push(client, "team-b", doomed, "doomed")
        assert client.delete(f"/v2/team-b/manifests/{doomed.digest}").status == 202
        subject = make_image(seed="subject")
        push(client, "signed", subject, "1")
        referrers = [make_artifact(content=text, subject=subject.descriptor()) for text in (b"sbom", b"signature")]
        silent = make_artifact("application/vnd.example.silent", b"silent", annotations={"a": "b"})
        fallback = str(subject.digest).replace(":", "-")
        push(client, "signed", fallback_index([*referrers, silent]), fallback)


def references(root: Path) -> list[tuple[str, str]]:
    """Return every repository with every tag and every digest that its folder has, as the paths of the API."""
    found = []
    repositories = root / V2 / "repositories"
    for folder in sorted(repositories.rglob("_manifests")):
        name = str(folder.parent.relative_to(repositories))
        tags = (folder / "tags").iterdir() if (folder / "tags").exists() else ()
        found += [(name, f"manifests/{tag.name}") for tag in tags]
        found += [(name, f"manifests/{link.parent.parent.name}:{link.parent.name}")
                  for link in (folder / "revisions").glob("*/*/link")]  # fmt: skip
    for folder in sorted(repositories.rglob("_layers")):
        name = str(folder.parent.relative_to(repositories))
        found += [(name, f"blobs/{link.parent.parent.name}:{link.parent.name}") for link in folder.glob("*/*/link")]
    return sorted(found)


def ask(host: str, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Answered]:
    """Return what a registry answers: status, digest, type and bytes."""
    answers = {}
    with closing(Client(host)) as client:
        for name, path in wanted:
            answer = client.get(f"/v2/{name}/{path}", ACCEPT)
            good = answer.status == 200
            answers[name, path] = (
                answer.status,
                answer.headers.get("docker-content-digest") if good else None,
                answer.headers.get("content-type") if good else None,
                answer.body if good else b"",
            )
    return answers


def listings(host: str) -> dict[str, list[str]]:
    """Return the catalog with the tags of every repository.

    Of one without tags distribution says null; in a bucket, which has no empty folders, that there is no such name.
    """
    with closing(Client(host)) as client:
        names = client.get("/v2/_catalog?n=1000").json()["repositories"]
        return {name: sorted(client.get(f"/v2/{name}/tags/list").json().get("tags") or ()) for name in names}


def inodes(root: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every blob."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in (root / V2 / "blobs").rglob("data")}


def import_tree(*arguments: str, check: bool = True, status: int = 0) -> dict:
    """Run the command, which ends with that status, and return its report."""
    done = subprocess.run(
        [sys.executable, "-m", "roadstead", "import", *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == status or not check, done.stderr
    return json.loads(done.stdout) if done.stdout else {"error": done.stderr, "status": done.returncode}


def findings(report: dict) -> dict[str, int]:
    """Return how many of each kind were found."""
    return {one["finding"]: one["count"] for one in report["findings"]}
