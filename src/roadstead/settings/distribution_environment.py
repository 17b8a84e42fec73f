"""distribution's ``REGISTRY_…`` variables, laid over what its file says.

They come in the order of their names, so parents before children: ``REGISTRY_STORAGE=s3`` replaces the section, and
``REGISTRY_STORAGE_S3_BUCKET`` then adds to it. Names are cut at every underscore. A value is YAML. A list is filled by
position, one past its end appends. In the sections that are maps a variable makes any key, elsewhere an unknown one is
left out with a warning.

Ours beyond that: ``REGISTRY_…_FILE`` names a file with the value of any single key, and a section can be named as the
file names it where distribution's variables know only its internal name.
"""

import re
from collections.abc import Mapping, Sequence

from roadstead.settings.distribution_keys import BY_PATH, FIELD_NAMES, FREE_NAMES, KEYS, LISTS, Kind
from roadstead.settings.findings import Finding, nearest
from roadstead.settings.origin import Origin, OriginKind
from roadstead.settings.references import ReferenceInvalidError, read_value_file
from roadstead.settings.yaml_tree import Node, Row, Scalar, Table, YamlInvalidError, parse_yaml

PREFIX = "REGISTRY_"
CONFIGURATION_PATH = "REGISTRY_CONFIGURATION_PATH"

# A Kubernetes Service called `registry` (or `registry-web`) puts these into every pod of its namespace.
_SERVICE_LINK = re.compile(
    r"REGISTRY_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_VALUE = re.compile(r"(?:tcp|udp|sctp)(?:://\S+)?|[0-9]{1,5}|[0-9.]{7,15}|[0-9A-Fa-f:]{2,45}")
_FILE = "FILE"


class _VariableError(Exception):
    """A variable can't be laid over the file; the text says why, ``id`` names what a file lacks."""

    def __init__(self, message: str, finding: str | None = None) -> None:
        super().__init__(message)
        self.id = finding


class _IgnoredError(Exception):
    """A variable names nothing; the text may say what is near."""


def section_names() -> Mapping[str, frozenset[str]]:
    """Return the names that each section knows: ``http`` has ``addr``, ``tls``, …; the root is the empty path."""
    names: dict[str, set[str]] = {"": {"version"}}
    for key in KEYS:
        parts = key.path.split(".")
        for size in range(len(parts)):
            names.setdefault(".".join(parts[:size]), set()).add(parts[size])
    return {path: frozenset(known) for path, known in names.items()}


SECTIONS = section_names()


def apply_variables(
    root: Table, environment: Mapping[str, str], findings: list[Finding], warnings: list[Finding]
) -> None:
    """Lay every variable over the tree; what can't be is a finding, what names nothing a warning."""
    for name in sorted(environment):
        value = environment[name]
        if not name.startswith(PREFIX) or name == CONFIGURATION_PATH:
            continue
        if _SERVICE_LINK.fullmatch(name) and _SERVICE_VALUE.fullmatch(value):
            continue
        parts = name[len(PREFIX) :].split("_")
        try:
            if _names_file(parts):
                if name.removesuffix("_FILE") in environment:
                    raise _VariableError(f"{name.removesuffix('_FILE')} is set too: set one of them")
                parts = parts[:-1]
                node: Node = _from_file(name, value)
            else:
                node = _parsed(name, value, warnings)
            if parts == ["AUTH"] and not value.strip() and isinstance(root.children.get("auth"), Table):
                told = "the variable is empty and takes the section out: nobody has to sign in by it"
                warnings.append(Finding("auth", told, name))
            _put(root, "", parts, node)
        except _VariableError as error:
            findings.append(Finding(_dotted(parts), str(error), name, id=error.id))
        except _IgnoredError as ignored:
            warnings.append(Finding(_dotted(parts), f"the variable names no key and is left out{ignored}", name))


def named_table(path: str, node: Node) -> Node:
    """Return ``storage: NAME`` and ``auth: NAME`` as the table that they stand for; other nodes as they are."""
    if path in ("storage", "auth") and isinstance(node, Scalar) and not node.is_null:
        return Table(node.origin, {node.text: Table(node.origin)})
    return node


def _names_file(parts: Sequence[str]) -> bool:
    key = BY_PATH.get(_dotted(parts[:-1])) if parts[-1] == _FILE else None
    return key is not None and key.kind not in (Kind.HEADERS, Kind.FIELDS) and key.path not in LISTS


def _dotted(parts: Sequence[str]) -> str:
    """Return the key that a variable's parts name: ``NOTIFICATIONS_EVENTCONFIG`` is ``notifications.events``."""
    return ".".join(FIELD_NAMES.get("_".join(parts[: at + 1]), part.lower()) for at, part in enumerate(parts))


def _from_file(name: str, path: str) -> Scalar:
    try:
        text = read_value_file(path)
    except ReferenceInvalidError as error:
        raise _VariableError(str(error), error.id) from error
    return Scalar(text, plain=True, origin=Origin(OriginKind.ENVIRONMENT, name))


def _parsed(name: str, value: str, warnings: list[Finding]) -> Node:
    origin = Origin(OriginKind.ENVIRONMENT, name)

    def twice(path: str) -> None:
        warnings.append(Finding(path, "is written twice; the last one counts", name))

    try:
        node = parse_yaml(value, lambda _: origin, twice)
    except YamlInvalidError as error:
        raise _VariableError(f"the value is not YAML: {error}") from error
    return Scalar("", plain=True, origin=origin) if node is None else node


def _put(table: Table, path: str, parts: Sequence[str], value: Node) -> None:
    """Set the value in the table at what the parts name, making what is missing on the way."""
    name = _child_name(table, path, parts[0])
    inner = f"{path}.{name}" if path else name
    table.children[name] = _placed(table.children.get(name), inner, parts[1:], value)


def _placed(existing: Node | None, path: str, parts: Sequence[str], value: Node) -> Node:
    """Return what stands at the path once the value was set at what the parts name below it."""
    if not parts:
        return named_table(path, value)
    if path in LISTS or isinstance(existing, Row):
        return _in_row(existing, path, parts, value)
    if existing is None or (isinstance(existing, Scalar) and existing.is_null):
        existing = Table(value.origin)
    if not isinstance(existing, Table):
        raise _IgnoredError
    _put(existing, path, parts, value)
    return existing


def _in_row(existing: Node | None, path: str, parts: Sequence[str], value: Node) -> Row:
    row = existing if isinstance(existing, Row) else Row(value.origin)
    if not parts[0].isascii() or not parts[0].isdigit():
        raise _VariableError(f"{path} is a list: a position such as 0 stands behind it, not {parts[0]}")
    position = int(parts[0][:9])
    if position > len(row.items):
        raise _VariableError(f"{path} has {len(row.items)} entries, so the next position is {len(row.items)}")
    if position == len(row.items):
        row.items.append(_placed(None, f"{path}[{position}]", parts[1:], value))
    else:
        row.items[position] = _placed(row.items[position], f"{path}[{position}]", parts[1:], value)
    return row


def _child_name(table: Table, path: str, part: str) -> str:
    """Return the key that a part names here; raises _IgnoredError where it names none."""
    name = FIELD_NAMES.get(f"{path.upper()}_{part}", part.lower())
    for present in table.children:
        if present.upper() == name.upper():
            return present
    known = SECTIONS.get(path)
    if known is not None and name not in known and path.partition(".")[0] not in FREE_NAMES:
        raise _IgnoredError(nearest(name, known))
    if not path and name == "version":
        raise _IgnoredError("; the file alone says the version")
    if not name:
        raise _IgnoredError
    return name
