"""Images in the data of a registry, read beside its server, for `roadstead inspect`.

A name means what it does in a pull: one of ours, an upstream's that has it by default, one below ``as-pushed/`` or
``as-of/``, or what a container token has made. Nobody is asked, and nothing is derived: what is told is what is here.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from roadstead.app.adoption import open_taken_up
from roadstead.app.plugs import CLOCK, Plugs
from roadstead.app.services import build_contents, tag_history
from roadstead.app.signing import read_policies
from roadstead.app.upstreams import build_upstreams
from roadstead.augment.container_token import (
    ContainerPathError,
    ContainerToken,
    ContainerTokenEndedError,
    ContainerTokenUnknownError,
    is_token,
    token_hash,
)
from roadstead.augment.inspecting import Source
from roadstead.errors import NotFoundError
from roadstead.http.names import Named, parse_name, split
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import CONTAINER_TOKENS, RepositoryName, Tag
from roadstead.proxy.spaces import Spaces
from roadstead.registry.errors import ManifestUnknownError
from roadstead.registry.images import Images
from roadstead.registry.signed import SignedHere
from roadstead.settings.model import Settings
from roadstead.signatures.ports import Admission, Verdict

if TYPE_CHECKING:
    # For types alone: it needs the library for keys.
    from roadstead.signatures.verifying import Signatures


class ImageHere:
    """One repository of the data: what is served is what was derived last, where a rule matches."""

    def __init__(self, named: Named, asked: RepositoryName | None, plugs: Plugs, settings: Settings) -> None:
        """`asked` is the name without a host that an upstream's repository was asked for by."""
        manifests, blobs = build_contents(plugs, settings)
        self._images = SignedHere(Images(manifests, blobs), plugs.database.catalog, plugs.database.lineage)
        self._lineage = plugs.database.lineage
        self._history = tag_history(plugs, settings)
        self._settings = settings
        self._named = named
        self._asked = asked
        self._admission = _admission(settings, self._images)
        self.repository = named.repository

    @property
    def name(self) -> str:
        """Return the repository's name."""
        return str(self.repository)

    @property
    def origin(self) -> str:
        """Return whose image it is."""
        hosts = {upstream.host for upstream in self._settings.upstreams.registries}
        first = self.repository.components[0]
        return f"pulled through from {first}" if first in hosts else "hosted here"

    def rule(self, tag: Tag) -> str | None:
        """Return the pattern of the rule that a pull of this tag comes under."""
        if self._named.original:
            return None
        rules = (rule.match for rule in self._settings.augment.rules)
        names = [self.repository] if self._asked is None else [self.repository, self._asked]
        return next((text for text in rules if any(Pattern.parse(text).matches(name, tag) for name in names)), None)

    async def manifest(self, reference: Tag | Digest) -> tuple[str, bytes]:
        """Return media type and bytes of what a pull is answered with; raises ManifestUnknownError."""
        wanted = reference
        if self._named.at is not None and isinstance(reference, Tag):
            wanted = await self._history.at(self.repository, reference, self._named.at)
        found = await self._images.manifest(self.repository, wanted)
        if found is None:
            raise ManifestUnknownError(self.repository, reference)
        if isinstance(reference, Tag) and self.rule(reference) is not None:
            derived = await self._lineage.latest(self.repository, Digest.of(found[1]))
            made = None if derived is None else await self._images.manifest(self.repository, derived)
            found = made or found
        return found

    async def original(self, tag: Tag) -> Digest | None:
        """Return what was pushed under a tag."""
        found = await self._images.manifest(self.repository, tag)
        return None if found is None else Digest.of(found[1])

    async def blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole; raises BlobUnknownError, ContentTooLargeError."""
        return await self._images.blob(self.repository, digest, max_bytes=max_bytes)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return what refers to a manifest."""
        return await self._images.referrers(self.repository, digest)

    async def verdicts(self, digest: Digest) -> Sequence[Verdict]:
        """Return what each policy for the repository says of a manifest."""
        if self._admission is None:
            return ()
        original = self._named.original and self._named.at is None
        return await self._admission.verdicts(self.repository, digest, original=original)


class ImageOfToken:
    """What a container token has made of an image, and the image's own repository behind it."""

    def __init__(self, token: ContainerToken, plugs: Plugs, settings: Settings) -> None:
        manifests, blobs = build_contents(plugs, settings)
        self._images = SignedHere(Images(manifests, blobs), plugs.database.catalog, plugs.database.lineage)
        self._database = plugs.database
        self._token = token
        self._admission = _admission(settings, self._images)
        self.name = str(token.repository)
        self.origin = f"made for a container token of {token.creator}"

    def rule(self, tag: Tag) -> str | None:
        """Return None: a token goes before rules."""
        return None

    async def manifest(self, reference: Tag | Digest) -> tuple[str, bytes]:
        """Return what was made of a tag's image, or what has a digest; raises ManifestUnknownError."""
        token, space = self._token, self._token.space
        if isinstance(reference, Digest) and space is not None and await self._is_derived(reference):
            made = await self._images.manifest(space, reference)
            if made is not None:
                return made
        found = await self._images.manifest(token.repository, reference)
        if found is None:
            raise ManifestUnknownError(token.repository, reference)
        if isinstance(reference, Digest) or space is None or token.plan is None:
            return found
        source, plan = Digest.of(found[1]), token.plan.digest
        derived = await self._database.derivations.find(token.repository, source, plan, space=space)
        made = None if derived is None else await self._images.manifest(space, derived.digest)
        return made or found

    async def original(self, tag: Tag) -> Digest | None:
        """Return what was pushed under a tag."""
        found = await self._images.manifest(self._token.repository, tag)
        return None if found is None else Digest.of(found[1])

    async def blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole, of what was made or of the image's repository."""
        if self._token.space is not None:
            try:
                return await self._images.blob(self._token.space, digest, max_bytes=max_bytes)
            except NotFoundError:
                pass
        return await self._images.blob(self._token.repository, digest, max_bytes=max_bytes)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return what refers to a manifest."""
        space = self._token.space
        if space is not None and await self._is_derived(digest):
            return await self._images.referrers(space, digest)
        return await self._images.referrers(self._token.repository, digest)

    async def verdicts(self, digest: Digest) -> Sequence[Verdict]:
        """Return what each policy for the repository says of a manifest, or of what it was made of."""
        if self._admission is None:
            return ()
        space = self._token.space
        judged = [digest]
        if space is not None and await self._is_derived(digest):
            judged = list(await self._images.made_from(space, digest)) or judged
        return await self._admission.verdicts(self._token.repository, judged[0])

    async def _is_derived(self, digest: Digest) -> bool:
        token, space = self._token, self._token.space
        if space is None:
            return False
        return await self._database.derivations.find_within(space, token.repository, digest) is not None


@asynccontextmanager
async def image_here(name: str, settings: Settings) -> AsyncGenerator[Source, None]:
    """Open database and storage for looking at what a name stands for in a pull.

    Raises ContainerTokenUnknownError, ContainerTokenEndedError, ContainerPathError, NameInvalidError,
    MomentInvalidError.
    """
    async with open_taken_up(settings) as plugs:
        first, _, rest = name.partition("/")
        if first == CONTAINER_TOKENS:
            yield ImageOfToken(await _token(rest, plugs), plugs, settings)
            return
        beginning, own = split(name)
        spaces = Spaces(build_upstreams(settings), plugs.database.pulled)
        routed = await spaces.route(own, None, writing=False)
        asked = None if routed.asked is None else parse_name(routed.asked).repository
        yield ImageHere(parse_name(f"{beginning}{routed.name}"), asked, plugs, settings)


async def _token(text: str, plugs: Plugs) -> ContainerToken:
    """Return the token that a name below ``wt/`` is of."""
    secret, _, path = text.partition("/")
    token = await plugs.database.containers.find(token_hash(secret)) if is_token(secret) else None
    if token is None:
        raise ContainerTokenUnknownError
    if token.expires_at <= CLOCK.now():
        raise ContainerTokenEndedError(token.expires_at)
    if path != token.path:
        raise ContainerPathError(path, token.path)
    return token


def _admission(settings: Settings, images: SignedHere) -> "Signatures | None":
    if not settings.signatures.policies:
        return None
    # As above.
    from roadstead.signatures.verifying import Signatures

    return Signatures(read_policies(settings), images, CLOCK)


if TYPE_CHECKING:
    _: tuple[type[Source], type[Source]] = (ImageHere, ImageOfToken)
    __: type[Admission] = Signatures
