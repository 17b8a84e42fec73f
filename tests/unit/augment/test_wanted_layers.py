"""Layers that callers name: verified in all they say, and unpacked no further than allowed; and tokens' own names."""

import gzip
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.app.callers import LayersOfCallers
from roadstead.augment.container_token import is_token, new_token, space_of, token_hash
from roadstead.augment.layer_sources import LayerSources
from roadstead.augment.locations import LayerClaim, LayerMismatchError, LocationInvalidError
from roadstead.augment.plan import Plan, PlannedLayer
from roadstead.augment.wanted_layers import LayerRefusedError, check_wanted
from roadstead.errors import InvalidError
from roadstead.oci.digest import Digest
from roadstead.oci.layer import LayerInvalidError
from roadstead.oci.reference import RepositoryName
from roadstead.settings.model import Settings
from roadstead.testing.images import TestLayer, make_layer
from roadstead.testing.memory_stores import MemoryLayers

LAYER = make_layer({"foo.txt": b"hello"})


def wanted(layer: TestLayer = LAYER) -> LayerClaim:
    location = f"data:{b64encode(layer.raw).decode()}"
    return LayerClaim(location=location, gzip_digest=layer.digest, gzip_size=len(layer.raw), tar_digest=layer.diff_id)


@pytest.fixture
def within(tmp_path: Path) -> LayerSources:
    """What reads the layers of requests, as a worker has it."""
    return LayersOfCallers(Settings(), MemoryLayers(), tmp_path).within()


async def test_a_layer_that_is_what_it_says(within: LayerSources) -> None:
    """Its bytes are read from its location and fit all three of its measures."""
    check_wanted([wanted()])
    assert await within.fetch_claimed(wanted()) == PlannedLayer(LAYER.digest, len(LAYER.raw), LAYER.diff_id)


@given(st.binary(max_size=300))
def test_what_a_request_may_name(data: bytes) -> None:
    """The four kinds of location, whatever is behind; the base64 is read later, where the bytes are."""
    text = b64encode(data).decode()
    for kind in ("data:", "https://", "http://", "docker://"):
        check_wanted([replace(wanted(), location=f"{kind}{text}")])
    for kind in ("", "/", "file:", "s3://", ":"):
        with pytest.raises(LayerRefusedError):
            check_wanted([replace(wanted(), location=f"{kind}{text}")])


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"gzip_size": 3}, LayerMismatchError),
        ({"gzip_digest": Digest.of(b"x")}, LayerMismatchError),
        ({"tar_digest": Digest.of(b"x")}, LayerMismatchError),
        ({"location": "data:QR=="}, InvalidError),  # the last letter has bits that decoding drops
        ({"location": "data:!!"}, InvalidError),
    ],
)
async def test_a_layer_that_is_not_what_it_says(
    within: LayerSources, changed: dict[str, object], error: type[InvalidError]
) -> None:
    """Each measure by itself."""
    with pytest.raises(error):
        await within.fetch_claimed(replace(wanted(), **changed))  # type: ignore[arg-type]


async def test_loose_bits_are_refused(within: LayerSources) -> None:
    """`QR==` reads as `QQ==` does: several texts would stand for one layer."""
    with pytest.raises(LocationInvalidError, match="too many"):
        await within.fetch_claimed(replace(wanted(), location="data:QR==", gzip_size=1))


async def test_what_is_no_layer(within: LayerSources) -> None:
    """A plain tar, a gzip of something else, and a gzip that stops."""
    plain = gzip.decompress(LAYER.raw)
    for data in (gzip.compress(b"no tar" * 500), LAYER.raw[:-10], b"text"):
        with pytest.raises(LayerInvalidError):
            await within.fetch_claimed(wanted(TestLayer(data, Digest.of(plain))))
    with pytest.raises(LayerRefusedError, match="plain tar"):
        check_wanted([wanted(TestLayer(plain, Digest.of(plain)))])


async def test_layers_of_one_request_unpack_to_little(within: LayerSources) -> None:
    """A few hundred KiB would else be gigabytes to read, by the dozen; what compresses well is still taken."""
    zeros = make_layer({"zeros": bytes(48 << 20)})
    bomb = TestLayer(gzip.compress(gzip.decompress(zeros.raw)), zeros.diff_id)
    with pytest.raises(LayerInvalidError, match="unpacks to more"):
        await within.fetch_claimed(wanted(bomb))
    text = make_layer({"text": b"all the same line\n" * (1 << 19)})
    await within.fetch_claimed(wanted(TestLayer(gzip.compress(gzip.decompress(text.raw)), text.diff_id)))


async def test_how_much_a_request_carries(within: LayerSources) -> None:
    """A MiB each, ten together, and a location no longer than Wave takes; what is said of the size is held to."""
    full = replace(wanted(), location=f"data:{b64encode(bytes(1 << 20)).decode()}", gzip_size=1 << 20)
    check_wanted([full] * 10)
    with pytest.raises(LayerRefusedError, match="together"):
        check_wanted([full] * 11)
    with pytest.raises(LayerRefusedError, match="at the most"):
        check_wanted([replace(full, gzip_size=(1 << 20) + 1)])
    with pytest.raises(LayerRefusedError, match="characters"):
        check_wanted([replace(full, location="data:" + "A" * 14_000_000)])
    with pytest.raises(LayerMismatchError):
        await within.fetch_claimed(replace(full, gzip_size=5))


def test_a_scheme_in_capitals_is_the_same_scheme() -> None:
    """What a request may carry is bounded however `data:` is written."""
    full = replace(wanted(), location=f"DATA:{b64encode(bytes(1 << 20)).decode()}", gzip_size=1 << 20)
    with pytest.raises(LayerRefusedError, match="at the most"):
        check_wanted([replace(full, gzip_size=(1 << 20) + 1)])
    with pytest.raises(LayerRefusedError, match="together"):
        check_wanted([full] * 11)


def test_tokens_are_random() -> None:
    """160 bits in lower-case letters and digits, kept as a hash."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 32 and is_token(token) for token in tokens)
    assert not any(token in token_hash(token) for token in tokens)
    assert not any(is_token(text) for text in ("", "UPPER", "a/b", "a.b", "a" * 65))


def test_a_space_is_of_one_repository_and_one_plan() -> None:
    """It has a name that is a repository's, and that no other pair has."""
    plans = [Plan(env=(("A", "1"),)), Plan(env=(("A", "2"),))]
    spaces = {space_of(RepositoryName(name), plan) for name in ("team/app", "team/other") for plan in plans}
    assert len(spaces) == 4
    assert all(space.components[0] == "wt" for space in spaces)
