"""Coming from distribution and going back, on one tree: the real docker-registry before us, beside us and after us."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.adoption import (
    V2,
    Answered,
    ask,
    fill,
    findings,
    import_tree,
    inodes,
    listings,
    push,
    push_blob,
    references,
)

from roadstead.clock import SystemClock
from roadstead.db.engine import open_database
from roadstead.oci.digest import Algorithm, Digest
from roadstead.registry.ports import ImportState
from roadstead.testing.client import Client
from roadstead.testing.images import make_image
from roadstead.testing.registry_peer import open_registry_peer
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

Wanted = list[tuple[str, str]]


class Adopted:
    """A tree that the real docker-registry wrote, and what it answered last."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.home = home
        self.wanted: Wanted = []
        self.answers: dict[tuple[str, str], Answered] = {}
        self.listings: dict[str, list[str]] = {}

    @property
    def config(self) -> str:
        """Our settings: this storage."""
        return f'[storage]\npath = "{self.root}"\n'

    @property
    def config_file(self) -> str:
        path = self.home / "import.toml"
        path.write_text(self.config)
        return str(path)

    @property
    def database(self) -> str:
        return f"sqlite:///{self.root}/roadstead.db"

    def listen(self, host: str) -> None:
        """Keep what a registry answers."""
        self.wanted = references(self.root)
        self.answers = ask(host, self.wanted)
        self.listings = listings(host)

    def serve(self, name: str = "server", more: str = "") -> RoadsteadServer:
        return RoadsteadServer(self.home / name, config=self.config + more)

    def import_tree(self, *arguments: str, status: int = 0) -> dict:
        return import_tree(str(self.root), "--config", self.config_file, *arguments, status=status)


@pytest.fixture
def adopted(tmp_path: Path) -> Iterator[Adopted]:
    """A tree with all kinds of things pushed to it, its registry stopped."""
    adopted = Adopted(tmp_path / "root", tmp_path)
    with open_registry_peer(adopted.root) as peer:
        fill(peer.host)
        adopted.listen(peer.host)
    return adopted


def test_everything_is_answered_as_before(adopted: Adopted) -> None:
    """Every tag and digest: status, digest, type and bytes; catalog and tags; no blob is touched."""
    before = inodes(adopted.root)

    report = adopted.import_tree()
    with adopted.serve() as server:
        assert ask(server.host, adopted.wanted) == adopted.answers
        assert listings(server.host) == adopted.listings
        with closing(Client(server.host)) as client:
            subject = client.get("/v2/signed/manifests/1").headers["docker-content-digest"]
            listed = client.get(f"/v2/signed/referrers/{subject}").json()["manifests"]

    assert {one["artifactType"] for one in listed} == {"application/vnd.example.sbom", "application/vnd.example.silent"}
    assert len(listed) == 3
    assert {answer[0] for answer in adopted.answers.values()} == {200}
    assert inodes(adopted.root) == before
    assert report["findings"] == []
    assert (report["repositories"], report["referrers"]) == (4, 1)


async def test_a_moved_tag_keeps_its_history(adopted: Adopted) -> None:
    """Where it pointed, in order, with the times of the links; the tag's time is that of its link."""
    adopted.import_tree()

    database = await open_database(adopted.database, migrate=False)
    try:
        from roadstead.oci.reference import RepositoryName, Tag

        changes = await database.journal.tag_changes(RepositoryName("team/app"), Tag("latest"), limit=10)
    finally:
        await database.close()

    wanted = [make_image(seed=f"app-{number}", docker=number == 1).digest for number in range(3)]
    assert [change.digest for change in reversed(changes)] == wanted
    link = adopted.root / V2 / "repositories/team/app/_manifests/tags/latest/current/link"
    assert abs(changes[0].at.timestamp() - link.stat().st_mtime) < 0.001


def test_what_is_damaged_is_told_and_the_rest_is_served(adopted: Adopted) -> None:
    """Links cut short, blobs that are missing or empty, schema 1, unfinished uploads, names that nobody can ask for."""
    repositories, blobs = adopted.root / V2 / "repositories", adopted.root / V2 / "blobs"
    with open_registry_peer(adopted.root) as peer, closing(Client(peer.host)) as client:
        alias = push_blob(client, "team/app", b"known by its sha512", Algorithm.SHA512)
        orphan = push_blob(client, "only-layers", b"an orphan")
        client.post("/v2/team/app/blobs/uploads/")
    schema1 = write_manifest(adopted.root, "old/one", b'{"schemaVersion": 1, "name": "old/one", "fsLayers": []}', "1")
    other = write_manifest(
        adopted.root, "old/one", b'{"schemaVersion": 2, "mediaType": "application/x.y+json"}', "other"
    )
    noise = write_manifest(adopted.root, "old/one", b"not JSON", "noise")
    no_revision = write_manifest(adopted.root, "old/two", make_image(seed="app-0").raw, "1", revision=False)
    (repositories / "team/app/_manifests/tags/v0/current/link").write_bytes(b"")
    (repositories / "team/app/_manifests/tags/v1/current/link").write_bytes(b"sha256:12")
    zeros, empty = (layer.digest for layer in make_image(seed="nested", layers=2).layers)
    (repositories / f"team/app/nested/_layers/sha256/{zeros.encoded}/link").write_bytes(b"\0" * 71)
    data = blobs / f"sha256/{empty.encoded[:2]}/{empty.encoded}/data"
    data.write_bytes(b"")
    (repositories / "Upper/_manifests/tags/a/current").mkdir(parents=True)

    report = adopted.import_tree(status=1)

    assert findings(report) == {
        "blob_damaged": 1,
        "link_damaged": 1,
        "layer_missing": 1,
        "schema_1": 1,
        "unusual": 1,
        "manifest_damaged": 1,
        "tag_dangling": 1,
        "without_revision": 1,
        "tag_damaged": 2,
        "content_missing": 4,  # two of the nested image, two of the one that only a tag names
        "uploads": 1,
        "name_invalid": 1,
        "without_manifests": 1,
    }
    with adopted.serve() as server, closing(Client(server.host)) as client:
        assert client.get("/v2/old/one/manifests/1").headers["content-type"].startswith("application/vnd.docker")
        assert client.get(f"/v2/old/one/manifests/{schema1}").status == 200
        assert client.get(f"/v2/old/one/manifests/{other}").headers["content-type"] == "application/x.y+json"
        assert client.get(f"/v2/old/one/manifests/{noise}").status == 404
        assert client.get(f"/v2/old/two/manifests/{no_revision}").status == 200
        assert client.get(f"/v2/team/app/blobs/{alias}").body == b"known by its sha512"
        assert client.get(f"/v2/only-layers/blobs/{orphan}").body == b"an orphan"
        assert client.get("/v2/team/app/manifests/v0").status == 404
        assert client.get("/v2/team/app/manifests/latest").status == 200
        assert "only-layers" not in listings(server.host)


def test_names_that_mean_something_else_here(tmp_path: Path) -> None:
    """They are taken up, as all is, and told: nobody can pull them, or they hide an upstream's images."""
    root, config = tmp_path / "root", tmp_path / "roadstead.toml"
    for name in ("docker.io/team/app", "wt/app", "library/app", "team/app"):
        write_manifest(root, name, make_image(seed="collides").raw, "1")
    upstream = '[[upstreams]]\nhost = "docker.io"\ndefault_for = ["library/*"]\n'
    config.write_text(f'[storage]\npath = "{root}"\n{upstream}')

    report = import_tree(str(root), "--config", str(config), status=1)

    told = {one["finding"]: one for one in report["findings"]}
    assert report["repositories"] == 4
    assert [name.partition(":")[0] for name in told["unreachable"]["first"]] == ["docker.io/team/app", "wt/app"]
    assert [name.partition(":")[0] for name in told["shadowing"]["first"]] == ["library/app"]


def write_manifest(root: Path, repository: str, raw: bytes, tag: str, *, revision: bool = True) -> Digest:
    """Put a manifest into the tree as distribution would have."""
    digest = Digest.of(raw)
    place = f"sha256/{digest.encoded}"
    folder = root / V2 / "repositories" / repository / "_manifests"
    links = [folder / f"tags/{tag}/current/link", folder / f"tags/{tag}/index/{place}/link"]
    links += [folder / f"revisions/{place}/link"] if revision else []
    data = root / V2 / f"blobs/sha256/{digest.encoded[:2]}/{digest.encoded}/data"
    for path, content in ((data, raw), *((link, str(digest).encode()) for link in links)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return digest


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_distribution_takes_the_tree_back(adopted: Adopted, mode: str) -> None:
    """After pushes, moves and deletes of ours it answers every tag and digest as we did."""
    adopted.import_tree()
    with adopted.serve(more=f'links = "{mode}"\n') as server, closing(Client(server.host)) as client:
        push(client, "team/app", make_image(seed="ours"), "latest")
        push(client, "team/app", make_image(seed="ours again", docker=True), "ours")
        push(client, "brand/new", make_image(seed="brand new", layers=3), "1")
        assert client.delete("/v2/team/app/manifests/v2").status == 202
        gone = client.get("/v2/team/app/manifests/v1").headers["docker-content-digest"]
        assert client.delete(f"/v2/team/app/manifests/{gone}").status == 202
        blob = push_blob(client, "team/app", b"pushed and unlinked")
        assert client.delete(f"/v2/team/app/blobs/{blob}").status == 202
        if mode == "sync":
            assert (adopted.root / V2 / "repositories/team/app/_manifests/tags/ours/current/link").exists()
        wanted = [*adopted.wanted, ("team/app", "manifests/ours"), ("brand/new", "manifests/1")]
        wanted += [("team/app", f"blobs/{blob}")]
        ours, our_listings = ask(server.host, wanted), listings(server.host)
        server.stop()
        log = server.log

    with open_registry_peer(adopted.root) as peer:
        assert ask(peer.host, wanted) == ours
        assert listings(peer.host) == our_listings
    assert ours["team/app", "manifests/v2"][0] == 404
    assert "the tree's links are written" in log


def test_a_repository_without_tags_stays_one(adopted: Adopted) -> None:
    """Distribution knows a list of tags by the folder that they lay in: with the last one it is empty, not gone."""
    adopted.import_tree()
    with adopted.serve() as server, closing(Client(server.host)) as client:
        assert client.delete("/v2/team/app/nested/manifests/1").status == 202
        ours = client.get("/v2/team/app/nested/tags/list")

    with open_registry_peer(adopted.root) as peer, closing(Client(peer.host)) as client:
        theirs = client.get("/v2/team/app/nested/tags/list")
    assert (ours.status, theirs.status) == (200, 200)
    assert not ours.json()["tags"]
    assert not theirs.json()["tags"]


def test_links_are_written_after_a_crash(adopted: Adopted) -> None:
    """What was acknowledged and not linked yet is linked by the next start."""
    adopted.import_tree()
    server = adopted.serve().start()
    with closing(Client(server.host)) as client:
        push(client, "team/app", make_image(seed="ours"), "ours")
        os.kill(server.pid, 9)
    server.stop()

    link = adopted.root / V2 / "repositories/team/app/_manifests/tags/ours/current/link"
    with adopted.serve("again"):
        assert wait_until(link.exists, timeout=timedelta(seconds=40))
    assert link.read_text() == str(make_image(seed="ours").digest)


def test_a_lost_database_is_built_again(adopted: Adopted) -> None:
    """By itself, at the next start, from the tree that we have gone on writing."""
    adopted.import_tree()
    with adopted.serve() as server, closing(Client(server.host)) as client:
        push(client, "team/app", make_image(seed="ours"), "latest")
        wanted = references(adopted.root)
        before, our_listings = ask(server.host, wanted), listings(server.host)
    for path in adopted.root.glob("roadstead.db*"):
        path.unlink()

    with adopted.serve("again") as server:
        assert ask(server.host, wanted) == before
        assert listings(server.host) == our_listings
        assert "it is built from them now" in server.log


@pytest.mark.parametrize("below", ["", "/registry"])
async def test_nothing_is_missing_while_the_database_is_built(adopted: Adopted, below: str) -> None:
    """Until all is there every request is told to come back, and `/readyz` says so; never 404, whatever the prefix."""
    database = await open_database(adopted.database, migrate=True)
    clock = SystemClock()
    # The test holds what the import needs, so that it can't go on.
    lease = await database.leases.acquire("import", "test", timedelta(minutes=5), clock.now())
    assert lease is not None
    server = adopted.serve(more=f'[server]\nprefix = "{below}/"\n')
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    try:
        assert await asyncio.to_thread(wait_until, lambda: answers(server), timeout=timedelta(seconds=30))
        with closing(Client(server.host)) as client:
            for path in ("/v2/", "/v2/_catalog", "/v2/team/app/manifests/latest", "/v2/no/such/tags/list"):
                answer = client.get(f"{below}{path}")
                assert (answer.status, answer.code) == (503, "UNAVAILABLE")
                assert int(answer.headers["retry-after"]) > 0
            assert client.get("/readyz").status == 503
            assert client.get("/healthz").status == 200
        await database.leases.release(lease)
        await starting
        if not below:
            assert ask(server.host, adopted.wanted) == adopted.answers
        assert (await database.imports.status()).state is ImportState.DONE
    finally:
        await database.leases.release(lease)
        await starting
        server.stop()
        await database.close()


def answers(server: RoadsteadServer) -> bool:
    try:
        with closing(Client(server.host, timeout_s=1)) as client:
            return client.get("/healthz").status == 200
    except Exception:  # noqa: BLE001 -- not there yet, in whatever way
        return False


def gc(adopted: Adopted, *arguments: str) -> str:
    """Run the command and return what it said beside its report."""
    command = [sys.executable, "-m", "roadstead", "gc", adopted.config_file, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--dry-run", "--json")])
def test_collection_says_that_it_waits_for_the_end(adopted: Adopted, arguments: tuple[str, ...]) -> None:
    """What would go doesn't, as long as somebody may go back; then nothing is said any more."""
    adopted.import_tree()

    assert "roadstead import --finish" in gc(adopted, *arguments)

    adopted.import_tree("--finish")
    assert "--finish" not in gc(adopted, *arguments)


def test_an_adoption_ends_when_it_is_said(adopted: Adopted) -> None:
    """Not before the import; then it is remembered."""
    early = import_tree(str(adopted.root), "--config", adopted.config_file, "--finish", check=False)
    assert early["status"] == 1
    assert "Run roadstead import without --finish first" in early["error"]

    adopted.import_tree()

    assert adopted.import_tree("--finish") == {"finished": True}
    assert asyncio.run(state(adopted)) is ImportState.FINISHED


async def state(adopted: Adopted) -> ImportState:
    database = await open_database(adopted.database, migrate=False)
    try:
        return (await database.imports.status()).state
    finally:
        await database.close()


def test_verify_reads_every_blob(adopted: Adopted) -> None:
    """Bytes that were changed are found by their digest alone."""
    layer = make_image(seed="app-0").layers[0].digest
    data = adopted.root / V2 / f"blobs/sha256/{layer.encoded[:2]}/{layer.encoded}/data"
    data.write_bytes(b"x" * data.stat().st_size)

    assert findings(adopted.import_tree()).get("blob_damaged", 0) == 0
    (adopted.root / "roadstead.db").unlink()
    assert findings(adopted.import_tree("--verify", status=1))["blob_damaged"] == 1


def test_only_the_storage_of_the_settings_is_taken_up(adopted: Adopted, tmp_path: Path) -> None:
    """Another tree is refused, and so is a folder without one, in which nothing is made."""
    (tmp_path / "other").mkdir()
    other = import_tree(str(tmp_path / "other"), "--config", adopted.config_file, check=False)
    nothing = import_tree(str(tmp_path / "other"), check=False)

    assert other["status"] == nothing["status"] == 1
    assert "is not the storage of the settings" in other["error"]
    assert "there are no repositories" in nothing["error"]
    assert list((tmp_path / "other").iterdir()) == []


def test_two_installations_do_not_share_a_tree(adopted: Adopted, tmp_path: Path) -> None:
    """A second one with a database of its own is refused while the first one runs."""
    with adopted.serve():
        elsewhere = tmp_path / "elsewhere.toml"
        elsewhere.write_text(f'{adopted.config}\n[database]\nurl = "sqlite:///{tmp_path}/elsewhere.db"\n')
        refused = import_tree(str(adopted.root), "--config", str(elsewhere), check=False)

    assert refused["status"] == 1
    assert "another Roadstead with another database" in refused["error"]


def test_writes_of_others_are_told(adopted: Adopted) -> None:
    """If distribution has written behind our back, the next start says where, and an import takes it up."""
    adopted.import_tree()
    with adopted.serve():
        pass
    later = time.time() + 60
    with open_registry_peer(adopted.root) as peer, closing(Client(peer.host)) as client:
        push(client, "team-b", make_image(seed="behind our back"), "new")
    for path in (adopted.root / V2 / "repositories/team-b").rglob("*"):
        os.utime(path, (later, later))

    with adopted.serve("again") as server:
        assert "somebody else has written into the tree" in server.log
        assert "team-b" in server.log
    adopted.import_tree()
    with adopted.serve("third") as server, closing(Client(server.host)) as client:
        assert client.get("/v2/team-b/manifests/new").status == 200


def test_an_adoption_does_not_end_behind_somebody_elses_back(adopted: Adopted) -> None:
    """What Docker's registry has pushed since has no row: collection would take it for what a crash has left."""
    adopted.import_tree()
    pushed = next((adopted.root / "docker/registry/v2/repositories").glob("**/_manifests/tags"))
    before, soon = pushed.stat().st_mtime, time.time() + 60
    os.utime(pushed, (soon, soon))

    early = import_tree(str(adopted.root), "--config", adopted.config_file, "--finish", check=False)

    assert early["status"] == 1
    assert "somebody else has written into the tree" in early["error"]
    assert asyncio.run(state(adopted)) is ImportState.DONE
    os.utime(pushed, (before, before))
    assert adopted.import_tree("--finish") == {"finished": True}
