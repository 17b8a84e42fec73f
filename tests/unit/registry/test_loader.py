"""Images in layouts and archives become those of a registry: whole or not at all, and told what of each."""

import gzip
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard
from tests.unit.registry.test_bundle import member, tar

from roadstead.clock import SystemClock
from roadstead.db.engine import open_database
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.oci.strict_json import compact
from roadstead.registry.blobs import Blobs
from roadstead.registry.bundle import BundleInvalidError, open_bundle
from roadstead.registry.content_cache import ContentCache
from roadstead.registry.immutable import ImmutableTags
from roadstead.registry.loader import Loader, LoadReport
from roadstead.registry.manifests import Manifests
from roadstead.registry.saved_images import (
    CONTAINERD_NAME,
    REF_NAME,
    Format,
    ImageName,
    NameUnusableError,
    detect,
    parse_name,
    read_saved,
)
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.registry.uploads import Uploads
from roadstead.registry.validation import Sparseness
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.testing.images import make_artifact, make_attestation, make_image, make_index
from roadstead.testing.layouts import layout_files

Files = Mapping[str, bytes]


class Registry:
    """A registry without HTTP."""

    def __init__(self, database, driver: MemoryDriver) -> None:
        clock = SystemClock()
        self.driver = driver
        self.manifests = Manifests(
            database.manifests,
            clock,
            cache=ContentCache(),
            max_bytes=4 << 20,
            max_tags_per_push=10,
            sparse=Sparseness(),
            delete_enabled=True,
            immutable=ImmutableTags.parse(["*:stays"]),
        )
        self.blobs = Blobs(database.blobs, driver, clock, cache=ContentCache(), delete_enabled=True)
        lifetimes = UploadLifetimes.with_open(timedelta(hours=1))
        ids = UploadIds(b"x" * 32)
        self.uploads = Uploads(database.uploads, database.blobs, driver, ids, clock, lifetimes=lifetimes)

    async def load(self, path: Path, repository: str | None = None) -> LoadReport:
        """Load a bundle, as the command does."""
        with open_bundle(path) as bundle:
            saved = read_saved(bundle, detect(bundle))
            name = None if repository is None else RepositoryName(repository)
            return await Loader(self.manifests, self.blobs, self.uploads).run(saved, name)

    async def at(self, repository: str, tag: str) -> Digest:
        return (await self.manifests.get(RepositoryName(repository), Tag(tag))).digest

    async def blob(self, repository: str, digest: Digest) -> bytes:
        record = await self.blobs.get(RepositoryName(repository), digest)
        return b"".join([piece async for piece in self.blobs.read(record)])


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with open_registry(tmp_path) as registry:
        yield registry


@asynccontextmanager
async def open_registry(folder: Path) -> AsyncIterator[Registry]:
    database = await open_database(f"sqlite:///{folder}/roadstead.db", migrate=True)
    yield Registry(database, MemoryDriver())
    await database.close()


def write_folder(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_tar(root: Path, files: Files) -> Path:
    path = root / "images.tar"
    path.write_bytes(tar(*(member(name, content) for name, content in files.items())))
    return path


def write_gzip(root: Path, files: Files) -> Path:
    path = write_tar(root, files)
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


WRITERS = pytest.mark.parametrize(
    "write", [lambda root, files: write_folder(root / "layout", files), write_tar, write_gzip], ids=["dir", "tar", "gz"]
)


def told(report: LoadReport) -> dict[str, int]:
    return {finding.name: count for finding, count in report.findings.items()}


@WRITERS
async def test_a_layout_with_all_kinds_of_images(
    registry: Registry, tmp_path: Path, write: Callable[[Path, Files], Path]
) -> None:
    """An image, an index of indexes with an attestation, a referrer, under tags and by digest: their exact bytes."""
    app, arm = make_image(seed="app", layers=2), make_image(seed="arm", platform="linux/arm64")
    nested = make_index([make_index([app, make_attestation(app)]), arm])
    signature = make_artifact(subject=nested.descriptor())
    files = layout_files(
        [(app, {REF_NAME: "1.0"}), (nested, {REF_NAME: "localhost:5000/team/app:multi"}), (signature, {})]
    )

    report = await registry.load(write(tmp_path, files))

    assert report.findings == {}
    assert [str(image) for image in report.images] == ["team/app:1.0", "team/app:multi", f"team/app@{signature.digest}"]
    assert await registry.at("team/app", "1.0") == app.digest
    assert await registry.at("team/app", "multi") == nested.digest
    for image in (app, arm, signature):
        for digest, data in image.blobs.items():
            assert await registry.blob("team/app", digest) == data
    again = await registry.load(write(tmp_path, files))
    assert (again.blobs, again.findings, again.images) == (0, {}, report.images)


async def test_the_repository_can_be_named(registry: Registry, tmp_path: Path) -> None:
    """It replaces every name; tags stay."""
    image, other = make_image(seed="app"), make_image(seed="other")
    files = layout_files([(image, {CONTAINERD_NAME: "docker.io/library/app:1", REF_NAME: "1"}), (other, {})])

    report = await registry.load(write_tar(tmp_path, files), "mine/app")

    assert [str(image) for image in report.images] == ["mine/app:1", f"mine/app@{other.digest}"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("busybox:1", ("library/busybox", "1")),
        ("docker.io/library/busybox:1", ("library/busybox", "1")),
        ("localhost/team/app", ("team/app", None)),
        ("127.0.0.1:5000/app:1", ("app", "1")),
        ("team/app@sha256:" + "0" * 64, ("team/app", None)),
        ("Team/App:1", None),
        ("team/app:", None),
        ("../../etc:1", None),
        ("", None),
    ],
)
def test_names(text: str, name: tuple[str, str | None] | None) -> None:
    """A name's host is dropped: it is this registry now."""
    if name is None:
        with pytest.raises(NameUnusableError):
            parse_name(text)
        return
    repository, tag = name
    assert parse_name(text) == ImageName(RepositoryName(repository), None if tag is None else Tag(tag))


async def test_one_platform_of_an_index(registry: Registry, tmp_path: Path) -> None:
    """Engines that pulled one platform save the index with that image alone: it gets the name, and that is told."""
    here, away = make_image(seed="here"), make_image(seed="away", platform="linux/arm64")
    index = make_index([here, away, make_attestation(here)])
    gone = [away.digest, *away.blobs]

    report = await registry.load(
        write_tar(tmp_path, layout_files([(index, {REF_NAME: "team/app:1"})], without=[*gone]))
    )

    assert await registry.at("team/app", "1") == here.digest
    assert told(report) == {"PARTIAL": 1}
    assert report.is_whole


async def test_several_platforms_of_an_index(registry: Registry, tmp_path: Path) -> None:
    """Where two of three are here, they come by their digests and the index is left out."""
    images = [make_image(seed=name, platform=f"linux/{name}") for name in ("amd64", "arm64", "s390x")]
    index = make_index(images)
    files = layout_files([(index, {REF_NAME: "team/app:1"})], without=[images[2].layers[0].digest])

    report = await registry.load(write_tar(tmp_path, files))

    assert [image.digest for image in report.images] == [images[0].digest, images[1].digest]
    assert told(report) == {"CHILDREN": 1}
    assert not report.is_whole


def damaged(files: dict[str, bytes], digest: Digest, data: bytes) -> Files:
    return {**files, f"blobs/{digest.algorithm}/{digest.encoded}": data}


GOOD, BAD = make_image(seed="good"), make_image(seed="bad", layers=2)
BOTH = layout_files([(BAD, {REF_NAME: "team/app:bad"}), (GOOD, {REF_NAME: "team/app:good"})])
LAYER = BAD.layers[1]


def entry(**members: object) -> Files:
    """Return the layout with something else for the bad image's entry."""
    index = json.loads(BOTH["index.json"])
    index["manifests"][0].update(members)
    return {**BOTH, "index.json": compact(index)}


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        (damaged(BOTH, LAYER.digest, b"x" * len(LAYER.raw)), "DAMAGED"),
        (damaged(BOTH, LAYER.digest, LAYER.raw[:-1]), "DAMAGED"),
        (damaged(BOTH, BAD.digest, BAD.raw + b" "), "DAMAGED"),
        (damaged(BOTH, BAD.digest, b"x" * (5 << 20)), "DAMAGED"),
        (layout_files([(BAD, {REF_NAME: "team/app:bad"}), (GOOD, {REF_NAME: "team/app:good"})],
                      without=[BAD.config_digest]), "MISSING"),
        (layout_files([(BAD, {REF_NAME: "team/app:bad"}), (GOOD, {REF_NAME: "team/app:good"})],
                      without=[BAD.digest]), "MISSING"),
        (entry(mediaType="text/html"), "UNUSABLE"),
        (entry(annotations={REF_NAME: "no:good:name"}), "UNUSABLE"),
        (entry(annotations={REF_NAME: "sha256:" + "0" * 64}), "UNUSABLE"),
        (entry(annotations={REF_NAME: ".hidden"}), "UNUSABLE"),
        (entry(annotations={REF_NAME: "team/app:good"}, digest=str(GOOD.config_digest), size=1), "DAMAGED"),
    ],
    ids=["layer changed", "layer cut short", "manifest changed", "manifest too large", "config missing",
         "manifest missing", "no manifest's type", "no reference", "a digest for a name", "no tag", "no manifest"],
)  # fmt: skip
async def test_one_bad_image_leaves_the_others(registry: Registry, tmp_path: Path, files: Files, finding: str) -> None:
    """What is damaged is told, isn't served, and leaves nothing on the way in; what is sound comes."""
    report = await registry.load(write_tar(tmp_path, files), "team/app" if finding == "UNUSABLE" else None)

    assert told(report)[finding] == 1
    assert not report.is_whole
    names = [str(image) for image in report.images]
    if names:
        assert names == ["team/app:good"]
        assert await registry.at("team/app", "good") == GOOD.digest
    else:
        assert told(report).get("CLAIMED_TWICE") == 1
    staged = [info.key async for info in registry.driver.iter_keys("docker/registry/v2/roadstead/uploads/")]
    assert staged == []


async def test_names_and_settings_are_kept(registry: Registry, tmp_path: Path) -> None:
    """Of two images with one name the first has it; an immutable tag stays; without a name there is none."""
    files = layout_files([(GOOD, {REF_NAME: "team/app:1"}), (BAD, {REF_NAME: "other.example/team/app:1"})])
    assert told(await registry.load(write_tar(tmp_path, files))) == {"CLAIMED_TWICE": 1}

    await registry.load(write_tar(tmp_path, layout_files([(GOOD, {REF_NAME: "app:stays"})])), "app")
    moved = await registry.load(write_tar(tmp_path, layout_files([(BAD, {REF_NAME: "app:stays"})])), "app")
    assert told(moved) == {"REFUSED": 1}
    assert await registry.at("app", "stays") == GOOD.digest

    assert told(await registry.load(write_tar(tmp_path, layout_files([(BAD, {REF_NAME: "1"})])))) == {"UNNAMED": 1}


BROKEN_LAYOUTS: dict[str, tuple[Files, str]] = {
    "nothing": ({"a": b"b"}, "neither an OCI layout"),
    "only the oldest Docker's list": ({"repositories": b"{}"}, "Docker before 1.10"),
    "no index": ({"oci-layout": BOTH["oci-layout"]}, "neither an OCI layout"),
    "another version": ({**BOTH, "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}, "not 1.x"),
    "no version": ({**BOTH, "oci-layout": b"{}"}, "not 1.x"),
    "no JSON": ({**BOTH, "index.json": b"hello"}, "index.json"),
    "an array": ({**BOTH, "index.json": b"[]"}, "index.json"),
    "a manifest for an index": ({**BOTH, "index.json": GOOD.raw}, "index.json"),
    "a huge index": ({**BOTH, "index.json": b" " * (5 << 20)}, "which no manifest has"),
    "a digest that leads out": (
        {**BOTH, "index.json": BOTH["index.json"].replace(str(GOOD.digest).encode(), b"sha256:../../../../etc/passwd")},
        "index.json",
    ),
    "a list that is none": ({"manifest.json": b"{}"}, "manifest.json isn't an array"),
    "a list of numbers": ({"manifest.json": b"[1]"}, "manifest.json isn't an array"),
    "a list with a tail": ({"manifest.json": b'[]} {"images": []'}, "manifest.json"),
}


@pytest.mark.parametrize(("files", "reason"), BROKEN_LAYOUTS.values(), ids=BROKEN_LAYOUTS)
async def test_bundles_that_are_refused_whole(registry: Registry, tmp_path: Path, files: Files, reason: str) -> None:
    """Where nothing can be made out the error says what was looked for."""
    with pytest.raises(BundleInvalidError, match=reason):
        await registry.load(write_tar(tmp_path, files))


# Archives without a manifest

TARS = [tar(member(f"file-{number}", b"content %d" % number)) for number in range(2)]
DIFF_IDS = [Digest.of(data) for data in TARS]
CONFIG = compact(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [*map(str, DIFF_IDS)]},
    }
)
CONFIG_NAME = f"{Digest.of(CONFIG).encoded}.json"
ENTRY = {"Config": CONFIG_NAME, "RepoTags": ["team/app:1", "busybox:2"], "Layers": ["0/layer.tar", "1/layer.tar"]}


def archive(*entries: Mapping[str, object], **files: bytes) -> Files:
    """Return the files of an archive as docker save made them before Docker 25."""
    made = {CONFIG_NAME: CONFIG, "0/layer.tar": TARS[0], "1/layer.tar": TARS[1]}
    return {**made, "manifest.json": json.dumps(entries or [ENTRY]).encode(), **files}


@WRITERS
async def test_an_archive_gets_a_manifest(
    registry: Registry, tmp_path: Path, write: Callable[[Path, Files], Path]
) -> None:
    """Always the same; layers keep their bytes, which are their diff_ids'; the image's id stays."""
    report = await registry.load(write(tmp_path, archive()))

    assert [str(image) for image in report.images] == ["team/app:1", "library/busybox:2"]
    digest = await registry.at("team/app", "1")
    assert digest == await registry.at("library/busybox", "2") == report.images[0].digest
    document = json.loads(await registry.manifests.content(digest))
    assert document["config"]["digest"] == f"sha256:{CONFIG_NAME.removesuffix('.json')}"
    assert [layer["digest"] for layer in document["layers"]] == [str(diff_id) for diff_id in DIFF_IDS]
    assert {layer["mediaType"] for layer in document["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert await registry.blob("team/app", DIFF_IDS[1]) == TARS[1]
    assert (await registry.load(write(tmp_path, archive()))).blobs == 0


@pytest.mark.parametrize(
    ("compress", "media_type"),
    [(gzip.compress, "tar+gzip"), (zstandard.compress, "tar+zstd")],
    ids=["gzip", "zstd"],
)
async def test_compressed_layers_stay_compressed(
    registry: Registry, tmp_path: Path, compress: Callable[[bytes], bytes], media_type: str
) -> None:
    """Some writers compress them in archives too; what they unpack to is checked."""
    packed = compress(TARS[1])
    report = await registry.load(write_tar(tmp_path, archive(**{"1/layer.tar": packed})))
    document = json.loads(await registry.manifests.content(report.images[0].digest))
    assert document["layers"][1]["mediaType"].endswith(media_type)
    assert await registry.blob("team/app", Digest.of(packed)) == packed

    wrong = await registry.load(write_tar(tmp_path, archive(**{"1/layer.tar": compress(TARS[0])})))
    broken = await registry.load(write_tar(tmp_path, archive(**{"1/layer.tar": packed[:-3]})))
    assert told(wrong) == told(broken) == {"UNUSABLE": 1}


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        (archive(ENTRY | {"Config": "../../etc/passwd"}), "UNUSABLE"),
        (archive(ENTRY | {"Config": 7}), "UNUSABLE"),
        (archive(ENTRY | {"Config": "none.json"}), "UNUSABLE"),
        (archive(ENTRY | {"Layers": ["/etc/passwd", "1/layer.tar"]}), "UNUSABLE"),
        (archive(ENTRY | {"Layers": ["0/layer.tar"]}), "UNUSABLE"),
        (archive(ENTRY | {"Layers": "0/layer.tar"}), "UNUSABLE"),
        (archive(ENTRY | {"Layers": ["0/layer.tar", "gone"]}), "UNUSABLE"),
        (archive(ENTRY | {"RepoTags": ["A/B:1"]}), "UNUSABLE"),
        (archive(ENTRY | {"RepoTags": {"a": 1}}), "UNUSABLE"),
        (archive(ENTRY | {"RepoTags": None}), "UNNAMED"),
        (archive(**{CONFIG_NAME: CONFIG + b" "}), "UNUSABLE"),
        (archive(ENTRY | {"Config": "c.json"}, **{"c.json": b"{}"}), "UNUSABLE"),
        (archive(ENTRY | {"Config": "c.json"}, **{"c.json": b"[]"}), "UNUSABLE"),
        (archive(**{"1/layer.tar": TARS[0]}), "DAMAGED"),
        (archive(**{"1/layer.tar": b"no tar at all"}), "DAMAGED"),
    ],
    ids=["a config that leads out", "a config that is a number", "no config", "a layer that leads out",
         "too few layers", "layers that are a text", "a missing layer", "an unusable name",
         "names that are an object", "no name",
         "a changed config", "a config without layers", "a config that is an array", "another layer's bytes", "noise"],
)  # fmt: skip
async def test_archives_that_say_what_is_not_so(registry: Registry, tmp_path: Path, files: Files, finding: str) -> None:
    """Nothing of such an image is served."""
    report = await registry.load(write_tar(tmp_path, files))

    assert set(told(report)) <= {finding}
    assert told(report)[finding] in (1, 2)  # a damaged image is told under each of its names
    assert report.images == []


async def test_sha512_digests(registry: Registry, tmp_path: Path) -> None:
    """A layout's other folder of blobs: the digest is kept as it is."""
    image = make_image(seed="512")
    digest = Digest.of(image.raw, Algorithm.SHA512)
    files = layout_files([(image, {REF_NAME: "app:1"})])
    listed = json.loads(files["index.json"])
    listed["manifests"][0]["digest"] = str(digest)
    files |= {"index.json": compact(listed), f"blobs/sha512/{digest.encoded}": image.raw}

    report = await registry.load(write_tar(tmp_path, files))

    assert [one.digest for one in report.images] == [digest]
    assert await registry.at("library/app", "1") == digest


def test_what_is_both_is_read_as_a_layout(tmp_path: Path) -> None:
    """As Docker 25 and containerd save: the manifests' exact bytes are there, so they count."""
    with open_bundle(write_tar(tmp_path, {**archive(), **BOTH})) as bundle:
        assert detect(bundle) is Format.LAYOUT
