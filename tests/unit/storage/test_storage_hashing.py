"""Digests that go on in another process."""

import hashlib
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Algorithm, Digest, DigestMismatchError
from roadstead.storage import libcrypto
from roadstead.storage.hashing import HashStateInvalidError, ResumableHasher

ALGORITHMS = list(Algorithm)


def test_this_machine_has_a_libcrypto() -> None:
    """Where tests run, states can be taken out; otherwise half of this file would prove nothing."""
    assert libcrypto.load() is not None


@given(st.lists(st.binary(max_size=300)), st.sampled_from(ALGORITHMS))
def test_a_digest_survives_a_new_hasher_per_chunk(chunks: list[bytes], algorithm: Algorithm) -> None:
    """Wherever the cuts are, the digest is that of the whole."""
    state, size = None, 0

    for chunk in chunks:
        hasher = ResumableHasher(algorithm, state, size=size)
        hasher.update(chunk)
        state, size = hasher.export_state(), hasher.size
        assert state is not None

    final = ResumableHasher(algorithm, state, size=size)
    assert final.digest() == Digest.of(b"".join(chunks), algorithm)
    assert final.size == len(b"".join(chunks))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("H")])
def test_every_kind_of_buffer_is_taken(kind: type[bytes]) -> None:
    """Bytes are bytes, writable or not, and counted as bytes."""
    data = bytes(range(256)) * 40
    hasher = ResumableHasher()

    hasher.update(kind(data))

    assert hasher.digest() == Digest.of(data)
    assert hasher.size == len(data)


def test_a_slice_is_read_from_its_own_place() -> None:
    """A view into a larger buffer isn't mistaken for the buffer."""
    data = bytes(range(256))
    hasher = ResumableHasher()

    hasher.update(memoryview(data)[100:200])

    assert hasher.digest() == Digest.of(data[100:200])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_more_may_follow_a_digest(algorithm: Algorithm) -> None:
    """Asking for the digest doesn't end the hasher."""
    hasher = ResumableHasher(algorithm)
    hasher.update(b"one")

    assert hasher.digest() == Digest.of(b"one", algorithm)
    hasher.update(b" two")

    assert hasher.digest() == hasher.digest() == Digest.of(b"one two", algorithm)


def test_verify_tells_both_digests() -> None:
    """A mismatch carries what was expected and what was found."""
    hasher = ResumableHasher()
    hasher.update(b"content")
    hasher.verify(Digest.of(b"content"))

    with pytest.raises(DigestMismatchError) as caught:
        hasher.verify(Digest.of(b"other"))

    assert caught.value.actual == Digest.of(b"content")


def exported(algorithm: Algorithm = Algorithm.SHA256, size: int = 100) -> bytes:
    hasher = ResumableHasher(algorithm)
    hasher.update(bytes(size))
    state = hasher.export_state()
    assert state is not None
    return state


def resealed(state: bytes) -> bytes:
    """Return the state with a check sum that fits, as somebody would forge it."""
    return state[:-4] + zlib.crc32(state[:-4]).to_bytes(4, "big")


def test_states_of_something_else_are_refused() -> None:
    """Another offset, another algorithm, no state at all: each is told."""
    state = exported()

    for algorithm, given_state, size in [
        (Algorithm.SHA256, state, 99),
        (Algorithm.SHA256, state, 0),
        (Algorithm.SHA512, state, 100),
        (Algorithm.SHA256, exported(Algorithm.SHA512), 100),
        (Algorithm.SHA256, None, 100),
        (Algorithm.SHA256, b"", 100),
        (Algorithm.SHA256, state[:-1], 100),
        (Algorithm.SHA256, state + b"\x00", 100),
        (Algorithm.SHA256, b"RSH0" + state[4:], 100),
    ]:
        with pytest.raises(HashStateInvalidError):
            ResumableHasher(algorithm, given_state, size=size)


@given(st.data())
def test_a_damaged_state_is_refused(data: st.DataObject) -> None:
    """Any flipped bit is noticed."""
    state = bytearray(exported())
    position = data.draw(st.integers(0, len(state) - 1))
    state[position] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(HashStateInvalidError):
        ResumableHasher(Algorithm.SHA256, bytes(state), size=100)


@given(st.data())
def test_a_forged_state_never_reaches_beyond_its_block(data: st.DataObject) -> None:
    """The fields by which libcrypto addresses memory can't be chosen, even under a check sum that fits."""
    layout = libcrypto.LAYOUTS["sha256"]
    state = bytearray(exported())
    context = len(state) - 4 - layout.context_size
    filling = context + layout.filling_offset
    position = data.draw(st.integers(filling, filling + 7))
    state[position] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(HashStateInvalidError):
        ResumableHasher(Algorithm.SHA256, resealed(bytes(state)), size=100)


def test_a_state_of_the_other_byte_order_is_refused() -> None:
    """A state is memory: on a machine of the other byte order it would mean something else."""
    state = exported()
    ours, other = (b"<", b">") if sys.byteorder == "little" else (b">", b"<")
    assert state[12:13] == ours

    with pytest.raises(HashStateInvalidError):
        ResumableHasher(Algorithm.SHA256, resealed(state[:12] + other + state[13:]), size=100)


def test_without_libcrypto_digests_are_right_and_states_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no libcrypto can be had, callers get None and read again."""
    monkeypatch.setattr(libcrypto, "load", lambda: None)
    hasher = ResumableHasher()

    hasher.update(b"content")

    assert hasher.digest() == Digest.of(b"content")
    assert hasher.export_state() is None
    with pytest.raises(HashStateInvalidError):
        ResumableHasher(Algorithm.SHA256, b"any", size=7)


def test_the_length_may_exceed_one_word() -> None:
    """Past 512 MiB the bits need a second word: the check of a state knows."""
    layout = libcrypto.LAYOUTS["sha256"]
    library = libcrypto.load()
    assert library is not None
    piece = bytes(64 << 20)
    running = libcrypto.Sha2(library, layout)
    expected = hashlib.sha256()
    for _ in range(9):
        running.update(piece)
        expected.update(piece)

    assert libcrypto.context_fits(layout, running.context(), 9 * len(piece))
    assert not libcrypto.context_fits(layout, running.context(), len(piece))
    assert libcrypto.Sha2(library, layout, running.context()).digest() == expected.digest()
