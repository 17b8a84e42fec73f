"""Whether an image may be served: its policies, and the signatures that are found for it.

A signature is of one manifest, as a rule of an index. What the index lists is then pulled by digest, and what was made
of an image is served in its place: for these the manifests answer that they were made from. So a digest is accepted if
a signature of it holds, or one of what lists it or what it was derived from, in the same repository.

What says something of images (signatures, attestations) is served to everybody who may read the repository: without it
nobody could check anything. It has no layer that an engine would unpack: some go by what a layer holds, whatever its
type says, so what it holds is looked at.

Whether a signature holds follows from its bytes, the policy and the subject. Only that is remembered; which signatures
there are is asked each time, so that one that is removed counts no more.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import structlog

from roadstead.clock import Clock
from roadstead.errors import InvalidError, NotFoundError
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import ImageManifest, ManifestInvalidError, parse_manifest
from roadstead.oci.mediatypes import MANIFESTS
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.signatures import cosign, dsse, names, notation
from roadstead.signatures.errors import ImageUnsignedError, SignatureInvalidError
from roadstead.signatures.policy import Policy, SignatureKind
from roadstead.signatures.ports import SignedImages, Verdict

MAX_DOCUMENT = 1 << 20
"""The largest payload, bundle or envelope that is read: they have some kilobytes."""

MAX_SAID = 8 << 20
"""The largest of those that are served without being checked: an attestation may hold a list of all packages."""

MAX_LAYERS = 64
MAX_FOUND = 128
"""Signatures of one image that are looked at: who may push could add any number."""

MAX_LINEAGE = 32
MAX_REMEMBERED = 8192

_ABOUT_IMAGES = frozenset(
    {
        names.SIMPLE_SIGNING,
        dsse.IN_TOTO,
        "application/vnd.dsse.envelope.v1+json",
        notation.JWS,
        notation.COSE,
    }
)
_COSE_SIGN1 = b"\xd2"  # RFC 9052 §2: its tag
_TAR_BLOCK = 512
_TAR_SUM = slice(148, 156)

_log = structlog.get_logger()

_Remembered: TypeAlias = tuple[int, RepositoryName, Digest, Digest]


class Signatures:
    """Checks images against policies: an ``Admission``. One for each worker."""

    def __init__(self, policies: Sequence[Policy], images: SignedImages, clock: Clock) -> None:
        self._policies = tuple(policies)
        self._images = images
        self._clock = clock
        self._holding: dict[_Remembered, None] = {}
        self._documents: dict[tuple[Digest, str], None] = {}
        self._noted: set[tuple[int, RepositoryName, Digest]] = set()

    async def check(self, repository: RepositoryName, digest: Digest, *, original: bool = False) -> None:
        """Return if every policy for this repository is met. Raises ImageUnsignedError."""
        for number, policy in enumerate(self._policies):
            if not policy.covers(repository) or (original and not policy.originals):
                continue
            reasons = await self._unmet(number, policy, repository, digest)
            if reasons is None:
                continue
            if policy.require:
                raise ImageUnsignedError(repository, digest, policy.name, policy.kind.value, reasons)
            self._note(number, policy, repository, digest, reasons)

    async def verdicts(
        self, repository: RepositoryName, digest: Digest, *, original: bool = False
    ) -> Sequence[Verdict]:
        """Return what every policy for this repository says, in their order; nothing is logged, nothing refused."""
        found = []
        for number, policy in enumerate(self._policies):
            if not policy.covers(repository) or (original and not policy.originals):
                continue
            reasons = await self._unmet(number, policy, repository, digest)
            found.append(
                Verdict(
                    policy=policy.name,
                    kind=policy.kind.value,
                    required=policy.require,
                    holds=reasons is None,
                    reasons=tuple(reasons or ()),
                )
            )
        return found

    async def _unmet(
        self, number: int, policy: Policy, repository: RepositoryName, digest: Digest
    ) -> Sequence[str] | None:
        """Return None if a policy is met, else why each signature doesn't hold; empty where there is none."""
        reasons: list[str] = []
        waiting, seen = [digest], {digest}
        while waiting:
            current = waiting.pop(0)
            found = await self._found(policy, repository, current)
            for name, check in found:
                key = (number, repository, current, name)
                if key in self._holding:
                    return None
                try:
                    await check()
                except (SignatureInvalidError, ManifestInvalidError) as error:
                    reasons.append(f"{name}: {error}")
                    continue
                if policy.kind is SignatureKind.COSIGN:  # the others expire
                    self._remember(key)
                return None
            above = [one for one in await self._images.made_from(repository, current) if one not in seen]
            above = above[: MAX_LINEAGE - len(seen)]
            seen.update(above)
            waiting += above
        return None if await self._says_something(repository, digest) else reasons

    def _remember(self, key: _Remembered) -> None:
        while len(self._holding) >= MAX_REMEMBERED:
            del self._holding[next(iter(self._holding))]
        self._holding[key] = None

    def _note(
        self, number: int, policy: Policy, repository: RepositoryName, digest: Digest, reasons: Sequence[str]
    ) -> None:
        """Log an image that would be refused, once in a while: as often as it is forgotten."""
        if (number, repository, digest) in self._noted:
            return
        if len(self._noted) >= MAX_REMEMBERED:
            self._noted.clear()
        self._noted.add((number, repository, digest))
        _log.warning(
            "an image is served though it isn't signed: its policy doesn't require it",
            repository=str(repository),
            digest=str(digest),
            policy=policy.name,
            reasons=list(reasons),
        )

    async def _says_something(self, repository: RepositoryName, digest: Digest) -> bool:
        """Say whether a manifest is a signature or an attestation itself."""
        found = await self._images.manifest(repository, digest)
        if found is None or found[0] not in MANIFESTS:
            return False
        manifest = parse_manifest(found[1], found[0])
        if not isinstance(manifest, ImageManifest) or not is_about_images(manifest):
            return False
        return all([await self._is_document(repository, layer) for layer in manifest.layers])

    async def _is_document(self, repository: RepositoryName, layer: Descriptor) -> bool:
        """Say whether a layer that is called a signature may be one: it is no archive, packed or not."""
        key = (layer.digest, layer.media_type)
        if key in self._documents:
            return True
        try:
            content = await self._images.blob(repository, layer.digest, max_bytes=MAX_SAID)
        except (NotFoundError, InvalidError):
            return False
        if not is_document(content, layer.media_type):
            return False
        while len(self._documents) >= MAX_REMEMBERED:
            del self._documents[next(iter(self._documents))]
        self._documents[key] = None
        return True

    async def _found(
        self, policy: Policy, repository: RepositoryName, subject: Digest
    ) -> list[tuple[Digest, Callable[[], Awaitable[None]]]]:
        """Return the signatures of a manifest, each with what checks it."""
        found: list[tuple[Digest, Callable[[], Awaitable[None]]]] = []
        if policy.kind is SignatureKind.COSIGN:
            tagged = await self._images.manifest(repository, Tag(names.signature_tag(subject)))
            if tagged is not None:
                raw = tagged
                found.append((Digest.of(raw[1]), lambda: self._check_cosign(policy, repository, subject, raw)))
        listed = [one for one in await self._images.referrers(repository, subject) if is_signature(one, policy.kind)]
        found += [(one.digest, self._checker(policy, repository, subject, one.digest)) for one in listed[:MAX_FOUND]]
        return found

    def _checker(
        self, policy: Policy, repository: RepositoryName, subject: Digest, referrer: Digest
    ) -> Callable[[], Awaitable[None]]:
        async def check() -> None:
            found = await self._images.manifest(repository, referrer)
            if found is None:
                raise SignatureInvalidError("it is listed, but not there")
            if policy.kind is SignatureKind.COSIGN:
                await self._check_cosign(policy, repository, subject, found)
            else:
                await self._check_notation(policy, repository, subject, found)

        return check

    async def _check_cosign(
        self, policy: Policy, repository: RepositoryName, subject: Digest, found: tuple[str, bytes]
    ) -> None:
        """Return if one of the signatures that a manifest holds is right; raise what is wrong with the last."""
        manifest = _artifact(found)
        problem = SignatureInvalidError("it holds no signature in cosign's form")
        for layer in manifest.layers[:MAX_LAYERS]:
            if layer.media_type != names.SIMPLE_SIGNING and not cosign.is_bundle(layer.media_type):
                continue
            try:
                content = await self._content(repository, layer)
                if layer.media_type == names.SIMPLE_SIGNING:
                    cosign.check_simple(content, layer, subject, policy.keys)
                else:
                    cosign.check_bundle(content, subject, policy.keys)
            except SignatureInvalidError as error:
                problem = error
            else:
                return
        raise problem

    async def _check_notation(
        self, policy: Policy, repository: RepositoryName, subject: Digest, found: tuple[str, bytes]
    ) -> None:
        manifest = _artifact(found)
        if len(manifest.layers) != 1:
            raise SignatureInvalidError(f"it has {len(manifest.layers)} blobs, not one envelope")
        [layer] = manifest.layers
        content = await self._content(repository, layer)
        notation.check_envelope(content, layer.media_type, subject, policy.certificates, self._clock.now())

    async def _content(self, repository: RepositoryName, layer: Descriptor) -> bytes:
        if layer.size > MAX_DOCUMENT:
            raise SignatureInvalidError(f"it has {layer.size:,} bytes; {MAX_DOCUMENT:,} are the most")
        try:
            content = await self._images.blob(repository, layer.digest, max_bytes=MAX_DOCUMENT)
        except (NotFoundError, InvalidError) as error:
            raise SignatureInvalidError(f"its content can't be had: {error}") from error
        if Digest.of(content, layer.digest.algorithm) != layer.digest:
            raise SignatureInvalidError("its content isn't what its manifest says")
        return content


def is_signature(referrer: Descriptor, kind: SignatureKind) -> bool:
    """Say whether a line of the referrers list may be a signature of this kind."""
    named = referrer.artifact_type or ""
    if kind is SignatureKind.NOTATION:
        return named == notation.SIGNATURE
    if named == names.SIGNATURE:
        return True
    return cosign.is_bundle(named) and referrer.annotations.get(cosign.PREDICATE) in (None, names.SIGN_PREDICATE)


def is_about_images(manifest: ImageManifest) -> bool:
    """Say whether a manifest is nothing but signatures or attestations: no engine could run it."""
    return 0 < len(manifest.layers) <= MAX_LAYERS and all(
        layer.media_type in _ABOUT_IMAGES or cosign.is_bundle(layer.media_type) for layer in manifest.layers
    )


def is_document(content: bytes, media_type: str) -> bool:
    """Say whether bytes can be JSON, or COSE where the type says so, and no tar: one may begin as a document does."""
    begins = content.startswith(_COSE_SIGN1) if media_type == notation.COSE else content.lstrip()[:1] == b"{"
    return begins and not _is_tar(content)


def _is_tar(content: bytes) -> bool:
    """Say whether bytes begin with a tar's header: the sum of its bytes stands in it (POSIX ustar)."""
    head = content[:_TAR_BLOCK]
    written = head[_TAR_SUM].replace(b"\0", b" ").split()
    if len(head) < _TAR_BLOCK or not written or not written[0].isdigit():
        return False
    blank = head[: _TAR_SUM.start] + b" " * (_TAR_SUM.stop - _TAR_SUM.start) + head[_TAR_SUM.stop :]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blank)
    try:
        return int(written[0], 8) in (sum(blank), signed)
    except ValueError:
        return False


def _artifact(found: tuple[str, bytes]) -> ImageManifest:
    media_type, raw = found
    manifest = parse_manifest(raw, media_type)
    if not isinstance(manifest, ImageManifest):
        raise SignatureInvalidError("it is an index")
    return manifest
