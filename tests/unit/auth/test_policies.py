"""Policies and what they come to."""

import tracemalloc
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.auth import model
from tests.unit.auth.strategies import actions, callers, policies, repositories

from roadstead.auth.caller import NOBODY, Action, Caller, RepositoryGlob, Scope
from roadstead.auth.policies import Policies, Policy, Subject, SubjectInvalidError, needed
from roadstead.auth.principal import ANONYMOUS, Grant, Principal, PrincipalKind
from roadstead.oci.pattern import PatternInvalidError
from roadstead.settings.model import PolicyAction, PolicyEffect

ANA = Principal(PrincipalKind.USER, "ana", frozenset({"developers"}))
CI = Principal(PrincipalKind.ROBOT, "ci")
SYN = Principal(PrincipalKind.ISSUED, "3300")


def policy(subject: str, repositories: str, actions: str, effect: str = "allow", name: str = "p") -> Policy:
    return Policy.parse(name, subject.split(), repositories.split(), actions.split(), effect)


@pytest.mark.parametrize(
    ("subject", "principal", "matches"),
    [
        ("user:ana", ANA, True),
        ("user:bob", ANA, False),
        ("robot:ana", ANA, False),
        ("robot:c*", CI, True),
        ("user:*", ANA, True),
        ("user:*", CI, False),
        ("group:developers", ANA, True),
        ("group:dev", ANA, False),
        ("issued:3300", SYN, True),
        ("authenticated", SYN, True),
        ("authenticated", ANONYMOUS, False),
        ("anonymous", ANONYMOUS, True),
        ("anonymous", ANA, False),
        ("everyone", ANONYMOUS, True),
        ("everyone", CI, True),
        ("user:*", ANONYMOUS, False),
    ],
)
def test_subjects(subject: str, principal: Principal, matches: bool) -> None:
    """Kinds are kept apart: a robot isn't the user of the same name."""
    assert Subject.parse(subject).matches(principal) is matches


@pytest.mark.parametrize("text", ["", "ana", "user:", "user:a b", "person:ana", "Anonymous", "group"])
def test_a_subject_that_is_nobody_is_refused(text: str) -> None:
    """The error says which kinds there are."""
    with pytest.raises(SubjectInvalidError, match="user:NAME"):
        Subject.parse(text)


@pytest.mark.parametrize(
    ("glob", "repository", "name", "matches"),
    [
        ("team/*", "team/app", "", True),
        ("team/*", "team/app/sub", "", False),
        ("team/**", "team/app/sub", "", True),
        ("{user}/**", "ana/app", "ana", True),
        ("{user}/**", "bob/app", "ana", False),
        ("{user}/**", "bob/app", "*", False),
        ("{user}/**", "bob/app", "b*", False),
        ("{user}/**", "a/b/app", "a/b", False),
        ("{user}/**", "app", "", False),
        ("home-{user}/*", "home-ana/x", "ana", True),
        ("{user}/**", "ana/app", "Ana", False),
    ],
)
def test_repositories(glob: str, repository: str, name: str, matches: bool) -> None:
    """A name stands for itself: one with a star or a slash in it reaches nobody else's repositories."""
    assert RepositoryGlob.parse(glob).matches(repository, name) is matches


@pytest.mark.parametrize("text", ["team/app:1", "", "Team/*", "{owner}/*", "a//b", "***"])
def test_a_glob_that_cannot_match_is_refused(text: str) -> None:
    """A tag, or what can't be in a repository's name."""
    with pytest.raises(PatternInvalidError):
        RepositoryGlob.parse(text)


def test_what_denies_wins_wherever_it_stands() -> None:
    """Before or behind a policy that allows, and the explanation names it."""
    everything = policy("everyone", "**", "pull push", name="open")
    secret = policy("user:ana", "team/secret", "pull", "deny", name="closed")

    for both in ((everything, secret), (secret, everything)):
        rules = Policies(both)
        denied = rules.decide(Caller(ANA), Action.PULL, "team/secret")
        assert (denied.allowed, denied.because) == (False, "closed denies user:ana to pull team/secret")
        assert rules.decide(Caller(ANA), Action.PULL, "team/open").allowed
        assert rules.decide(Caller(CI), Action.PULL, "team/secret").allowed


def test_what_no_policy_allows_is_denied() -> None:
    """Also for somebody of whom other policies speak."""
    decision = Policies((policy("user:ana", "team/*", "pull"),)).decide(Caller(ANA), Action.PUSH, "team/app")

    assert (decision.allowed, decision.because) == (False, "no policy allows user:ana to push team/app")


@pytest.mark.parametrize(
    ("principal", "action", "allowed"),
    [
        (ANONYMOUS, Action.PULL, False),
        (ANONYMOUS, Action.CATALOG, False),
        (ANA, Action.PUSH, True),
        (ANA, Action.DELETE, True),
        (ANA, Action.ADMIN, False),
        (CI, Action.PULL, True),
        (Principal(PrincipalKind.USER, "root", frozenset({"admins"})), Action.ADMIN, True),
    ],
)
def test_without_policies_signing_in_is_what_counts(principal: Principal, action: Action, allowed: bool) -> None:
    """As with distribution's htpasswd; the installation itself is for admins."""
    repository = "team/app" if action.of_repository else None

    assert Policies().decide(Caller(principal), action, repository).allowed is allowed


def test_a_token_narrows_what_policies_allow() -> None:
    """Never more than the policies or the grants; the latter is told apart, so that another token is asked for."""
    rules = Policies((policy("user:ana", "team/*", "pull push"),))
    pull = Caller(ANA, grants=(Grant("repository", "team/app", frozenset({"pull"})),))
    everything = Caller(ANA, grants=(Grant("repository", "other/app", frozenset({"*"})),))

    assert rules.decide(pull, Action.PULL, "team/app").allowed
    assert rules.decide(pull, Action.PUSH, "team/app").by_token
    assert rules.decide(pull, Action.PULL, "team/app/b").by_token, "a token for `a` isn't one for `a/b`"
    beyond = rules.decide(everything, Action.PULL, "other/app")
    assert (beyond.allowed, beyond.by_token) == (False, False)


def test_a_foreign_issuers_token_counts_alone_until_policies_are_written() -> None:
    """As with distribution; then both have to agree."""
    caller = Caller(SYN, grants=(Grant("repository", "syn1/app", frozenset({"pull", "push"})),))

    assert Policies().decide(caller, Action.PUSH, "syn1/app").allowed
    assert not Policies().decide(caller, Action.DELETE, "syn1/app").allowed
    assert not Policies((policy("user:*", "**", "push"),)).decide(caller, Action.PUSH, "syn1/app").allowed
    assert Policies((policy("issued:*", "**", "push"),)).decide(caller, Action.PUSH, "syn1/app").allowed


def test_a_key_is_never_good_for_more_than_its_owner() -> None:
    """Its scope and the policies both have to agree."""
    rules = Policies((policy("user:ana", "team/*", "pull push catalog"),))
    key = Caller(ANA, scope=Scope((RepositoryGlob("**"),), frozenset({Action.PULL, Action.DELETE})))

    assert rules.decide(key, Action.PULL, "team/app").allowed
    assert not rules.decide(key, Action.PUSH, "team/app").allowed
    assert not rules.decide(key, Action.DELETE, "team/app").allowed
    assert not rules.decide(key, Action.PULL, "other/app").allowed
    assert not rules.decide(key, Action.CATALOG, None).allowed


def test_what_tokens_with_many_grants_come_to_is_not_remembered() -> None:
    """Whoever asks for one such token after another fills no memory; what they may is decided all the same."""
    rules = Policies()
    tracemalloc.start()
    try:
        for number in range(200):
            grants = tuple(Grant("repository", f"{number}/{place}", frozenset({"pull"})) for place in range(100))
            assert rules.decide(Caller(ANA, grants=grants), Action.PULL, f"{number}/99").allowed
            assert not rules.decide(Caller(ANA, grants=grants), Action.PUSH, f"{number}/99").allowed
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20


def test_whether_there_is_anything_to_hope_for() -> None:
    """Nobody in particular may do something as soon as one policy allows it somewhere."""
    assert not Policies().may_do_anything(NOBODY)
    assert not Policies((policy("user:ana", "**", "pull"), policy("everyone", "**", "pull", "deny"))).may_do_anything(
        NOBODY
    )
    assert Policies((policy("anonymous", "library/*", "pull"),)).may_do_anything(NOBODY)


def test_what_a_challenge_asks_for() -> None:
    """As distribution asks (Docker token spec): who pushes pulls as well, the catalog is of the registry."""
    assert needed(Action.PUSH, "a/b") == Grant("repository", "a/b", frozenset({"pull", "push"}))
    assert needed(Action.PULL, "a/b") == Grant("repository", "a/b", frozenset({"pull"}))
    assert needed(Action.DELETE, "a/b") == Grant("repository", "a/b", frozenset({"delete"}))
    assert needed(Action.CATALOG, None) == Grant("registry", "catalog", frozenset({"*"}))


def test_settings_and_rules_know_the_same_words() -> None:
    """Settings have the words of their own, since that room knows no other."""
    assert [word.value for word in PolicyAction] == [word.value for word in Action]
    assert [word.value for word in PolicyEffect] == ["allow", "deny"]


@given(st.lists(policies, max_size=6), callers, actions, repositories)
def test_the_rules_decide_as_the_model_does(
    tables: list[dict[str, list[str]]], caller: Caller, action: Action, repository: str
) -> None:
    """Whatever the policies, whoever asks, with whatever they came."""
    rules = Policies(tuple(Policy.parse(f"p{at}", **table) for at, table in enumerate(tables)))  # type: ignore[arg-type]
    place = repository if action.of_repository else None

    decision = rules.decide(caller, action, place)

    assert decision.allowed is model.allowed(tables, caller, action.value, place)
    assert decision.because


@given(st.lists(policies, max_size=6), callers, actions, repositories, st.randoms())
def test_the_order_of_policies_does_not_count(
    tables: list[dict[str, list[str]]], caller: Caller, action: Action, repository: str, random: Random
) -> None:
    """Shuffled they come to the same."""
    rules = [Policy.parse(f"p{at}", **table) for at, table in enumerate(tables)]  # type: ignore[arg-type]
    shuffled = random.sample(rules, len(rules))

    assert (
        Policies(tuple(rules)).decide(caller, action, repository).allowed
        is Policies(tuple(shuffled)).decide(caller, action, repository).allowed
    )


@given(st.lists(policies, max_size=6), callers, actions.filter(lambda action: action.of_repository), repositories)
def test_what_is_decided_for_many_is_decided_for_each(
    tables: list[dict[str, list[str]]], caller: Caller, action: Action, repository: str
) -> None:
    """A listing shows what would be given; its tokens don't count, and no name is missed for how it begins."""
    rules = Policies(tuple(Policy.parse(f"p{at}", **table) for at, table in enumerate(tables)))  # type: ignore[arg-type]
    caller = replace(caller, grants=None)

    sight = rules.sight(caller.principal, caller.scope, action)

    assert sight.sees(repository) is rules.decide(caller, action, repository).allowed
    if sight.sees(repository):
        assert any(repository.startswith(beginning) for beginning in sight.beginnings)
    for one in sight.beginnings:
        assert [other for other in sight.beginnings if one.startswith(other)] == [one]
