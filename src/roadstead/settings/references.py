"""Values that lie elsewhere, inside a setting.

``${env:NAME}`` is an environment variable, ``${file:PATH}`` a file's content, ``${secret:NAME#KEY}`` a key of a secret
in AWS Secrets Manager, ``${ssm:NAME}`` a parameter of AWS Systems Manager.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from roadstead.errors import InvalidError

_REFERENCE = re.compile(
    r"\$(?:(?P<literal>\$)(?=\{)|\{(?P<kind>[A-Za-z0-9_-]*):?(?P<name>(?:[^}$]|\$(?!\{))*)(?P<end>\}?))"
)
# The user and password of a URL, as they are written: references among them may hold anything.
_CREDENTIALS = re.compile(r"[a-z0-9+]+://(?:\$\{[^}]*\}|[^/?#@$]|\$(?!\{))*@", re.IGNORECASE)
_PEM = "-----BEGIN "
_KINDS = frozenset({"env", "file", "secret", "ssm"})
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
    return tuple(match[0] for match in _REFERENCE.finditer(text) if match["end"])


def resolve_references(text: str, *, environment: Mapping[str, str], directory: Path, foreign: bool = False) -> str:
    """Put what is referred to in its place; ``$${`` stands for ``${`` itself.

    A relative file is sought in `directory`; one newline at a file's end is no part of the value. What came in is not
    searched again. `foreign`: a ``${`` that begins no reference of ours and has no end is the text's own.
    Raises ReferenceInvalidError, also where what came in is empty, or has blanks around it.
    """

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return "$"
        if foreign and not match["end"] and match["kind"] not in _KINDS:
            return match[0]
        return _value(match, environment, directory)

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
        found = _value(match, environment, directory)
        return quote(found, safe="") if match.end() <= end else found

    return _REFERENCE.sub(value, text)


def _value(match: re.Match[str], environment: Mapping[str, str], directory: Path) -> str:
    """Return what a reference leads to: something, and no blanks around it, which are nobody's intention."""
    if not match["end"]:
        # Not all of it: what stands behind may be meant as something else, be it a secret.
        begins = f"${{{match['kind']}:{_beginning(match['name'])}" if match["kind"] in _KINDS else "${"
        advice = "Close it, as in ${env:NAME}; a plain ${ is written $${."
        raise ReferenceInvalidError(f"{begins}… is a reference without the }} at its end", advice=advice)
    value = _follow(match[0], match["kind"], match["name"], environment, directory)
    if not value:
        # Whoever refers to something means it to be there; to go on without it would be to serve more openly than was
        # said, or from elsewhere.
        advice = "Give it a value, or take the setting out."
        raise ReferenceInvalidError(f"what {match[0]} refers to is empty", "secret.empty", advice)
    wrong = blanks_around(value)
    if wrong is not None:
        message = f"what {match[0]} refers to has {wrong}"
        raise ReferenceInvalidError(message, "secret.whitespace", "Store it again without them.")
    return value


def _beginning(name: str) -> str:
    return re.split(r"[^\w./-]", name, maxsplit=1)[0]


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
            reason, finding = _unreadable(error)
            raise ReferenceInvalidError(
                f"{written} refers to {path}, which cannot be read: {reason}", finding
            ) from error
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


def read_value_file(name: str, directory: Path = Path()) -> str:
    """Return the value that a file holds, without one newline at its end, as a `…_FILE` variable names it.

    Raises ReferenceInvalidError where none is named, or it can't be read or is blank: a file that was never written is
    no value.
    """
    if not name:
        advice = "Give the variable a path, or leave it out."
        raise ReferenceInvalidError("is empty, and names no file", "secret.empty", advice)
    path = directory / name
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason, finding = _unreadable(error)
        raise ReferenceInvalidError(f"{path} cannot be read: {reason}", finding) from error
    if not text:
        raise ReferenceInvalidError(f"{path} is empty", "secret.empty")
    if not text.strip():
        raise ReferenceInvalidError(f"{path} has nothing but blanks", "secret.whitespace")
    return text


def _unreadable(error: OSError | UnicodeDecodeError) -> tuple[str, str]:
    """Say why a file can't be read, and the finding's name."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8", "secret.binary"
    told = error.strerror or str(error)
    return told, "secret.denied" if isinstance(error, PermissionError) else "secret.missing"
