"""YAML 1.1 as a tree that keeps what was written: each scalar's own text, and where everything came from.

Reading it into numbers and truth values is left to whoever knows what a key takes: `0123` may be a password.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from roadstead.errors import InvalidError
from roadstead.settings.origin import Origin

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTH = re.compile(r"(?P<yes>y|yes|true|on)|n|no|false|off", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9](?:_?[0-9]){0,17}")
_MAX_NODES = 50_000
_MAX_DEPTH = 40


class YamlInvalidError(InvalidError):
    """A text isn't YAML, or not a table where one is needed."""


@dataclass(slots=True)
class Scalar:
    """One value as it was written; ``plain``: without quotes, so that it may be null, a number or a truth value."""

    text: str
    plain: bool
    origin: Origin

    @property
    def is_null(self) -> bool:
        """Say whether nothing is said here."""
        return self.plain and self.text in _NULL

    @property
    def truth(self) -> bool | None:
        """Return the truth value, None if it isn't one."""
        match = _TRUTH.fullmatch(self.text) if self.plain else None
        return None if match is None else match["yes"] is not None

    @property
    def number(self) -> int | None:
        """Return the whole number, None if it isn't one."""
        return int(self.text) if self.plain and _WHOLE_NUMBER.fullmatch(self.text) else None


@dataclass(slots=True)
class Table:
    """Values by name."""

    origin: Origin
    children: dict[str, "Node"] = field(default_factory=dict)


@dataclass(slots=True)
class Row:
    """Values in order."""

    origin: Origin
    items: list["Node"] = field(default_factory=list)


Node = Scalar | Table | Row

Locate = Callable[[str], Origin]
"""Gives the origin of what lies at a path, such as ``http.headers`` or ``health.file[0]``."""


def parse_yaml(text: str, locate: Locate, duplicate: Callable[[str], None]) -> Node | None:
    """Return the tree of one YAML document, None for an empty one; raises YamlInvalidError.

    Of a key that comes twice the last counts, as with distribution; `duplicate` is told its path. Only YAML's own
    types are read: a tag that would make an object is an error.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        return None if root is None else _Reader(loader, locate, duplicate).read(root, "", 0)
    except yaml.MarkedYAMLError as error:
        raise YamlInvalidError(_told(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlInvalidError(str(error)) from error


class _Reader:
    """Turns PyYAML's nodes into ours; an alias becomes a copy, so a document of aliases to aliases is cut short."""

    def __init__(self, loader: yaml.SafeLoader, locate: Locate, duplicate: Callable[[str], None]) -> None:
        self._loader = loader
        self._locate = locate
        self._duplicate = duplicate
        self._count = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Node:
        self._count += 1
        if self._count > _MAX_NODES or depth > _MAX_DEPTH:
            raise YamlInvalidError(f"it has more than {_MAX_NODES} values or {_MAX_DEPTH} levels")
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
            raise YamlInvalidError(f"line {node.start_mark.line + 1}: the type {node.tag} is not known")
        origin = self._locate(path)
        if isinstance(node, yaml.ScalarNode):
            return Scalar(node.value, plain=node.style is None, origin=origin)
        if isinstance(node, yaml.SequenceNode):
            return Row(origin, [self.read(each, f"{path}[{at}]", depth + 1) for at, each in enumerate(node.value)])
        return self._table(node, origin, path, depth)

    def _table(self, node: Any, origin: Origin, path: str, depth: int) -> Table:
        written = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in written.items():
            if times > 1 and name != "<<":
                self._duplicate(_joined(path, name))
        self._loader.flatten_mapping(node)
        table = Table(origin)
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise YamlInvalidError(f"line {key.start_mark.line + 1}: a key is a text")
            table.children[key.value] = self.read(value, _joined(path, key.value), depth + 1)
        return table


def as_text(node: Node) -> object:
    """Return texts, lists and tables of texts."""
    match node:
        case Scalar():
            return node.text
        case Row():
            return [as_text(each) for each in node.items]
        case Table():
            return {name: as_text(each) for name, each in node.children.items()}


def plain_value(node: Scalar) -> str | int | bool:
    """Return a scalar as the truth value or the number that it is, else its text."""
    if node.truth is not None and len(node.text) > 1:  # a lone y is a text more often than not
        return node.truth
    return node.text if node.number is None else node.number


def find(root: Table, path: str) -> Node | None:
    """Return what lies at a dotted path, None where nothing does or nothing is said."""
    node: Node = root
    for name in path.split("."):
        children: Mapping[str, Node] = node.children if isinstance(node, Table) else {}
        if name not in children:
            return None
        node = children[name]
    return None if isinstance(node, Scalar) and node.is_null else node


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _told(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{error.problem or error.context}"
