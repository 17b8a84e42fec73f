"""A client that does everything clients do, at random, and notes what it was told."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from tests.soak.ledger import Fact, Ledger, Upload, Value

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from roadstead.oci.strict_json import compact
from roadstead.testing.client import Answer, Client, ConnectionBrokenError

TAGS = ("latest", "1.0", "edge")
KIB = 1 << 10


class UnexpectedAnswerError(AssertionError):
    """The server answered what it never should."""


class Traffic:
    """One client with repositories of its own, so that each fact has one writer."""

    def __init__(self, host: str, ledger: Ledger, name: str, seed: object, *, largest: int = 2 << 20) -> None:
        self._host = host
        self._client = Client(host)
        self._ledger = ledger
        self._choice = random.Random(str(seed))
        self._main, self._other = f"soak/{name}", f"soak/{name}-mounted"
        self._largest = largest
        self._blobs: dict[str, bytes] = {}  # acknowledged in the main repository, never deleted
        self._loose: list[str] = []  # acknowledged, in no manifest: may be deleted
        self._manifests: dict[str, bytes] = {}
        self._tags: dict[str, str] = {}
        self.requests = 0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def run(self, until: threading.Event) -> None:
        """Do one thing after the other, until told to stop or the server is gone."""
        with suppress(ConnectionBrokenError, OSError):
            while not until.is_set():
                self.step()

    def step(self) -> None:
        """Do one thing, whatever it is."""
        actions = [
            (6, self.push_small),
            (2, self.push_large),
            (3, self.push_streamed),
            (3, self.push_short),
            (3, self.push_in_chunks),
            (1, self.abandon),
            (1, self.cancel),
            (2, self.mount),
            (6, self.push_manifest),
            (2, self.delete_tag),
            (1, self.delete_manifest),
            (1, self.delete_blob),
        ]
        weights, choices = zip(*actions, strict=True)
        self._choice.choices(choices, weights)[0]()

    def script(self) -> None:
        """Do everything once or twice, always in the same order."""
        for action in (
            self.push_small, self.push_small, self.push_manifest, self.push_large, self.push_streamed, self.push_short,
            self.push_manifest, self.push_in_chunks, self.mount, self.push_manifest, self.delete_tag,
            self.abandon, self.cancel, self.push_manifest, self.delete_manifest, self.delete_blob, self.push_manifest,
        ):  # fmt: skip
            action()

    # Blobs

    def push_small(self) -> None:
        """One request with the whole blob, small enough to be written without a staging file."""
        self._push_whole(self._bytes(self._choice.randrange(1, 64 * KIB)))

    def push_large(self) -> None:
        """One request with the whole blob, staged."""
        self._push_whole(self._bytes(self._choice.randrange(65 * KIB, self._largest)))

    def _push_whole(self, data: bytes) -> None:
        digest = str(Digest.of(data))
        intent = self._ledger.begin({Fact("blob", self._main, digest): digest})
        self._ask("POST", f"/v2/{self._main}/blobs/uploads/?digest={digest}", data, expect=201)
        intent.acknowledge()
        self._have(data)

    def push_streamed(self) -> None:
        """A session: POST, one PATCH of unknown length, PUT without a body."""
        upload = self._start(self._bytes(self._choice.randrange(1, self._largest)))
        self._append(upload, 0, len(upload.data), streamed=True)
        self._commit(upload, len(upload.data))

    def push_short(self) -> None:
        """A session of so few bytes that its row holds them: a PATCH, and a PUT with the rest or without."""
        upload = self._start(self._bytes(self._choice.randrange(2, 30 * KIB)))
        first = self._choice.choice((len(upload.data), len(upload.data) // 2))
        self._append(upload, 0, first, streamed=True)
        self._commit(upload, first)

    def push_in_chunks(self) -> None:
        """A session: POST, chunks with Content-Range, the last of them in the PUT."""
        upload = self._start(self._bytes(self._choice.randrange(3, self._largest)))
        third = len(upload.data) // 3
        self._append(upload, 0, third)
        self._append(upload, third, 2 * third)
        self._commit(upload, 2 * third)

    def abandon(self) -> None:
        """A session that gets half of its bytes and is left open."""
        upload = self._start(self._bytes(self._choice.randrange(2, self._largest)))
        self._append(upload, 0, len(upload.data) // 2)

    def cancel(self) -> None:
        """A session that is ended before its blob is whole."""
        upload = self._start(self._bytes(self._choice.randrange(2, 100 * KIB)))
        self._append(upload, 0, len(upload.data) // 2)
        upload.ended.append(time.time())
        self._ask("DELETE", upload.location, expect=204)

    def mount(self) -> None:
        """A blob of one repository is given to another."""
        if self._blobs:
            digest = self._choice.choice(list(self._blobs))
            intent = self._ledger.begin({Fact("blob", self._other, digest): digest})
            self._ask("POST", f"/v2/{self._other}/blobs/uploads/?mount={digest}&from={self._main}", expect=201)
            intent.acknowledge()

    def delete_blob(self) -> None:
        """A blob that no manifest needs is taken out of its repository."""
        if self._loose:
            digest = self._loose.pop()
            del self._blobs[digest]
            intent = self._ledger.begin({Fact("blob", self._main, digest): None})
            self._ask("DELETE", f"/v2/{self._main}/blobs/{digest}", expect=202)
            intent.acknowledge()

    def _start(self, data: bytes) -> Upload:
        answer = self._ask("POST", f"/v2/{self._main}/blobs/uploads/", expect=202)
        upload = Upload(self._main, answer.headers["location"], data)
        self._ledger.uploads.append(upload)
        return upload

    def _append(self, upload: Upload, start: int, end: int, *, streamed: bool = False) -> None:
        upload.sent.append((time.time(), end))
        piece = upload.data[start:end]
        if streamed:
            answer = self._ask("PATCH", upload.location, _pieces(piece), expect=202)
        else:
            ranged = {"Content-Range": f"{start}-{end - 1}"} if piece else None
            answer = self._ask("PATCH", upload.location, piece, ranged, expect=202)
        upload.location = answer.headers["location"]
        upload.acknowledged.append((time.time(), end))

    def _commit(self, upload: Upload, start: int) -> None:
        digest = str(Digest.of(upload.data))
        intent = self._ledger.begin({Fact("blob", upload.repository, digest): digest})
        upload.sent.append((time.time(), len(upload.data)))
        upload.ended.append(time.time())
        rest = upload.data[start:]
        ranged = {"Content-Range": f"{start}-{len(upload.data) - 1}"} if rest else None
        separator = "&" if "?" in upload.location else "?"
        self._ask("PUT", f"{upload.location}{separator}digest={digest}", rest or None, ranged, expect=201)
        intent.acknowledge()
        self._have(upload.data)

    def _have(self, data: bytes) -> None:
        digest = str(Digest.of(data))
        if digest not in self._blobs:
            self._blobs[digest] = data
            self._loose.append(digest)

    # Manifests

    def push_manifest(self) -> None:
        """A manifest of two blobs, to a tag that may have pointed elsewhere before."""
        if len(self._blobs) < 2:
            self.push_small()
            self.push_small()
        config, layer = self._choice.sample(list(self._blobs), 2)
        self._loose = [digest for digest in self._loose if digest not in (config, layer)]
        raw = compact(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": config, "size": len(self._blobs[config])},
                "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": layer, "size": len(self._blobs[layer])}],
                # Large enough that the database's log is folded into its file more than once a test.
                "annotations": {"padding": self._bytes(self._choice.randrange(1, 40 * KIB)).hex()},
            }
        )
        digest, tag = str(Digest.of(raw)), self._choice.choice(TAGS)
        changes: dict[Fact, Value] = {
            Fact("manifest", self._main, digest): digest,
            Fact("tag", self._main, tag): digest,
        }
        intent = self._ledger.begin(changes)
        self._ask("PUT", f"/v2/{self._main}/manifests/{tag}", raw, {"Content-Type": OCI_MANIFEST}, expect=201)
        intent.acknowledge()
        self._manifests[digest] = raw
        self._tags[tag] = digest

    def delete_tag(self) -> None:
        """A tag goes, what it points at stays."""
        if self._tags:
            tag = self._choice.choice(list(self._tags))
            del self._tags[tag]
            intent = self._ledger.begin({Fact("tag", self._main, tag): None})
            self._ask("DELETE", f"/v2/{self._main}/manifests/{tag}", expect=202)
            intent.acknowledge()

    def delete_manifest(self) -> None:
        """A manifest goes, and every tag at it."""
        if self._manifests:
            digest = self._choice.choice(list(self._manifests))
            del self._manifests[digest]
            tags = [tag for tag, at in self._tags.items() if at == digest]
            changes: dict[Fact, Value] = {Fact("manifest", self._main, digest): None}
            for tag in tags:
                del self._tags[tag]
                changes[Fact("tag", self._main, tag)] = None
            intent = self._ledger.begin(changes)
            self._ask("DELETE", f"/v2/{self._main}/manifests/{digest}", expect=202)
            intent.acknowledge()

    def _bytes(self, size: int) -> bytes:
        return self._choice.randbytes(size)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        *,
        expect: int,
    ) -> Answer:
        self.requests += 1
        answer = self._client.request(method, path, body, headers)
        if answer.status != expect:
            raise UnexpectedAnswerError(f"{method} {path}: {answer.status} {answer.body!r}, expected {expect}")
        return answer


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 100 * KIB):
        yield data[start : start + 100 * KIB]
