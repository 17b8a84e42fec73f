"""Other images whose layers are added: ``includes = ["docker.io/org/tools:1.2"]``, Wave's ``containerIncludes``.

Each layer of such an image becomes a layer of the plan, for the platform that the image is for. An image for several
platforms gives variants of each layer, and a platform that has fewer layers than another gets empty ones on top: each
platform's layers have to pair with the others' (``plan.slots``). The image's settings aren't taken over.
"""

import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from itertools import zip_longest

from roadstead.augment.locations import LayerClaim
from roadstead.augment.plan import PlannedLayer, variant
from roadstead.augment.ports import LayerStore, MayPull, ReadableRegistry, Registries
from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import MANIFESTS, SCHEMA1_MANIFESTS
from roadstead.oci.reference import ImageReference, ReferenceInvalidError, RepositoryName, Tag

MAX_CONFIG_BYTES = 8 << 20
MAX_LAYERS = 100  # of one image; engines stop at 125 or so
MAX_PLATFORMS = 32

Have = Callable[[LayerClaim], Awaitable[PlannedLayer]]
"""Has a layer stored that is described."""

EMPTY_TAR = bytes(1024)


class IncludeInvalidError(InvalidError):
    """An image can't be included: its name can't be read, or it isn't one whose layers can be added."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:200]!r} can't be included: {reason}")
        self.text = text
        self.reason = reason


class Includes:
    """Reads the layers of other images."""

    def __init__(self, registries: Registries, layers: LayerStore) -> None:
        self._registries = registries
        self._layers = layers

    async def layers(
        self,
        text: str,
        have: Have,
        *,
        below: Sequence[PlannedLayer] = (),
        platforms: Sequence[Platform] = (),
        may_pull: MayPull,
        now: datetime,
    ) -> tuple[PlannedLayer, ...]:
        """Return the layers of an image, stored, to be added on top of those `below`.

        Those of `platforms` alone, all where there are none, and only such as `below` has layers for. Raises
        IncludeInvalidError, what `have` raises, LayerForbiddenError, and the errors of upstreams.
        """
        reference = parse_include(text)
        registry = self._registries.registry(reference.host, reference.repository, may_pull)
        found: dict[Platform, list[LayerClaim]] = {}
        for platform, claims in await _Image(text, reference, registry).read(platforms):
            wanted = not platforms or any(one.matches(platform) for one in platforms)
            if wanted and variant(below, platform) is not None:
                found.setdefault(_plain(platform), claims)
        if not found:
            raise IncludeInvalidError(text, "it has no image for a platform that the other layers are for")
        planned = {platform: [await have(claim) for claim in claims] for platform, claims in found.items()}
        return await self._paired(planned, now)

    async def _paired(self, planned: dict[Platform, list[PlannedLayer]], now: datetime) -> tuple[PlannedLayer, ...]:
        """Return the layers of all platforms, slot by slot; empty ones where a platform has fewer."""
        counts = {len(layers) for layers in planned.values()}
        empty = None
        if len(counts) > 1:
            empty = await self._layers.store(EMPTY_LAYER, now=now)
        paired: list[PlannedLayer] = []
        for slot in zip_longest(*planned.values()):
            for platform, layer in zip(planned, slot, strict=True):
                if layer is not None:
                    paired.append(layer)
                elif empty is not None:
                    paired.append(PlannedLayer(empty.digest, empty.size, Digest.of(EMPTY_TAR), platform))
        return tuple(paired)


class _Image:
    """One image that is included, as it is read."""

    def __init__(self, text: str, reference: ImageReference, registry: ReadableRegistry) -> None:
        self._text = text
        self._reference = reference
        self._registry = registry

    async def read(self, platforms: Sequence[Platform]) -> list[tuple[Platform, list[LayerClaim]]]:
        asked = self._reference.reference
        if asked is None:
            raise self._wrong("it names neither a tag nor a digest")
        manifest = await self._manifest(asked)
        if isinstance(manifest, ImageManifest):
            return [await self._claims(manifest, None)]
        entries = [entry for entry in manifest.manifests if _is_wanted(entry, platforms)]
        if len(entries) > MAX_PLATFORMS:
            raise self._wrong(f"it is for more than {MAX_PLATFORMS} platforms")
        return [await self._entry(entry) for entry in entries]

    async def _entry(self, entry: Descriptor) -> tuple[Platform, list[LayerClaim]]:
        manifest = await self._manifest(entry.digest)
        if not isinstance(manifest, ImageManifest):
            raise self._wrong("it lists an index within its index")
        return await self._claims(manifest, entry.platform)

    async def _manifest(self, reference: Tag | Digest) -> ImageManifest | ImageIndex:
        fetched = await self._registry.manifest(self._repository, reference)
        if fetched.media_type in SCHEMA1_MANIFESTS:
            raise self._wrong("it is in Docker's schema 1, which tells no digests of its layers; push it again")
        media_type = fetched.media_type if fetched.media_type in MANIFESTS else None
        return parse_manifest(fetched.raw, media_type)

    async def _claims(self, manifest: ImageManifest, platform: Platform | None) -> tuple[Platform, list[LayerClaim]]:
        if not manifest.is_image:
            raise self._wrong("it isn't an image but an artifact")
        config = ImageConfig.parse(await self._config(manifest.config))
        target = platform if platform is not None and platform.os else config.platform
        if len(config.diff_ids) != len(manifest.layers):
            raise self._wrong(f"it has {len(manifest.layers)} layers and {len(config.diff_ids)} diff_ids")
        if len(manifest.layers) > MAX_LAYERS:
            raise self._wrong(f"it has more than {MAX_LAYERS} layers")
        if not all(layer.is_distributable for layer in manifest.layers):
            raise self._wrong("it has a layer that registries don't hold")
        plain = _plain(target)
        return plain, [
            LayerClaim(
                location=f"docker://{self._reference.host}/{self._repository}@{layer.digest}",
                gzip_digest=layer.digest,
                gzip_size=layer.size,
                tar_digest=diff_id,
                platform=plain,
            )
            for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
        ]

    async def _config(self, pointer: Descriptor) -> bytes:
        if pointer.size > MAX_CONFIG_BYTES:
            raise self._wrong(f"its config has more than {MAX_CONFIG_BYTES} bytes")
        raw = bytearray()
        async with aclosing(self._registry.blob(self._repository, pointer.digest, size=pointer.size)) as pieces:
            async for piece in pieces:
                raw += piece
        return bytes(raw)

    @property
    def _repository(self) -> RepositoryName:
        return self._reference.repository

    def _wrong(self, reason: str) -> IncludeInvalidError:
        return IncludeInvalidError(self._text, reason)


def parse_include(text: str) -> ImageReference:
    """Read the name of an image, with its registry; raises IncludeInvalidError. Pure."""
    first, slash, _ = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        raise IncludeInvalidError(text, "name its registry as well, as in docker.io/library/busybox:latest")
    try:
        return ImageReference.parse(text)
    except ReferenceInvalidError as error:
        raise IncludeInvalidError(text, error.reason) from error


def _is_wanted(entry: Descriptor, platforms: Sequence[Platform]) -> bool:
    if entry.media_type not in MANIFESTS or entry.is_attestation or entry.platform is None or not entry.platform.os:
        return False
    platform = entry.platform
    return platform.os != "unknown" and (not platforms or any(one.matches(platform) for one in platforms))


def _plain(platform: Platform) -> Platform:
    return Platform(platform.os, platform.architecture, platform.variant).normalised()


def _stored_gzip(data: bytes) -> bytes:
    """Return data as a gzip that doesn't compress: the same bytes whichever zlib is there (RFC 1951 §3.2.4)."""
    length = len(data).to_bytes(2, "little")
    block = b"\x01" + length + bytes(byte ^ 0xFF for byte in length) + data
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + block + trailer


EMPTY_LAYER = _stored_gzip(EMPTY_TAR)
"""A layer with nothing in it."""
