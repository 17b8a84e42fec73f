"""Values that lie elsewhere: ``${env:NAME}`` and ``${file:PATH}`` inside a setting."""

import re
from collections.abc import Mapping
from pathlib import Path

from roadstead.errors import InvalidError

_REFERENCE = re.compile(r"\$(?:(?P<literal>\$)(?=\{)|\{(?P<kind>[A-Za-z0-9_-]*):?(?P<name>[^}]*)\})")
_LATER = frozenset({"secret", "ssm"})


class ReferenceInvalidError(InvalidError):
    """A reference in a setting can't be followed."""


def find_references(text: str) -> tuple[str, ...]:
    """Return the references in a text as they are written; they tell a place, never a value."""
    return tuple(match[0] for match in _REFERENCE.finditer(text) if match["kind"] is not None)


def resolve_references(text: str, *, environment: Mapping[str, str], directory: Path) -> str:
    """Put what is referred to in its place; ``$${`` stands for ``${`` itself.

    A relative file is sought in `directory`; one newline at a file's end is no part of the value.
    What came in is not searched again. Raises ReferenceInvalidError.
    """

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return "$"
        return _follow(match[0], match["kind"], match["name"], environment, directory)

    return _REFERENCE.sub(value, text)


def _follow(written: str, kind: str, name: str, environment: Mapping[str, str], directory: Path) -> str:
    if kind == "env" and name:
        if name not in environment:
            raise ReferenceInvalidError(f"{written} refers to an environment variable that is not set")
        return environment[name]
    if kind == "file" and name:
        path = directory / name
        try:
            return path.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ReferenceInvalidError(f"{written} refers to {path}, which cannot be read: {reason}") from error
    if kind in _LATER:
        raise ReferenceInvalidError(
            f"{written}: references to {kind} are not supported yet; use ${{env:NAME}} or ${{file:PATH}}"
        )
    raise ReferenceInvalidError(f"{written} is not a reference; known are ${{env:NAME}} and ${{file:PATH}}")
