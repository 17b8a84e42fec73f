"""An image's configuration (image-spec config.md): a parsed view that keeps the bytes it came in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from roadstead.errors import InvalidError
from roadstead.oci.descriptor import DescriptorInvalidError, Platform
from roadstead.oci.digest import Digest, DigestInvalidError
from roadstead.oci.strict_json import JsonInvalidError, JsonObject, kind, parse_object


class ImageConfigInvalidError(InvalidError):
    """Bytes aren't an image config; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid image config: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class History:
    """How one layer came to be (image-spec config.md, ``history``); ``empty_layer``: without leaving a layer."""

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    author: str | None = None
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an engine starts a container with. Made by ``ImageConfig.parse``; changed by ``oci.mutate``."""

    raw: bytes = field(repr=False)
    digest: Digest
    """SHA-256 of ``raw``."""

    platform: Platform
    env: tuple[str, ...]
    """``NAME=value``, in order; the last of one name wins."""

    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    workdir: str | None
    user: str | None
    labels: Mapping[str, str] = field(hash=False)
    diff_ids: tuple[Digest, ...]
    """Digests of the uncompressed layers, from the base up."""

    history: tuple[History, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read an image config; ``config``, ``history`` and all in them may be absent. Pure.

        Raises ImageConfigInvalidError.
        """
        try:
            document = parse_object(raw)
            config = _object(document, "config")
            rootfs = _object(document, "rootfs")
            return cls(
                raw=raw,
                digest=Digest.of(raw),
                platform=Platform.from_json(document),
                env=_texts(config, "Env") or (),
                entrypoint=_command(config, "Entrypoint"),
                cmd=_command(config, "Cmd"),
                workdir=_text(config, "WorkingDir"),
                user=_text(config, "User"),
                labels=_labels(config),
                diff_ids=tuple(Digest.parse(text) for text in _texts(rootfs, "diff_ids") or ()),
                history=_history(document),
            )
        except (JsonInvalidError, DescriptorInvalidError) as error:
            raise ImageConfigInvalidError(error.reason) from error
        except DigestInvalidError as error:
            raise ImageConfigInvalidError(f"rootfs.diff_ids: {error}") from error

    @property
    def size(self) -> int:
        """The length of ``raw`` in bytes."""
        return len(self.raw)


def _object(document: JsonObject, member: str) -> JsonObject:
    value = document.get(member)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ImageConfigInvalidError(f"{member} is {kind(value)}, not an object")
    return value


def _text(document: JsonObject, member: str) -> str | None:
    """Return a text; absent, null and empty all mean that there is none."""
    value = document.get(member)
    if value is not None and not isinstance(value, str):
        raise ImageConfigInvalidError(f"{member} is {kind(value)}, not a string")
    return value or None


def _texts(document: JsonObject, member: str) -> tuple[str, ...] | None:
    values: Any = document.get(member)
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ImageConfigInvalidError(f"{member} isn't an array of strings")
    return tuple(values)


def _command(config: JsonObject, member: str) -> tuple[str, ...] | None:
    """Return an argument vector; some old builders wrote a single string. Empty is none, as engines have it."""
    value = config.get(member)
    return ((value,) if value else None) if isinstance(value, str) else _texts(config, member) or None


def _labels(config: JsonObject) -> dict[str, str]:
    labels = _object(config, "Labels")
    if not all(isinstance(value, str) for value in labels.values()):
        raise ImageConfigInvalidError("Labels has a value that isn't a string")
    return labels


def _history(document: JsonObject) -> tuple[History, ...]:
    values: Any = document.get("history")
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ImageConfigInvalidError("history isn't an array of objects")
    return tuple(
        History(
            created=_text(value, "created"),
            created_by=_text(value, "created_by"),
            comment=_text(value, "comment"),
            author=_text(value, "author"),
            empty_layer=value.get("empty_layer") is True,
        )
        for value in values
    )
