"""Which parts of a blob a Range header asks for, and how they are read: pure (RFC 9110 §14, registry spec §1.6)."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from roadstead.errors import InvalidError

MAX_PARTS = 1000
"""More parts than this in one header is no client's need; the whole blob is the lawful answer."""


NEAR = 1 << 20
"""Parts with fewer bytes than this between them are read at once: a bucket sends so many while it answers anew."""

MAX_READS = 64
"""More reads than this for one answer aren't done, each of which is a request to a bucket: then the whole is given."""


class RangeUnsatisfiableError(InvalidError):
    """Nothing of what Range asks for is there (416 with the content's size)."""

    def __init__(self, total: int) -> None:
        super().__init__(f"nothing of the range lies in the {total} bytes that there are")
        self.total = total


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` up to `start + size`."""

    start: int
    size: int

    def content_range(self, total: int) -> str:
        """Return the header's value; on the wire both ends are inclusive."""
        return f"bytes {self.start}-{self.start + self.size - 1}/{total}"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes that are read at once, and the parts that are cut out of them, in order."""

    start: int
    size: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Whole:
    """The header is absent, not ours to honour, or better answered with everything."""


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """416: nothing of what was asked is there."""


def parse_range(text: str | None, total: int) -> Whole | Unsatisfiable | tuple[Part, ...]:
    """Return the parts in the order asked, one for each range.

    containers/image asks for neighbouring ranges and counts the parts, so they are never merged; sets that overlap,
    go backwards or are larger than the blob are answered whole.
    """
    if text is None or not text.startswith("bytes="):
        return Whole()
    wanted = text[len("bytes=") :].split(",")
    if len(wanted) > MAX_PARTS:
        return Whole()
    parts: list[Part] = []
    for item in wanted:
        part = _parse_part(item.strip(), total)
        if part is None:
            return Whole()
        if part.size > 0:
            parts.append(part)
    if not parts:
        return Unsatisfiable()
    return tuple(parts) if _is_plain(parts, total) else Whole()


def _parse_part(text: str, total: int) -> Part | None:
    """Return one range clipped to the blob, empty where it lies outside; None where it isn't a range."""
    first, dash, last = text.partition("-")
    if not dash or not (first or last) or not all(_is_number(number) for number in (first, last) if number):
        return None
    if not first:
        size = min(int(last), total)
        return Part(total - size, size)
    start = int(first)
    end = min(int(last), total - 1) if last else total - 1
    return Part(start, max(0, end - start + 1))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


def _is_plain(parts: list[Part], total: int) -> bool:
    if sum(part.size for part in parts) > total:
        return False
    return all(before.start + before.size <= after.start for before, after in pairwise(parts))


def together(parts: Sequence[Part], *, near: int = NEAR) -> tuple[Stretch, ...]:
    """Return the stretches to read for parts in ascending order."""
    groups: list[list[Part]] = []
    for part in parts:
        if groups and part.start - (groups[-1][-1].start + groups[-1][-1].size) < near:
            groups[-1].append(part)
        else:
            groups.append([part])
    return tuple(
        Stretch(group[0].start, group[-1].start + group[-1].size - group[0].start, tuple(group)) for group in groups
    )


async def cut(stretch: Stretch, pieces: AsyncIterator[bytes]) -> AsyncGenerator[tuple[Part, bytes | None], None]:
    """Yield each part with None, where it begins, and then with its bytes; what lies between parts falls away."""
    parts = iter(stretch.parts)
    part = next(parts)
    position, given = stretch.start, 0
    yield part, None
    async for piece in pieces:
        offset = 0
        while offset < len(piece):
            begin = max(offset, part.start + given - position)
            taken = piece[begin : begin + part.size - given]
            if not taken:
                break  # the rest of the piece lies before the part
            yield part, taken
            given += len(taken)
            offset = begin + len(taken)
            if given == part.size:
                following = next(parts, None)
                if following is None:
                    return
                part, given = following, 0
                yield part, None
        position += len(piece)


def parse_content_range(text: str) -> tuple[int, int] | None:
    """Return (start, size) of a chunk's Content-Range, None where it isn't one.

    The spec's form is ``<start>-<end>``; some clients write ``bytes <start>-<end>/<total>``.
    """
    text = text.removeprefix("bytes ").partition("/")[0].strip()
    first, dash, last = text.partition("-")
    if not dash or not _is_number(first) or not _is_number(last) or int(last) < int(first):
        return None
    return int(first), int(last) - int(first) + 1
