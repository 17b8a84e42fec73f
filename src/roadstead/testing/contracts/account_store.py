"""What an `AccountStore` promises. A subclass gives the fixtures ``accounts`` and ``accounts_elsewhere``: one store as
two processes reach it.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.ports import Account, AccountStore, ApiKey
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.secret import Secret

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)

ANA = Principal(PrincipalKind.USER, "ana", frozenset({"ci", "developers"}))
ROBOT = Principal(PrincipalKind.ROBOT, "builder")


def key(key_id: str, owner: Principal = ANA, created_at: datetime = NOW, expires_at: datetime | None = None) -> ApiKey:
    """Return a key that is good for something."""
    return ApiKey(
        key_id=key_id,
        owner=owner,
        scope=Scope((RepositoryGlob("team/*"), RepositoryGlob("{user}/**")), frozenset({Action.PULL, Action.PUSH})),
        secret_hash="0" * 64,
        created_at=created_at,
        expires_at=expires_at,
        description='the "night" build',
    )


def revealed(account: Account | None) -> tuple[Principal, str | None] | None:
    """Return who an account is of, and its hash: secrets don't compare."""
    if account is None:
        return None
    hashed = account.password_hash
    return account.principal, None if hashed is None else hashed.reveal()


class AccountStoreContract:
    """The promises of `AccountStore`."""

    async def test_an_account_is_found_as_it_was_stored(
        self, accounts: AccountStore, accounts_elsewhere: AccountStore
    ) -> None:
        """By every process, with kind, groups and hash; names are compared letter by letter."""
        assert await accounts.put_account(ANA, Secret("h1"), replace=False, now=NOW)
        assert await accounts.put_account(ROBOT, None, replace=False, now=LATER)

        assert revealed(await accounts_elsewhere.find_account("ana")) == (ANA, "h1")
        assert revealed(await accounts_elsewhere.find_account("builder")) == (ROBOT, None)
        for name in ("Ana", "ana ", "", "an%"):
            assert await accounts.find_account(name) is None
        assert [(found.principal.name, found.created_at) for found in await accounts_elsewhere.accounts()] == [
            ("ana", NOW),
            ("builder", LATER),
        ]

    async def test_a_name_is_taken_once(self, accounts: AccountStore, accounts_elsewhere: AccountStore) -> None:
        """Of those who make it at once one does, and a robot doesn't take a user's."""
        asked = [
            (accounts, accounts_elsewhere)[number % 2].put_account(
                Principal(PrincipalKind.USER, "ana"), Secret(f"h{number}"), replace=False, now=NOW
            )
            for number in range(8)
        ]
        assert sorted(await asyncio.gather(*asked)) == [False] * 7 + [True]

        assert not await accounts.put_account(
            Principal(PrincipalKind.ROBOT, "ana"), Secret("x"), replace=False, now=NOW
        )
        found = await accounts.find_account("ana")
        assert found is not None
        assert found.principal.kind is PrincipalKind.USER

    async def test_replacing_takes_the_new_groups_for_the_old(
        self, accounts: AccountStore, accounts_elsewhere: AccountStore
    ) -> None:
        """Never both (CVE-2025-23208). Without a hash the password stays; keys stay and are of the new groups."""
        await accounts.put_account(ANA, Secret("h1"), replace=False, now=NOW)
        await accounts.put_key(key("k"))
        changed = Principal(PrincipalKind.USER, "ana", frozenset({"guests"}))

        assert await accounts.put_account(changed, None, replace=True, now=LATER)

        assert revealed(await accounts_elsewhere.find_account("ana")) == (changed, "h1")
        found = await accounts_elsewhere.find_key("k")
        assert found is not None
        assert found.owner == changed
        await accounts.put_account(changed, Secret("h2"), replace=True, now=LATER)
        assert revealed(await accounts_elsewhere.find_account("ana")) == (changed, "h2")

    async def test_groups_change_alone(self, accounts: AccountStore, accounts_elsewhere: AccountStore) -> None:
        """Kind and password stay, and keys are of the new groups; an account that isn't there isn't made."""
        await accounts.put_account(ANA, Secret("h1"), replace=False, now=NOW)
        await accounts.put_account(ROBOT, None, replace=False, now=NOW)
        await accounts.put_key(key("k"))

        assert await accounts.set_groups("ana", frozenset({"guests"}))
        assert await accounts.set_groups(ROBOT.name, frozenset({"builders"}))

        changed = Principal(PrincipalKind.USER, "ana", frozenset({"guests"}))
        assert revealed(await accounts_elsewhere.find_account("ana")) == (changed, "h1")
        robot = await accounts_elsewhere.find_account(ROBOT.name)
        assert robot is not None
        assert robot.principal == Principal(PrincipalKind.ROBOT, ROBOT.name, frozenset({"builders"}))
        found = await accounts_elsewhere.find_key("k")
        assert found is not None
        assert found.owner == changed
        assert not await accounts.set_groups("nobody", frozenset({"guests"}))
        assert await accounts_elsewhere.find_account("nobody") is None

    async def test_a_key_is_found_as_it_was_stored(
        self, accounts: AccountStore, accounts_elsewhere: AccountStore
    ) -> None:
        """With its owner, what it is good for and when it ends; several by their ids, page by page."""
        await accounts.put_account(ANA, None, replace=False, now=NOW)
        await accounts.put_account(ROBOT, None, replace=False, now=NOW)
        second = key("a", created_at=LATER, expires_at=LATER + timedelta(days=1))
        of_robot = key("c", ROBOT, created_at=LATER + timedelta(seconds=1))
        for made in (second, key("b"), of_robot):
            assert await accounts.put_key(made)

        assert await accounts_elsewhere.find_key("a") == second
        assert await accounts_elsewhere.find_key("A") is None
        assert await accounts_elsewhere.keys("ana") == [second, key("b")]
        assert await accounts_elsewhere.keys() == [second, key("b"), of_robot]
        assert await accounts_elsewhere.keys("ana", after="a", limit=1) == [key("b")]
        assert await accounts_elsewhere.keys(after="a", limit=1) == [key("b")]
        assert await accounts_elsewhere.keys(after="c") == []
        assert [found.principal.name for found in await accounts_elsewhere.accounts(limit=1)] == ["ana"]
        assert [found.principal.name for found in await accounts_elsewhere.accounts(after="ana")] == ["builder"]

    async def test_a_key_needs_its_account(self, accounts: AccountStore) -> None:
        """There is none for somebody who isn't there."""
        assert not await accounts.put_key(key("k"))
        assert await accounts.find_key("k") is None

    async def test_a_revoked_key_is_gone_everywhere(
        self, accounts: AccountStore, accounts_elsewhere: AccountStore
    ) -> None:
        """The moment the call returns; the second time there is nothing to revoke."""
        await accounts.put_account(ANA, None, replace=False, now=NOW)
        await accounts.put_key(key("k"))
        await accounts.put_key(key("l"))

        assert await accounts.remove_key("k")

        assert await accounts_elsewhere.find_key("k") is None
        assert await accounts_elsewhere.find_key("l") is not None
        assert not await accounts.remove_key("k")

    async def test_an_account_goes_with_its_keys(
        self, accounts: AccountStore, accounts_elsewhere: AccountStore
    ) -> None:
        """And whoever takes the name later has none of them."""
        await accounts.put_account(ANA, None, replace=False, now=NOW)
        await accounts.put_key(key("k"))

        assert await accounts.remove_account("ana")

        assert await accounts_elsewhere.find_account("ana") is None
        assert await accounts_elsewhere.find_key("k") is None
        assert not await accounts.remove_account("ana")
        await accounts.put_account(ANA, None, replace=False, now=NOW)
        assert await accounts_elsewhere.keys("ana") == []
