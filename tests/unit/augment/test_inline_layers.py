"""Layers within a request: read in one form, verified in all they say, and unpacked no further than allowed."""

import gzip
from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.augment import inline_layers
from roadstead.augment.container_token import WantedLayer, is_token, new_token, space_of, token_hash
from roadstead.augment.inline_layers import LayerRefusedError, decoded, verify
from roadstead.augment.plan import Plan
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.testing.images import TestLayer, make_layer

LAYER = make_layer({"foo.txt": b"hello"})


def wanted(layer: TestLayer = LAYER) -> WantedLayer:
    location = f"data:{b64encode(layer.raw).decode()}"
    return WantedLayer(location, layer.digest, len(layer.raw), layer.diff_id)


async def test_a_layer_that_is_what_it_says() -> None:
    """Its bytes are read from its location and fit all three of its measures."""
    (data,) = decoded([wanted()]).values()
    assert data == LAYER.raw
    await verify(0, wanted(), data)


@given(st.binary(max_size=300))
def test_base64_has_one_form(data: bytes) -> None:
    """What was encoded is read back, and nothing that merely decodes to the same."""
    text = b64encode(data).decode()
    assert decoded([replace(wanted(), location=f"data:{text}")]) == {0: data}
    for broken in (f"{text}=", f"{text}\n", f"-{text}", f"{text}===="):
        with pytest.raises(LayerRefusedError):
            decoded([replace(wanted(), location=f"data:{broken}")])


def test_loose_bits_are_refused() -> None:
    """The last letter has bits that decoding drops: `QR==` reads as `QQ==` does."""
    with pytest.raises(LayerRefusedError, match="canonical"):
        decoded([replace(wanted(), location="data:QR==")])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gzip_size": 3}, "gzipSize"),
        ({"gzip_digest": Digest.of(b"x")}, "gzipDigest"),
        ({"tar_digest": Digest.of(b"x")}, "tarDigest"),
    ],
)
async def test_a_layer_that_is_not_what_it_says(changed: dict[str, object], said: str) -> None:
    """Each measure by itself."""
    layer = replace(wanted(), **changed)  # type: ignore[arg-type]
    with pytest.raises(LayerRefusedError, match=said):
        await verify(0, layer, LAYER.raw)


async def test_what_is_no_layer() -> None:
    """A plain tar, a gzip of something else, and a gzip that stops."""
    plain = gzip.decompress(LAYER.raw)
    for data in (plain, gzip.compress(b"no tar" * 500), LAYER.raw[:-10], b"text"):
        layer = WantedLayer("data:", Digest.of(data), len(data), Digest.of(plain))
        with pytest.raises(LayerRefusedError):
            await verify(0, layer, data)


async def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than allowed stops the reading, however small the gzip is."""
    monkeypatch.setattr(inline_layers, "MAX_TAR_BYTES", 64 << 10)
    bomb = make_layer({"zeros": bytes(1 << 20)})
    small = TestLayer(gzip.compress(gzip.decompress(bomb.raw)), bomb.diff_id)
    assert len(small.raw) < 4096
    with pytest.raises(LayerRefusedError, match="unpacks to more"):
        await verify(0, wanted(small), small.raw)


def test_how_much_a_request_carries() -> None:
    """A MiB each, ten together, and a location no longer than Wave takes."""
    full = replace(wanted(), location=f"data:{b64encode(bytes(1 << 20)).decode()}")
    assert len(decoded([full] * 10)) == 10
    with pytest.raises(LayerRefusedError, match="together"):
        decoded([full] * 11)
    with pytest.raises(LayerRefusedError, match="at the most"):
        decoded([replace(full, location=f"data:{b64encode(bytes((1 << 20) + 1)).decode()}")])
    with pytest.raises(LayerRefusedError, match="characters"):
        decoded([replace(full, location="data:" + "A" * 14_000_000)])


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


async def test_layers_of_one_request_unpack_to_little() -> None:
    """A few hundred KiB would else be gigabytes to read, by the dozen; what compresses well is still taken."""
    zeros = make_layer({"zeros": bytes(48 << 20)})
    packed = gzip.compress(gzip.decompress(zeros.raw))
    with pytest.raises(LayerRefusedError, match="unpacks to more"):
        await verify(0, WantedLayer("data:", Digest.of(packed), len(packed), zeros.diff_id), packed)
    text = make_layer({"text": b"all the same line\n" * (1 << 19)})
    packed = gzip.compress(gzip.decompress(text.raw))
    await verify(0, WantedLayer("data:", Digest.of(packed), len(packed), text.diff_id), packed)
