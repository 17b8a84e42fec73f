"""What a pull by tag is answered with, once rules had their say: resolve, read, derive, keep.

Whether a rule matches is known without reading anything. A pull that one matches asks the database once, for where
the tag is and what was derived from that under the rule's plan; only the first such pull derives it.

That an image is never augmented, or can't be, follows from its bytes, the plan, and from what was derived here before;
bytes under a digest don't change, and what was derived stays known: so each worker remembers it in memory, for a
bounded number of images. A record in the database would say no more, and would make the source look like something
derived where deleting and collecting ask for the difference.
What *was* derived is never remembered here: it may be deleted with its source, and only the database knows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

import structlog

from roadstead.augment.plan import Plan, PlanInvalidError
from roadstead.augment.ports import (
    Derivation,
    DerivationStore,
    DerivedBlob,
    DerivedManifest,
    ImageSource,
    LayerStore,
    Served,
)
from roadstead.augment.rewrite import (
    NotServed,
    Outcome,
    Unchanged,
    becomes_of_others,
    derive_image,
    derive_index,
    is_runnable,
)
from roadstead.augment.rules import Rules
from roadstead.clock import Clock
from roadstead.errors import InvalidError, NotFoundError, UnavailableError
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import MANIFESTS, SCHEMA1_MANIFESTS
from roadstead.oci.mutate import Image
from roadstead.oci.reference import RepositoryName, Tag

_log = structlog.get_logger()

MAX_CONFIG_BYTES = 8 << 20
MAX_MANIFESTS = 256  # read for one index, nested ones included; the largest official images list about forty
MAX_DEPTH = 4  # indexes within indexes
MAX_REMEMBERED = 4096  # images that a worker remembers as never augmented


class PlatformNotServedError(NotFoundError):
    """The rule that matches has no layers for any platform that the image has (MANIFEST_UNKNOWN)."""

    def __init__(self, repository: RepositoryName, tag: Tag, platforms: Sequence[Platform]) -> None:
        names = ", ".join(sorted({str(platform) or "an unnamed platform" for platform in platforms}))
        super().__init__(f"{repository}:{tag} is for {names}, for which the rule that augments it has no layers")
        self.repository = repository
        self.tag = tag
        self.platforms = tuple(platforms)

    def advice(self) -> str:
        """Return how to get the image all the same."""
        return "add layers for this platform to the rule, or pull the image by its digest, which is never augmented"


class LegacyImageError(InvalidError):
    """A rule matches an image of Docker's schema 1, which can't be augmented (MANIFEST_INVALID)."""

    def __init__(self, repository: RepositoryName, tag: Tag) -> None:
        super().__init__(
            f"{repository}:{tag} is in Docker's schema 1, to which the rule that matches can add nothing: engines "
            "stopped reading it"
        )
        self.repository = repository
        self.tag = tag

    def advice(self) -> str:
        """Return how it is made current, and how it is had as it is."""
        return (
            f"push it again in a current format (skopeo copy --format v2s2), or pull as-pushed/{self.repository}:"
            f"{self.tag}, which no rule touches"
        )


class NotAugmentableError(InvalidError):
    """Nothing can be added to what somebody asked to add to."""

    def __init__(self, repository: RepositoryName, source: Digest, reason: str) -> None:
        super().__init__(f"{repository}@{source} can't be augmented: {reason}")
        self.repository = repository
        self.source = source


class IndexTooLargeError(InvalidError):
    """An index lists more than is read to augment it."""

    def __init__(self, index: Digest, reason: str) -> None:
        super().__init__(f"index {index} can't be augmented: {reason}")
        self.index = index


class LayerMissingError(UnavailableError):
    """A layer of a plan isn't stored any more: it was stored when the rules were prepared."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"layer {digest} of the rule that augments this image is missing from storage")
        self.digest = digest

    def advice(self) -> str:
        """Return how it comes back."""
        return "start the service again: layers are stored at every start"


_Key: TypeAlias = tuple[RepositoryName, Digest, Digest]  # where it goes, of what, under which plan


class Augmenter:
    """Answers pulls by tag. One for each worker; ``aclose`` ends what is under way."""

    def __init__(
        self, rules: Rules, images: ImageSource, derivations: DerivationStore, layers: LayerStore, clock: Clock
    ) -> None:
        self._rules = rules
        self._images = images
        self._derivations = derivations
        self._layers = layers
        self._clock = clock
        self._settled: dict[tuple[Digest, Digest], Unchanged | NotServed] = {}
        self._limited: dict[tuple[Digest, tuple[Platform, ...]], Plan] = {}  # as many as rules, times upstreams
        self._running: dict[_Key, asyncio.Task[Served | Unchanged | NotServed]] = {}

    def plan_for(
        self,
        repository: RepositoryName,
        tag: Tag,
        *,
        also: RepositoryName | None = None,
        platforms: tuple[Platform, ...] = (),
    ) -> Plan | None:
        """Return the plan of the rule that a pull of this tag comes under, if there is one; nothing is read.

        The first rule counts that matches either name of the repository. `platforms` are those of an index that are
        augmented, all where there are none.
        """
        plan = self._rules.first_match(repository, tag, also)
        if plan is None or not platforms:
            return plan
        key = (plan.digest, platforms)
        if key not in self._limited:
            self._limited[key] = replace(plan, platforms=platforms)
        return self._limited[key]

    def rule_for(self, repository: RepositoryName, tag: Tag, *, also: RepositoryName | None = None) -> str | None:
        """Return the pattern of the rule that a pull of this tag comes under, if there is one; nothing is read."""
        return self._rules.pattern_of(repository, tag, also)

    async def pull(self, repository: RepositoryName, tag: Tag, plan: Plan) -> Served | None:
        """Return what a pull of this tag under this plan is answered with; None where there is no such tag.

        The same answer at every call and in every process, until the tag moves. Many calls at once derive once; one
        that is cancelled leaves the others be. Raises PlatformNotServedError, IndexTooLargeError, LayerMissingError,
        the errors of the stores, and those of manifests and configs that aren't what they say.
        """
        found = await self._derivations.find_by_tag(repository, tag, plan.digest)
        if found is None:
            return None
        return found.derived or await self._answer(repository, tag, found.source, plan)

    async def _answer(self, repository: RepositoryName, tag: Tag, source: Served, plan: Plan) -> Served:
        """Return what the source becomes, of which nothing is recorded yet: itself, or what is derived now."""
        if source.media_type in SCHEMA1_MANIFESTS:
            raise LegacyImageError(repository, tag)
        if source.media_type not in MANIFESTS:
            return source
        outcome = self._settled.get((source.digest, plan.digest))
        if outcome is None:
            derived = await self._derive_once(repository, source.digest, plan)
            if isinstance(derived, Served):
                return derived
            outcome = derived
        if isinstance(outcome, NotServed):
            raise PlatformNotServedError(repository, tag, outcome.platforms)
        return source

    async def revive(self, repository: RepositoryName, digest: Digest) -> bool:
        """Derive again what was derived here once and is gone: a manifest, or an image config.

        False where the digest never was, or where what it takes is gone as well: then it is as unknown as any other.
        """
        for source, text in await self._derivations.memories(repository, digest):
            try:
                plan = Plan.parse(text)
                derived = await self._derive_once(repository, source, plan)
            except (PlanInvalidError, NotFoundError, LayerMissingError) as error:
                _log.info(
                    "what was derived can't be derived again",
                    repository=str(repository),
                    digest=str(digest),
                    source=str(source),
                    reason=str(error),
                )
                continue
            if isinstance(derived, Served):
                return True
        return False

    async def pull_within(
        self, space: RepositoryName, repository: RepositoryName, source: Served, plan: Plan
    ) -> Served:
        """Return what a source becomes under a plan whose results are seen in a space alone.

        Raises NotAugmentableError where the plan can't be carried out, and what `pull` does.
        """
        found = await self._derivations.find(repository, source.digest, plan.digest, space=space)
        if found is not None:
            return found
        if source.media_type not in MANIFESTS:
            raise NotAugmentableError(repository, source.digest, f"it is of type {source.media_type}")
        outcome = self._settled.get((source.digest, plan.digest))
        if outcome is None:
            derived = await self._derive_once(repository, source.digest, plan, space)
            if isinstance(derived, Served):
                return derived
            outcome = derived
        if outcome in (Unchanged.PRESENT, Unchanged.DERIVED):
            return source
        if isinstance(outcome, NotServed):
            names = ", ".join(sorted({str(platform) or "an unnamed platform" for platform in outcome.platforms}))
            raise NotAugmentableError(repository, source.digest, f"it is for {names}, none of which was asked for")
        raise NotAugmentableError(repository, source.digest, outcome.value)

    async def find_within(self, space: RepositoryName, repository: RepositoryName, derived: Digest) -> Served | None:
        """Return what `pull_within` has made, by its digest; None too once its source has left the repository."""
        return await self._derivations.find_within(space, repository, derived)

    async def sources_of(self, repository: RepositoryName, derived: Digest) -> Sequence[Digest]:
        """Return what a digest that a pull was answered with was made from; empty if it wasn't made here."""
        return await self._derivations.sources_of(repository, derived)

    async def aclose(self) -> None:
        """Cancel the derivations under way and wait until they have ended; none is recorded in part."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _derive_once(
        self, repository: RepositoryName, source: Digest, plan: Plan, space: RepositoryName | None = None
    ) -> Served | Unchanged | NotServed:
        """Derive, or wait for whoever is deriving the same. The work goes on when a waiting client goes away."""
        key = (space or repository, source, plan.digest)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._derive(repository, source, plan, space), name=f"augment {source}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: _Key, task: "asyncio.Task[Served | Unchanged | NotServed]") -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # Whoever waits gets it; when all have gone, asyncio isn't to complain of it.

    async def _derive(
        self, repository: RepositoryName, source: Digest, plan: Plan, space: RepositoryName | None
    ) -> Served | Unchanged | NotServed:
        work = _Derivation(self._images, self._derivations.made_here, repository, plan)
        outcome = await work.manifest(source)
        if isinstance(outcome, Unchanged | NotServed):
            self._remember(source, plan.digest, outcome)
            return outcome
        now = self._clock.now()
        blobs = [await self._layer(digest, now) for digest in work.added]
        blobs += [await self._layers.store(config, now=now) for config in work.configs.values()]
        await self._derivations.record(
            Derivation(
                repository=repository,
                source=source,
                plan_digest=plan.digest,
                plan=plan.canonical(),
                manifests=tuple(work.manifests.values()),
                blobs=tuple(blobs),
                configs=tuple(work.configs),
            ),
            now=now,
            space=space,
        )
        return Served(outcome.digest, outcome.media_type, outcome.size)

    async def _layer(self, digest: Digest, now: datetime) -> DerivedBlob:
        blob = await self._layers.find(digest, now=now)
        if blob is None:
            raise LayerMissingError(digest)
        return blob

    def _remember(self, source: Digest, plan: Digest, outcome: Unchanged | NotServed) -> None:
        while len(self._settled) >= MAX_REMEMBERED:
            del self._settled[next(iter(self._settled))]
        self._settled[source, plan] = outcome


class _Derivation:
    """One source under one plan: walks down an index, and collects what has to be kept, children first."""

    def __init__(
        self,
        images: ImageSource,
        made_here: Callable[[Digest, Digest], Awaitable[bool]],
        repository: RepositoryName,
        plan: Plan,
    ) -> None:
        self.manifests: dict[Digest, DerivedManifest] = {}
        self.configs: dict[Digest, bytes] = {}
        self.added: dict[Digest, None] = {}  # layers of the plan that were used, in order
        self._images = images
        self._made_here = made_here
        self._repository = repository
        self._plan = plan
        self._read = 0

    async def manifest(self, digest: Digest, platform: Platform | None = None, depth: int = 0) -> Outcome:
        """Derive what one digest stands for."""
        media_type, raw = await self._images.manifest(self._repository, digest)
        parsed = parse_manifest(raw, media_type)
        if isinstance(parsed, ImageManifest):
            return await self._image(digest, parsed, platform)
        return await self._index(digest, parsed, depth)

    async def _image(self, source: Digest, manifest: ImageManifest, platform: Platform | None) -> Outcome:
        if not is_runnable(manifest):
            return Unchanged.ARTIFACT
        raw = await self._images.blob(self._repository, manifest.config.digest, max_bytes=MAX_CONFIG_BYTES)
        # The config is what stays of an image when engines pull, tag and push it; its manifest may be written anew.
        made_here = await self._made_here(manifest.config.digest, self._plan.digest)
        derived = derive_image(manifest, ImageConfig.parse(raw), self._plan, platform, made_here=made_here)
        if not isinstance(derived, Image):
            return derived
        self.configs[derived.config.digest] = derived.config.raw
        added = derived.manifest.layers[len(manifest.layers) :]
        self.added |= dict.fromkeys(layer.digest for layer in added)
        self._keep(derived.manifest, source, blobs=derived.manifest.references())
        return derived.manifest

    async def _index(self, source: Digest, index: ImageIndex, depth: int) -> Outcome:
        self._read += len(index.manifests)
        if self._read > MAX_MANIFESTS:
            raise IndexTooLargeError(source, f"more than {MAX_MANIFESTS} manifests are listed in it")
        if depth >= MAX_DEPTH:
            raise IndexTooLargeError(source, f"it is nested {depth} deep in others; {MAX_DEPTH - 1} is the most")
        # One after the other: the order of what is kept is then always the same, and this happens once an image.
        outcomes = [await self._entry(entry, depth) for entry in index.manifests]
        derived = derive_index(index, outcomes, self._plan)
        if isinstance(derived, ImageIndex):
            manifests = [entry for entry in derived.manifests if entry.media_type in MANIFESTS]
            self._keep(derived, source, children=manifests)
        return derived

    async def _entry(self, entry: Descriptor, depth: int) -> Outcome:
        platform = entry.platform if entry.platform is not None and entry.platform.os else None
        # No engine chooses "unknown": builders put what isn't to be run under it.
        if entry.media_type not in MANIFESTS or entry.is_attestation or (platform and platform.os == "unknown"):
            return Unchanged.ARTIFACT
        if platform is not None and (other := becomes_of_others(self._plan, platform)) is not None:
            return other
        return await self.manifest(entry.digest, platform, depth + 1)

    def _keep(
        self,
        derived: ImageManifest | ImageIndex,
        source: Digest,
        *,
        blobs: Iterable[Descriptor] = (),
        children: Iterable[Descriptor] = (),
    ) -> None:
        self.manifests[derived.digest] = DerivedManifest(
            digest=derived.digest,
            media_type=derived.media_type,
            raw=derived.raw,
            source=source,
            blobs=_digests(blobs),
            children=_digests(children),
        )


def _digests(descriptors: Iterable[Descriptor]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(descriptor.digest for descriptor in descriptors))
