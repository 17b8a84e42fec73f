"""Values that lie elsewhere, inside a setting.

``${env:NAME}`` is an environment variable, ``${file:PATH}`` a file's content, ``${secret:NAME#KEY}`` a key of a secret
in AWS Secrets Manager, ``${ssm:NAME}`` a parameter of AWS Systems Manager.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from roadstead.errors import InvalidError

_REFERENCE = re.compile(r"\$(?:(?P<literal>\$)(?=\{)|\{(?P<kind>[A-Za-z0-9_-]*):?(?P<name>[^}]*)\})")
# The user and password of a URL, as they are written: references among them may hold anything.
_CREDENTIALS = re.compile(r"[a-z0-9+]+://(?:\$\{[^}]*\}|[^/?#@$]|\$(?!\{))*@", re.IGNORECASE)
_PEM = "-----BEGIN "
_KNOWN = "${env:NAME}, ${file:PATH}, ${secret:NAME#KEY} and ${ssm:NAME}"


class ReferenceInvalidError(InvalidError):
    """A reference in a setting can't be followed; ``id`` is its name among findings (deployment spec §9.4), if any."""

    def __init__(self, message: str, finding: str | None = None, advice: str | None = None) -> None:
        super().__init__(message)
        self.id = finding
        self._advice = advice

    def advice(self) -> str | None:
        """Return what could be tried next, where that is known."""
        return self._advice


def blanks_around(value: str) -> str | None:
    """Say what is wrong with a value that is blank, or has blanks or a line's end around it; None: nothing. Pure.

    Around PEM they mean nothing (RFC 7468 §2).
    """
    if value == value.strip() or value.lstrip().startswith(_PEM):
        return None
    return "blanks or a line's end around it" if value.strip() else "nothing but blanks"


def find_references(text: str) -> tuple[str, ...]:
    """Return the references in a text as they are written; they tell a place, never a value."""
    return tuple(match[0] for match in _REFERENCE.finditer(text) if match["kind"] is not None)


def resolve_references(text: str, *, environment: Mapping[str, str], directory: Path) -> str:
    """Put what is referred to in its place; ``$${`` stands for ``${`` itself.

    A relative file is sought in `directory`; one newline at a file's end is no part of the value.
    What came in is not searched again. Raises ReferenceInvalidError, also where blanks are around what came in.
    """

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return "$"
        return _usable(match[0], _follow(match[0], match["kind"], match["name"], environment, directory))

    return _REFERENCE.sub(value, text)


def resolve_url_references(text: str, *, environment: Mapping[str, str], directory: Path) -> str:
    """Put what is referred to in its place in a URL; raises ReferenceInvalidError.

    In the user and the password, whose ends `:`, `@` and `/` mark, what comes in is percent-encoded (RFC 3986 §2.4,
    §3.2.1), so that a password may hold any character. Elsewhere it comes as it is: it may be a path, or a whole URL.
    """
    credentials = _CREDENTIALS.match(text)
    end = credentials.end() if credentials else 0

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return "$"
        found = _usable(match[0], _follow(match[0], match["kind"], match["name"], environment, directory))
        return quote(found, safe="") if match.end() <= end else found

    return _REFERENCE.sub(value, text)


def _usable(written: str, value: str) -> str:
    """Return what a reference led to; an empty variable may stand for nothing, blanks are nobody's intention."""
    wrong = blanks_around(value)
    if wrong is not None:
        message = f"what {written} refers to has {wrong}"
        raise ReferenceInvalidError(message, "secret.whitespace", "Store it again without them.")
    return value


def _follow(written: str, kind: str, name: str, environment: Mapping[str, str], directory: Path) -> str:
    if kind == "env" and name:
        if name not in environment:
            raise ReferenceInvalidError(
                f"{written} refers to an environment variable that is not set", "secret.missing"
            )
        return environment[name]
    if kind == "file" and name:
        path = directory / name
        try:
            return path.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            message = f"{written} refers to {path}, which cannot be read: {reason}"
            raise ReferenceInvalidError(message, "secret.missing") from error
    if kind in ("secret", "ssm") and name.strip("#"):
        return _from_aws(written, kind, name)
    raise ReferenceInvalidError(f"{written} is not a reference; known are {_KNOWN}")


def _from_aws(written: str, kind: str, name: str) -> str:
    # AWS's library takes longer to load than everything else at the start.
    from roadstead.settings.aws_values import ValueMissingError, parameter_value, secret_value

    try:
        return secret_value(name) if kind == "secret" else parameter_value(name)
    except ValueMissingError as error:
        raise ReferenceInvalidError(f"{written}: {error}", error.id, error.advice()) from error


def read_value_file(path: Path) -> str:
    """Return the value that a file holds, without one newline at its end, as a `…_FILE` variable names it.

    Raises ReferenceInvalidError where it can't be read or is blank: a file that was never written is no value.
    """
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ReferenceInvalidError(f"{path} cannot be read: {reason}", "secret.missing") from error
    if not text:
        raise ReferenceInvalidError(f"{path} is empty", "secret.empty")
    if not text.strip():
        raise ReferenceInvalidError(f"{path} has nothing but blanks", "secret.whitespace")
    return text
