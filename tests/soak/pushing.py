"""A client that goes on when its server is killed, and knows what it was told."""

import random
import threading
import time

from tests.integration.test_collection import LAYERS, REPOSITORIES

from roadstead.oci.digest import Digest
from roadstead.testing.client import Client, ConnectionBrokenError
from roadstead.testing.images import TestImage, make_image


class LastingPusher:
    """Pushes, mounts, moves and removes tags of its own; `check` pulls everything that it was told is there."""

    def __init__(self, seed: int) -> None:
        self.count = 0
        self._acknowledged: dict[tuple[str, str], TestImage | None] = {}  # None: it was told that the tag is gone
        self._unsure: set[tuple[str, str]] = set()  # an answer didn't come: what was, or what was asked
        self._random = random.Random(seed)
        self._name = f"client-{seed}"

    def run(self, host: str, stop: threading.Event) -> None:
        """Work until told to stop or the server is gone."""
        with Client(host) as client:
            while not stop.is_set():
                key = self._random.choice(REPOSITORIES), f"{self._name}-{self._random.randrange(5)}"
                try:
                    self._act(client, key)
                except (ConnectionBrokenError, OSError):
                    self._unsure.add(key)
                    return

    def _act(self, client: Client, key: tuple[str, str]) -> None:
        repository, tag = key
        if self._random.random() < 0.25:
            if client.delete(f"/v2/{repository}/manifests/{tag}").status in (202, 404):
                self._acknowledged[key] = None
                self._unsure.discard(key)
            return
        image = make_image(layers=self._random.sample(LAYERS, 2), seed=f"{tag}-{self._random.randrange(3)}")
        if all(self._give(client, repository, digest, data) for digest, data in image.blobs.items()):
            answer = client.put(f"/v2/{repository}/manifests/{tag}", image.raw, {"Content-Type": image.media_type})
            assert answer.status in (201, 400, 503), answer
            if answer.status == 201:
                self._acknowledged[key] = image
                self._unsure.discard(key)
                self.count += 1

    def _give(self, client: Client, repository: str, digest: Digest, data: bytes) -> bool:
        """Push a blob as clients do: ask first, mount if the other repository has it, else send it."""
        if client.head(f"/v2/{repository}/blobs/{digest}").status == 200:
            return True
        other = next(name for name in REPOSITORIES if name != repository)
        if client.post(f"/v2/{repository}/blobs/uploads/?mount={digest}&from={other}").status == 201:
            return True
        sent = client.post(f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert sent.status in (201, 503), sent
        if sent.status == 503:
            time.sleep(0.01)  # as Retry-After asks; a second each would be no load
        return sent.status == 201

    def check(self, client: Client) -> int:
        """Pull every tag with all its blobs; return how many there were."""
        pulled = 0
        for (repository, tag), image in self._acknowledged.items():
            answer = client.get(f"/v2/{repository}/manifests/{tag}")
            if (repository, tag) not in self._unsure:
                assert answer.status == (404 if image is None else 200), f"{repository}:{tag}: {answer.status}"
                assert image is None or answer.body == image.raw, f"{repository}:{tag} is another image"
            if answer.status == 200:
                document = answer.json()
                for descriptor in [document["config"], *document["layers"]]:
                    blob = client.get(f"/v2/{repository}/blobs/{descriptor['digest']}")
                    assert blob.status == 200, f"{repository} lost {descriptor['digest']}"
                    assert str(Digest.of(blob.body)) == descriptor["digest"]
                pulled += 1
        client.close()
        return pulled
