"""What a `ContainerTokenStore` promises, and what derivations promise of a space, beside the registry's stores on the
same database. A subclass gives the fixture ``stores``.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Protocol

import pytest

from roadstead.augment.container_token import ContainerToken, ContainerTokenStore
from roadstead.augment.plan import Plan
from roadstead.augment.ports import Served
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestUnknownError
from roadstead.registry.ports import CollectionStore
from roadstead.testing.contracts.derivation_store import DerivingStores, derive
from roadstead.testing.contracts.registry_stores import APP, LATEST, MEDIA_TYPE, NOW, OTHER, new_manifest

PLAN = Plan(env=(("K", "V"),))
TOKEN = ContainerToken(
    token_hash="0" * 64,
    creator=Principal(PrincipalKind.USER, "ana", frozenset({"makers", "admins"})),
    key_id="k",
    repository=APP,
    path="app",
    reference=Tag("latest"),
    plan=PLAN,
    described='{"a": "ü"}',
    created_at=NOW,
    expires_at=NOW + timedelta(hours=1),
)
LATER = NOW + timedelta(days=1)
LONG_AGO = NOW - timedelta(days=7)


class TokenStores(DerivingStores, Protocol):
    """The stores of a registry that gives container tokens."""

    containers: ContainerTokenStore
    collection: CollectionStore


def space() -> RepositoryName:
    """Return the space of `TOKEN`."""
    found = TOKEN.space
    assert found is not None
    return found


class ContainerTokenStoreContract:
    """The promises of `ContainerTokenStore`, and of `DerivationStore` with a space."""

    @pytest.mark.parametrize(
        "token",
        [
            TOKEN,
            replace(TOKEN, plan=None, key_id=None, creator=Principal(PrincipalKind.ANONYMOUS)),
            replace(TOKEN, reference=Digest.of(b"pinned")),
        ],
        ids=["tag", "plain", "digest"],
    )
    async def test_a_token_comes_back_as_it_was(self, stores: TokenStores, token: ContainerToken) -> None:
        """By its hash, ended or not; no other hash finds anything."""
        await stores.containers.put(token)

        assert await stores.containers.find(token.token_hash) == token
        assert await stores.containers.find("1" * 64) is None

    async def test_a_token_ends_once(self, stores: TokenStores) -> None:
        """It is then one that ended at that moment; what has ended can't end again."""
        await stores.containers.put(TOKEN)

        assert await stores.containers.end(TOKEN.token_hash, now=NOW) is True
        assert await stores.containers.end(TOKEN.token_hash, now=NOW) is False
        assert await stores.containers.end("1" * 64, now=NOW) is False
        found = await stores.containers.find(TOKEN.token_hash)
        assert found is not None
        assert found.expires_at == NOW

    async def test_what_is_derived_into_a_space_is_nowhere_else(self, stores: TokenStores) -> None:
        """Neither manifest nor blob is the repository's, and no source is known of it there."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = derive(source)
        root, config = derivation.root, derivation.blobs[0].digest

        for _ in range(2):
            await stores.derivations.record(derivation, now=NOW, space=space())

        served = Served(root.digest, MEDIA_TYPE, len(root.raw))
        assert await stores.derivations.find(APP, source.digest, derivation.plan_digest, space=space()) == served
        assert await stores.derivations.find_within(space(), APP, root.digest) == served
        assert await stores.blobs.find(space(), config) is not None
        assert await stores.derivations.find(APP, source.digest, derivation.plan_digest) is None
        assert await stores.manifests.find_by_digest(APP, root.digest) is None
        assert await stores.blobs.find(APP, config) is None
        assert await stores.derivations.sources_of(APP, root.digest) == []
        assert await stores.derivations.find_within(space(), OTHER, root.digest) is None
        assert await stores.derivations.find_within(space(), APP, source.digest) is None

    async def test_a_source_that_is_gone(self, stores: TokenStores) -> None:
        """What was derived isn't found any more without it, and nothing is derived from it again."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = derive(source)
        await stores.derivations.record(derivation, now=NOW, space=space())

        await stores.manifests.delete(APP, source.digest, now=NOW)

        assert await stores.derivations.find_within(space(), APP, derivation.root.digest) is None
        with pytest.raises(ManifestUnknownError):
            await stores.derivations.record(derivation, now=NOW, space=space())

    async def test_collection_leaves_a_space_that_is_needed(self, stores: TokenStores) -> None:
        """Its manifests, with their source, aren't idle as long as the derivation is there."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        await stores.derivations.record(derive(source), now=NOW, space=space())

        facts = await stores.collection.manifests(after=(0, ""), limit=100)

        in_space = [fact for fact in facts if fact.repository == space()]
        assert len(in_space) == 2
        assert all(fact.derived and fact.source_here for fact in in_space)

    async def test_a_space_goes_with_its_last_token(self, stores: TokenStores) -> None:
        """Not before all tokens that share it have ended; the repository and its source stay as they were."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = derive(source)
        root, config = derivation.root, derivation.blobs[0].digest
        await stores.derivations.record(derivation, now=NOW, space=space())
        await stores.containers.put(TOKEN)
        await stores.containers.put(replace(TOKEN, token_hash="2" * 64, expires_at=LATER + timedelta(hours=1)))

        assert await stores.containers.purge(now=LATER, forget_before=LONG_AGO) == 0
        assert await stores.derivations.find_within(space(), APP, root.digest) is not None

        after = LATER + timedelta(hours=2)
        assert await stores.containers.purge(now=after, forget_before=LONG_AGO) == 1
        assert await stores.derivations.find_within(space(), APP, root.digest) is None
        assert await stores.blobs.find(space(), config) is None
        with pytest.raises(KeyError):
            await stores.manifests.content(root.digest)
        assert await stores.manifests.content(source.digest) == source.raw
        assert await stores.containers.purge(now=after, forget_before=LONG_AGO) == 0
        await stores.derivations.record(derivation, now=after, space=space())
        assert await stores.derivations.find_within(space(), APP, root.digest) is not None

    async def test_ended_tokens_are_forgotten(self, stores: TokenStores) -> None:
        """Those that ended before a moment; the others are still known to have ended."""
        await stores.containers.put(TOKEN)

        assert await stores.containers.purge(now=LATER, forget_before=NOW) == 0
        assert await stores.containers.find(TOKEN.token_hash) is not None
        assert await stores.containers.purge(now=LATER, forget_before=LATER) == 1
        assert await stores.containers.find(TOKEN.token_hash) is None
