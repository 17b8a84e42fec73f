"""A disk as POSIX promises it and no better: every state that may be found after the power was cut.

A file's bytes and size are durable once that file was flushed; what was written since may be lost, kept, or kept in
part, sector by sector and in any order. A name is durable once its folder was flushed; changes of names since may
be lost, or kept, in the order in which each folder saw them. A rename happens whole: its old name may outlive it,
but the file has one name at least. Nothing is taken back that was flushed.

This allows more than ext4, XFS and btrfs do (flushing a new file there makes its name durable too, and changes of
names keep one order among all folders): what holds here holds there.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from roadstead.testing.powercut.trace import Call, TraceError

SECTOR: Final = 512
PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written or, with `size`, a file cut or extended; not flushed yet."""

    number: int  # of the call
    position: int = 0
    data: bytes = b""
    size: int | None = None


@dataclass(eq=False, slots=True)
class File:
    """A file's durable bytes, and what was done since."""

    durable: bytes = b""
    pending: list[Write] = field(default_factory=list)

    def flush(self, before: int) -> None:
        """Make the calls before that number durable."""
        done = [write for write in self.pending if write.number < before]
        self.durable = _written(self.durable, done)
        self.pending = [write for write in self.pending if write.number >= before]

    def latest(self) -> bytes:
        """Return what a reader saw before the power went."""
        return _written(self.durable, self.pending)

    def zeros(self) -> bytes:
        """Return the latest size over the durable bytes: a file system that kept the size and lost the data."""
        return self.durable[: (size := len(self.latest()))].ljust(size, b"\0")

    def torn(self, choice: random.Random) -> bytes:
        """Return the durable bytes with some sectors of some later writes."""
        sector = choice.choice((SECTOR, PAGE))
        kept: list[Write] = []
        for write in self.pending:
            fate = choice.random()
            if write.size is not None or fate < 0.3:
                kept += [write] if fate < 0.6 else []
            elif fate < 0.8:
                kept += [piece for piece in _pieces(write, sector) if choice.random() < 0.5]
        return _written(self.durable, kept)


@dataclass(frozen=True, slots=True)
class Naming:
    """A change of a folder's entries that isn't flushed yet; `node` None: the name is removed."""

    number: int
    name: str
    node: "File | Folder | None"
    needs: "Folder | None" = None  # the old name of a rename: it goes only where the new one has come, in this folder


@dataclass(eq=False, slots=True)
class Folder:
    """A folder's durable entries, and the changes since."""

    durable: "dict[str, File | Folder]" = field(default_factory=dict)
    pending: list[Naming] = field(default_factory=list)
    latest: "dict[str, File | Folder]" = field(default_factory=dict)

    def change(self, naming: Naming) -> None:
        """Do what every process sees at once."""
        self.pending.append(naming)
        _name(self.latest, naming)

    def flush(self, before: int) -> None:
        """Make the changes before that number durable, and with an old name's going the new name's coming."""
        for naming in self.pending:
            if naming.number < before:
                if naming.needs is not None and naming.needs is not self:
                    naming.needs.flush_one(naming.number)
                _name(self.durable, naming)
        self.pending = [naming for naming in self.pending if naming.number >= before]

    def flush_one(self, number: int) -> None:
        """Make what one call did durable, and what was done to the same names before."""
        names = {naming.name for naming in self.pending if naming.number == number}
        for naming in self.pending:
            if naming.number <= number and naming.name in names:
                _name(self.durable, naming)
        self.pending = [naming for naming in self.pending if naming.number > number or naming.name not in names]


_Choose = Callable[[Folder], "dict[str, File | Folder]"]
_Read = Callable[[File], bytes]


@dataclass(frozen=True, slots=True)
class State:
    """What lies on the disk after the power cut: files by path relative to the root, and folders."""

    label: str
    files: dict[str, bytes]
    folders: tuple[str, ...]  # parents first

    def write_to(self, root: Path) -> None:
        """Lay it out below a new directory."""
        root.mkdir()
        for folder in self.folders:
            (root / folder).mkdir()
        for path, data in self.files.items():
            (root / path).write_bytes(data)


class Disk:
    """Everything below `root`, which is there and durable; calls are applied in their order.

    Files whose name ends in one of `lost` are no part of any state: memory that several processes map.
    """

    def __init__(self, root: Path, *, lost: Sequence[str] = ("-shm",)) -> None:
        self._prefix = f"{root}/"
        self._root = Folder()
        self._lost = tuple(lost)
        self._count = 0

    def apply(self, call: Call) -> None:
        """Do what the call did."""
        number = self._count
        self._count += 1
        if call.path.endswith(self._lost):
            return
        match call.name:
            case "create":
                self._create(call.path, number)
            case "mkdir":
                folder, name = self._place(call.path)
                folder.change(Naming(number, name, Folder()))
            case "unlink":
                folder, name = self._place(call.path)
                folder.change(Naming(number, name, None))
            case "rename":
                self._rename(call, number)
            case "write":
                self._file(call.path).pending.append(Write(number, call.position, call.data))
            case "truncate":
                self._file(call.path).pending.append(Write(number, size=call.position))
            case "flush":
                self._node(call.path).flush(call.began_after)
            case "nothing":
                pass
            case _:
                raise TraceError(f"unknown call {call}")

    def states(self, choice: random.Random, mixtures: int) -> Iterator[State]:
        """Yield what may be found if the power goes now: the extremes, and so many mixtures."""
        yield self._state("only what is promised", _no_names, lambda file: file.durable)
        yield self._state("everything", _all_names, File.latest)
        yield self._state("all names, no data", _all_names, lambda file: file.durable)
        yield self._state("all names and sizes, no data", _all_names, File.zeros)
        yield self._state("all data, no names", _no_names, File.latest)
        for number in range(mixtures):
            yield self._state(f"mixture {number}", _Mixture(choice), lambda file: file.torn(choice))

    def promised(self) -> State:
        """Return the state that has only what is promised."""
        return self._state("only what is promised", _no_names, lambda file: file.durable)

    def _state(self, label: str, names: _Choose, data: _Read) -> State:
        files: dict[str, bytes] = {}
        folders: list[str] = []
        waiting: list[tuple[str, Folder]] = [("", self._root)]
        while waiting:
            prefix, folder = waiting.pop()
            for name, node in names(folder).items():
                if isinstance(node, Folder):
                    folders.append(prefix + name)
                    waiting.append((f"{prefix}{name}/", node))
                else:
                    files[prefix + name] = data(node)
        return State(label, files, tuple(folders))

    def _create(self, path: str, number: int) -> None:
        folder, name = self._place(path)
        if name not in folder.latest:
            folder.change(Naming(number, name, File()))

    def _rename(self, call: Call, number: int) -> None:
        source, old = self._place(call.path)
        target, new = self._place(call.target)
        node = source.latest[old]
        target.change(Naming(number, new, node))
        source.change(Naming(number, old, None, needs=target))

    def _place(self, path: str) -> tuple[Folder, str]:
        parent, _, name = path.removeprefix(self._prefix).rpartition("/")
        folder = self._node(parent) if parent else self._root
        if not isinstance(folder, Folder):
            raise TraceError(f"{path} lies in a file")
        return folder, name

    def _file(self, path: str) -> File:
        node = self._node(path)
        if not isinstance(node, File):
            raise TraceError(f"{path} is a folder")
        return node

    def _node(self, path: str) -> File | Folder:
        node: File | Folder = self._root
        if f"{path}/" == self._prefix:
            return node
        for name in path.removeprefix(self._prefix).split("/"):
            if not isinstance(node, Folder) or name not in node.latest:
                raise TraceError(f"{path} was never made")
            node = node.latest[name]
        return node


class _Mixture:
    """Chooses for each folder which of the changes since its last flush have reached the disk."""

    def __init__(self, choice: random.Random) -> None:
        self._choice = choice
        self._in_order = choice.random() < 0.5
        self._kept: dict[tuple[int, int], bool] = {}  # (folder, call)
        self._until = choice.random()

    def __call__(self, folder: Folder) -> "dict[str, File | Folder]":
        entries = dict(folder.durable)
        for naming in folder.pending:
            if self._keeps(folder, naming) and (naming.needs is None or self._has_come(naming)):
                _name(entries, naming)
        return entries

    def _keeps(self, folder: Folder, naming: Naming) -> bool:
        key = id(folder), naming.number
        if key not in self._kept:
            if self._in_order:
                position = folder.pending.index(naming) / max(1, len(folder.pending))
                self._kept[key] = position < self._until
            else:
                self._kept[key] = self._choice.random() < 0.5
        return self._kept[key]

    def _has_come(self, naming: Naming) -> bool:
        assert naming.needs is not None
        coming = [other for other in naming.needs.pending if other.number == naming.number and other.node is not None]
        return not coming or self._keeps(naming.needs, coming[0])


def _no_names(folder: Folder) -> "dict[str, File | Folder]":
    return folder.durable


def _all_names(folder: Folder) -> "dict[str, File | Folder]":
    return folder.latest


def _name(entries: "dict[str, File | Folder]", naming: Naming) -> None:
    if naming.node is None:
        entries.pop(naming.name, None)
    else:
        entries[naming.name] = naming.node


def _written(durable: bytes, writes: Sequence[Write]) -> bytes:
    if not writes:
        return durable
    data = bytearray(durable)
    for write in writes:
        if write.size is not None:
            del data[write.size :]
            data += bytes(write.size - len(data))
        else:
            data += bytes(max(0, write.position - len(data)))
            data[write.position : write.position + len(write.data)] = write.data
    return bytes(data)


def _pieces(write: Write, sector: int) -> Iterator[Write]:
    """Yield the write cut where sectors of the file begin."""
    position = write.position
    end = position + len(write.data)
    while position < end:
        following = min(end, (position // sector + 1) * sector)
        yield Write(write.number, position, write.data[position - write.position : following - write.position])
        position = following
