"""Rules get ready: layers are read, checked and stored, the same at every start."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from roadstead.augment.layers import LayerUnusableError, prepare_rules
from roadstead.augment.plan import Plan
from roadstead.augment.ports import DerivedBlob
from roadstead.augment.rules import LayerSpec, RuleInvalidError, Rules, RuleSpec
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.pattern import PatternInvalidError
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.testing.memory_stores import MemoryLayers

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


TAR = tar({"foo.txt": b"hello\n" * 1000})


@pytest.fixture
def layers() -> MemoryLayers:
    return MemoryLayers()


async def prepared(specs: Sequence[RuleSpec], layers: MemoryLayers, tmp_path: Path) -> Rules:
    rules = await prepare_rules(specs, layers, tmp_path / "work", NOW)
    assert list((tmp_path / "work").iterdir()) == []  # nothing is left behind
    return rules


async def plan_of(layer: Path, layers: MemoryLayers, tmp_path: Path) -> Plan:
    rules = await prepared([RuleSpec(match="**", layers=[LayerSpec(layer)])], layers, tmp_path)
    plan = rules.first_match(RepositoryName.parse("a"), Tag.parse("b"))
    assert plan is not None
    return plan


async def test_a_gzipped_tar_is_taken_as_it_is(layers: MemoryLayers, tmp_path: Path) -> None:
    """Its own bytes are stored; the tar inside gives the diff_id."""
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(gzip.compress(TAR))

    plan = await plan_of(path, layers, tmp_path)

    (layer,) = plan.layers
    assert layers.blobs == {layer.gzip_digest: path.read_bytes()}
    assert layer.gzip_size == path.stat().st_size
    assert layer.tar_digest == Digest.of(TAR)


async def test_a_plain_tar_is_compressed_reproducibly(layers: MemoryLayers, tmp_path: Path) -> None:
    """Whatever its name and its time: the same tar gives the same stored bytes."""
    one, other = tmp_path / "layer.tar", tmp_path / "named-wrongly.gz"
    for path, time in ((one, 1), (other, 2)):
        path.write_bytes(TAR)
        os.utime(path, (time, time))

    first, second = await plan_of(one, layers, tmp_path), await plan_of(other, layers, tmp_path)

    assert first == second
    assert first.layers[0].tar_digest == Digest.of(TAR)
    assert [gzip.decompress(raw) for raw in layers.blobs.values()] == [TAR]


async def test_a_directory_is_packed_reproducibly(layers: MemoryLayers, tmp_path: Path) -> None:
    """What is below it becomes the root; times don't matter."""
    directory = tmp_path / "tree"
    (directory / "etc").mkdir(parents=True)
    (directory / "etc/motd").write_text("hello")

    first = await plan_of(directory, layers, tmp_path)
    (directory / "etc/motd").touch()
    second = await plan_of(directory, MemoryLayers(), tmp_path)

    assert first == second
    (raw,) = layers.blobs.values()
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        assert archive.getnames() == ["etc", "etc/motd"]


async def test_all_of_a_rule_gets_into_its_plan(layers: MemoryLayers, tmp_path: Path) -> None:
    """Order of rules and layers, platforms and settings are kept; the result goes to the workers as JSON."""
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(gzip.compress(TAR))
    arm = Platform("linux", "arm64")
    specs = [
        RuleSpec(
            match="library/*:latest",
            layers=[LayerSpec(str(path)), LayerSpec(path, arm)],
            env=["K=V", "E="],
            entrypoint=["/x"],
            cmd=[],
            workdir="/w",
        ),
        RuleSpec(match="**", env=["ALL=1"]),
    ]

    rules = await prepared(specs, layers, tmp_path)

    first, second = rules.rules
    assert (str(first.match), str(second.match)) == ("library/*:latest", "**")
    assert [layer.platform for layer in first.plan.layers] == [None, arm]
    assert first.plan.env == (("K", "V"), ("E", ""))
    assert (first.plan.entrypoint, first.plan.cmd, first.plan.workdir) == (("/x",), (), "/w")
    assert (second.plan.entrypoint, second.plan.cmd, second.plan.workdir) == (None, None, None)
    assert Rules.from_json(rules.to_json()) == rules


async def test_a_stored_layer_is_not_stored_again(tmp_path: Path) -> None:
    """The second start finds what the first has stored."""
    stored: list[str] = []

    class Counting(MemoryLayers):
        async def store_file(self, path: str, digest: Digest, *, now: datetime) -> DerivedBlob:
            stored.append(path)
            return await super().store_file(path, digest, now=now)

    path = tmp_path / "layer.tar.gz"
    path.write_bytes(gzip.compress(TAR))
    counting = Counting()

    await plan_of(path, counting, tmp_path)
    await plan_of(path, counting, tmp_path)

    assert stored == [str(path)]


def missing(path: Path) -> None:
    """Nothing is there."""


def empty_directory(path: Path) -> None:
    path.mkdir()


def empty_file(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("no tar, " * 200)


def gzipped_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"no tar, " * 200))


def cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(TAR)[:-10])


def cut_tar(path: Path) -> None:
    path.write_bytes(TAR[:700])


def pipe(path: Path) -> None:
    os.mkfifo(path)


def pipe_inside(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "pipe")


@pytest.mark.parametrize(
    "make",
    [missing, empty_directory, empty_file, text, gzipped_text, cut_gzip, cut_tar, pipe, pipe_inside],
)
async def test_what_is_no_layer_stops_the_start(
    make: Callable[[Path], None], layers: MemoryLayers, tmp_path: Path
) -> None:
    """The message names the rule and the path; nothing is stored, nothing hangs."""
    path = tmp_path / "layer.tar.gz"
    make(path)

    with pytest.raises(LayerUnusableError) as caught:
        await prepared([RuleSpec(match="team/*:v*", layers=[LayerSpec(path)])], layers, tmp_path)

    assert "team/*:v*" in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.advice()
    assert layers.blobs == {}
    assert list((tmp_path / "work").iterdir()) == []


async def test_a_layer_that_changes_under_our_hands_is_refused(tmp_path: Path) -> None:
    """The bytes stored are those measured, or none."""

    class Racing(MemoryLayers):
        async def find(self, digest: Digest, *, now: datetime) -> None:
            path.write_bytes(gzip.compress(TAR + TAR))

    path = tmp_path / "layer.tar.gz"
    path.write_bytes(gzip.compress(TAR))

    with pytest.raises(LayerUnusableError, match="changed"):
        await plan_of(path, Racing(), tmp_path)


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        (RuleSpec(match="library/*", env=["NOVALUE"]), RuleInvalidError, "NOVALUE"),
        (RuleSpec(match="library/*", env=["A=1", "A=2"]), RuleInvalidError, "twice"),
        (RuleSpec(match="library/*", workdir="w"), RuleInvalidError, "absolute"),
        (RuleSpec(match="library/*"), RuleInvalidError, "empty"),
        (RuleSpec(match="library/[x]", env=["A=1"]), PatternInvalidError, "library"),
    ],
)
async def test_a_wrong_rule_is_named(
    spec: RuleSpec, error: type[Exception], said: str, layers: MemoryLayers, tmp_path: Path
) -> None:
    """Among many rules, the one to mend is in the message."""
    with pytest.raises(error, match=said) as caught:
        await prepared([RuleSpec(match="**", env=["OK=1"]), spec], layers, tmp_path)
    assert spec.match in str(caught.value)
