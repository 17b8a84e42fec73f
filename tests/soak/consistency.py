"""Changes through one worker, looked at through all others at once (design decisions 3 and 4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_CONFIG, OCI_MANIFEST
from roadstead.oci.strict_json import compact
from roadstead.testing.client import Answer, Client
from roadstead.testing.server import RoadsteadServer

CHUNK = 70_000


def ring(*servers: RoadsteadServer) -> list[Client]:
    """Return a client for every worker of these servers, each with a connection that its worker surely answers."""
    return [server.client_of(worker) for server in servers for worker in server.workers]


@dataclass(slots=True)
class Ring:
    """Clients of different workers: each change goes through the next, and all are asked what they see."""

    clients: Sequence[Client]
    repository: str
    turn: int = 0
    looks: int = 0

    def next(self) -> Client:
        """Return the client whose turn it is."""
        self.turn += 1
        return self.clients[self.turn % len(self.clients)]

    def all_see(self, ask: Callable[[Client], object], expected: object, what: str) -> None:
        """Ask every worker at once, beginning with the ones that didn't make the change."""
        for step in range(1, len(self.clients) + 1):
            client = self.clients[(self.turn + step) % len(self.clients)]
            self.looks += 1
            seen = ask(client)
            assert seen == expected, f"{what}: a worker tells {seen}, not {expected}"

    def round(self, number: int) -> None:
        """Change everything that can change, each seen by all before the next."""
        name = self.repository
        data = b"blob %d" % number
        blob = self.next().push_blob(name, data)
        self.all_see(lambda client: client.get(f"/v2/{name}/blobs/{blob}").body, data, "a pushed blob")
        manifests = [_manifest(blob, len(data), number, variant) for variant in (0, 1)]
        digests = [str(Digest.of(raw)) for raw in manifests]
        for raw, digest in zip(manifests, digests, strict=True):
            self.next().push_manifest(name, "moving", raw, OCI_MANIFEST)
            self.all_see(lambda client: _at(client, name, "moving"), digest, "a moved tag")
        # Back to a manifest that every worker has served before: nothing but the tag is news.
        self.next().push_manifest(name, "moving", manifests[0], OCI_MANIFEST)
        self.all_see(lambda client: _at(client, name, "moving"), digests[0], "a tag moved back")
        _ok(self.next().delete(f"/v2/{name}/manifests/moving"))
        self.all_see(lambda client: _at(client, name, "moving"), 404, "a deleted tag")
        self.all_see(lambda client: "moving" in _tags(client, name), False, "a deleted tag in the list")
        self.next().push_manifest(name, "doomed", manifests[1], OCI_MANIFEST)
        self.all_see(lambda client: _at(client, name, "doomed"), digests[1], "a new tag")
        _ok(self.next().delete(f"/v2/{name}/manifests/{digests[1]}"))
        self.all_see(lambda client: _at(client, name, "doomed"), 404, "a tag of a deleted manifest")
        self.all_see(lambda client: _at(client, name, digests[1]), 404, "a deleted manifest")
        self._mount_and_unlink(blob)
        self._upload(number)

    def _mount_and_unlink(self, blob: Digest) -> None:
        other = f"{self.repository}-mounted"
        path = f"/v2/{other}/blobs/{blob}"
        self.all_see(lambda client: client.head(path).status, 404, "a blob of another repository")
        _ok(self.next().post(f"/v2/{other}/blobs/uploads/?mount={blob}&from={self.repository}"))
        self.all_see(lambda client: client.head(path).status, 200, "a mounted blob")
        self.all_see(lambda client: client.get(path).status, 200, "a mounted blob")
        _ok(self.next().delete(path))
        self.all_see(lambda client: client.get(path).status, 404, "an unlinked blob")

    def _upload(self, number: int) -> None:
        """Every chunk of a session goes through another worker."""
        data = (b"%08d" % number) * (3 * CHUNK // 8)
        location = _ok(self.next().post(f"/v2/{self.repository}/blobs/uploads/")).headers["location"]
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            ranged = {"Content-Range": f"{start}-{start + len(piece) - 1}"}
            location = _ok(self.next().patch(location, piece, ranged)).headers["location"]
            reached = f"0-{start + len(piece) - 1}"
            here = location
            self.all_see(lambda client: client.get(here).headers.get("range"), reached, "a session's range")  # noqa: B023
        digest = Digest.of(data)
        separator = "&" if "?" in location else "?"
        _ok(self.next().put(f"{location}{separator}digest={digest}"))
        path = f"/v2/{self.repository}/blobs/{digest}"
        self.all_see(lambda client: client.get(path).body == data, True, "an uploaded blob")
        self.all_see(lambda client: client.get(location).status, 404, "a finished session")
        _ok(self.next().delete(path))


def _manifest(blob: Digest, size: int, number: int, variant: int) -> bytes:
    return compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": str(blob), "size": size},
            "layers": [],
            "annotations": {"number": str(number), "variant": str(variant)},
        }
    )


def _at(client: Client, name: str, reference: str) -> str | int:
    """Return the digest that a reference stands for, or the status; HEAD and GET have to agree."""
    path = f"/v2/{name}/manifests/{reference}"
    head, answer = client.head(path), client.get(path)
    assert head.status == answer.status
    if answer.status != 200:
        return answer.status
    digest = answer.headers["docker-content-digest"]
    assert head.headers["docker-content-digest"] == digest == str(Digest.of(answer.body))
    return digest


def _tags(client: Client, name: str) -> list[str]:
    tags: list[str] = client.get(f"/v2/{name}/tags/list").json().get("tags") or []
    return tags


def _ok(answer: Answer) -> Answer:
    assert answer.status in (201, 202), f"{answer.status} {answer.body!r}"
    return answer
