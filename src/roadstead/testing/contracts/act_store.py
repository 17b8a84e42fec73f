"""What an `ActStore` promises, and that each store writes its line with the change. A subclass gives the fixture
``stores``: an open, empty database.
"""

from datetime import UTC, datetime, timedelta

import pytest

from roadstead.acts import Act, ActKind, Asked, Outcome
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.ports import ApiKey
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.db.engine import Database
from roadstead.events.event import Cause
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import TagImmutableError
from roadstead.registry.immutable import ImmutableTags
from roadstead.testing.contracts.registry_stores import layer, new_blob, new_manifest

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ASKED = Asked("user:root", NOW, "192.0.2.1")
CAUSE = Cause(asked=ASKED)
ANA = Principal(PrincipalKind.USER, "ana", frozenset({"ci"}))
APP = RepositoryName.parse("team/app")
V1 = Tag("v1")


def act(number: int, **changed: object) -> Act:
    """Return an act of some minute."""
    values = {
        "at": NOW + timedelta(minutes=number),
        "by": "user:ana",
        "client": "192.0.2.7",
        "kind": ActKind.GC_RUN,
        "target": "the registry",
        "outcome": Outcome.DONE,
        "reason": f"{number} blobs removed",
    }
    return Act(**{**values, **changed})  # type: ignore[arg-type]


async def told(stores: Database) -> list[tuple[str, str, str]]:
    """Return kind, target and reason of every line, the earliest first."""
    lines = await stores.acts.lines(limit=100)
    assert {(line.act.by, line.act.client, line.act.at) for line in lines} <= {("user:root", "192.0.2.1", NOW)}
    return [(line.act.kind.value, line.act.target, line.act.reason) for line in reversed(lines)]


class ActStoreContract:
    """The promises of `ActStore`."""

    async def test_a_line_is_read_as_it_was_written(self, stores: Database) -> None:
        """With everything in it, the latest first."""
        written = [act(1), act(2, outcome=Outcome.DENIED, count=12, client=""), act(3, outcome=Outcome.FAILED)]
        await stores.acts.record(written[:2])
        await stores.acts.record(written[2:])
        await stores.acts.record([])

        lines = await stores.acts.lines(limit=10)

        assert [line.act for line in lines] == written[::-1]
        assert [line.position for line in lines] == sorted((line.position for line in lines), reverse=True)

    async def test_lines_are_found_by_time_by_whom_and_by_kind(self, stores: Database) -> None:
        """Together and alone."""
        written = [act(1), act(2, by="user:bob"), act(3, kind=ActKind.USER_ADD), act(4, by="user:bob")]
        await stores.acts.record(written)

        async def found(**asked: object) -> list[Act]:
            return [line.act for line in await stores.acts.lines(**asked, limit=10)]  # type: ignore[arg-type]

        assert await found(since=NOW + timedelta(minutes=3)) == [written[3], written[2]]
        assert await found(by="user:bob") == [written[3], written[1]]
        assert await found(kind=ActKind.USER_ADD) == [written[2]]
        assert await found(by="user:bob", since=NOW + timedelta(minutes=3)) == [written[3]]
        assert await found(by="user:b") == []
        assert await found(by="user:\0\ud800") == []

    async def test_pages_follow_each_other(self, stores: Database) -> None:
        """Also where lines come in between."""
        await stores.acts.record([act(number) for number in range(5)])
        first = await stores.acts.lines(limit=2)
        await stores.acts.record([act(9)])
        second = await stores.acts.lines(before=first[-1].position, limit=2)

        assert [line.act.reason[0] for line in (*first, *second)] == ["4", "3", "2", "1"]

    async def test_lines_are_in_the_order_of_their_moments(self, stores: Database) -> None:
        """Also over pages, though some were written late, and where moments are alike."""
        await stores.acts.record([act(3), act(5), act(3, reason="3b"), act(1), act(4)])
        seen: list[str] = []
        before = None
        while page := await stores.acts.lines(since=NOW + timedelta(minutes=2), before=before, limit=1):
            seen += [line.act.reason[:2].strip() for line in page]
            before = page[-1].position

        assert seen == ["5", "4", "3b", "3"]
        assert await stores.acts.lines(before=10_000, limit=9) == []

    async def test_old_lines_go(self, stores: Database) -> None:
        """Those before a moment, and no others; positions aren't given again."""
        await stores.acts.record([act(number) for number in range(4)])
        last = (await stores.acts.lines(limit=1))[0].position

        assert await stores.acts.purge(before=NOW + timedelta(minutes=2)) == 2
        assert [line.act.reason[0] for line in await stores.acts.lines(limit=9)] == ["3", "2"]
        assert await stores.acts.purge(before=NOW + timedelta(hours=1)) == 2
        await stores.acts.record([act(7)])
        assert (await stores.acts.lines(limit=1))[0].position > last

    async def test_no_text_makes_a_line_long_or_breaks_it(self, stores: Database) -> None:
        """What clients send is cut, and shown without what isn't printable."""
        await stores.acts.record([act(1, target="a\n\0\x1b[2J\ud800" + "x" * 10_000)])

        target = (await stores.acts.lines(limit=1))[0].act.target

        assert target.startswith("a???[2J?xx")
        assert len(target) == 512

    async def test_accounts_and_keys_are_told_of(self, stores: Database) -> None:
        """In the transaction of what was done; what wasn't done isn't told."""
        accounts = stores.accounts
        scope = Scope((RepositoryGlob("team/*"),), frozenset({Action.PULL}))
        key = ApiKey("k", ANA, scope, "0" * 64, NOW, None)
        assert await accounts.put_account(ANA, None, replace=False, now=NOW, asked=ASKED)
        assert not await accounts.put_account(ANA, None, replace=False, now=NOW, asked=ASKED)
        assert await accounts.put_account(ANA, None, replace=True, now=NOW, asked=ASKED)
        assert await accounts.put_key(key, asked=ASKED)
        assert await accounts.remove_key("k", asked=ASKED)
        assert not await accounts.remove_key("k", asked=ASKED)
        assert await accounts.remove_account("ana", asked=ASKED)
        assert not await accounts.remove_account("ana", asked=ASKED)
        assert not await accounts.put_key(key, asked=ASKED)
        assert await accounts.put_account(ANA, None, replace=False, now=NOW)

        assert await told(stores) == [
            ("user.add", "user:ana", "groups: ci"),
            ("user.change", "user:ana", "groups: ci"),
            ("key.create", "k of user:ana", "pull on team/*, for ever"),
            ("key.revoke", "k of ana", ""),
            ("user.remove", "user:ana", ""),
        ]

    async def test_deletes_and_restores_are_told_of(self, stores: Database) -> None:
        """Where somebody asked; what is refused, or wasn't there, isn't told."""
        first, second = new_blob("first"), new_blob("second")
        for blob in (first, second):
            await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        manifest = new_manifest("{}", [layer(first)])
        await stores.manifests.put(APP, manifest, [V1], cause=CAUSE, now=NOW)
        with pytest.raises(TagImmutableError):
            await stores.manifests.delete_tag(APP, V1, immutable=ImmutableTags.parse(["**:v*"]), cause=CAUSE, now=NOW)
        assert await stores.manifests.delete_tag(APP, V1, cause=CAUSE, now=NOW)
        assert not await stores.manifests.delete_tag(APP, V1, cause=CAUSE, now=NOW)
        assert await stores.manifests.restore(APP, V1, manifest.digest, cause=CAUSE, now=NOW)
        assert await stores.manifests.delete(APP, manifest.digest, cause=CAUSE, now=NOW) == [V1]
        assert await stores.manifests.delete(APP, manifest.digest, cause=CAUSE, now=NOW) is None
        assert await stores.blobs.unlink(APP, first.digest, cause=CAUSE, now=NOW)
        assert not await stores.blobs.unlink(APP, first.digest, cause=CAUSE, now=NOW)
        assert await stores.blobs.unlink(APP, second.digest, now=NOW)

        assert await told(stores) == [
            ("tag.delete", "team/app:v1", ""),
            ("tag.restore", "team/app:v1", f"to {manifest.digest}"),
            ("manifest.delete", f"team/app@{manifest.digest}", "with its tags: v1"),
            ("blob.delete", f"team/app@{first.digest}", ""),
        ]
