"""Who somebody is here, from what an issuer says of them."""

from collections.abc import Mapping
from typing import Any

import pytest

from roadstead.auth.oidc.errors import PersonRefusedError
from roadstead.auth.oidc.person import MOST_GROUPS, PersonRules, find_claim, person_of

CLAIMS = {"sub": "s-1", "preferred_username": "ana"}


def rules(**changes: Any) -> PersonRules:
    return PersonRules(issuer="corp", **changes)


@pytest.mark.parametrize(
    ("claims", "path", "found"),
    [
        ({"groups": ["a"]}, "groups", ["a"]),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", ["a"]),
        ({"https://example.org/groups": ["a"]}, "https://example.org/groups", ["a"]),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"b": {"c": 3}}}, "a.b.c", 3),
        ({"a": ["b"]}, "a.b", None),
        ({}, "a.b", None),
    ],
)
def test_a_claim_is_found(claims: Mapping[str, object], path: str, found: object) -> None:
    """By its name, dots and all, or inside others."""
    assert find_claim(claims, path) == found


def test_groups_and_name_get_their_prefixes() -> None:
    """What isn't a name for a group is left out."""
    said = {**CLAIMS, "groups": ["dev", "", 7, "a\nb", "x" * 256, "Domain Users", None]}

    person = person_of(said, rules(groups_claim="groups", user_prefix="corp-", group_prefix="corp-"))

    assert (person.subject, person.name) == ("s-1", "corp-ana")
    assert person.groups == {"corp-dev", "corp-Domain Users"}


@pytest.mark.parametrize("said", [None, {}, 7, {"dev": True}])
def test_without_a_list_of_groups_there_are_none(said: object) -> None:
    """Nor where no claim is named."""
    assert person_of({**CLAIMS, "groups": said}, rules(groups_claim="groups")).groups == frozenset()
    assert person_of({**CLAIMS, "groups": ["admins"]}, rules()).groups == frozenset()


def test_a_single_group_may_be_a_text() -> None:
    """As some issuers write it."""
    assert person_of({**CLAIMS, "groups": "dev"}, rules(groups_claim="groups")).groups == {"dev"}


def test_groups_of_another_issuer_are_not_given() -> None:
    """Whoever names a group like another issuer's, prefix and all, isn't in that."""
    said = {**CLAIMS, "groups": ["corp-admins", "dev"]}

    person = person_of(said, rules(groups_claim="groups", other_group_prefixes=("corp-",)))

    assert person.groups == {"dev"}


ALLOWED = {"groups_claim": "groups", "allowed_groups": frozenset({"staff"}), "group_prefix": "x-"}
DOMAINS = {"allowed_domains": frozenset({"corp.example"})}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, {"preferred_username": None}),
        ({}, {"preferred_username": ""}),
        ({}, {"preferred_username": ["ana"]}),
        ({}, {"preferred_username": "ana maria"}),
        ({}, {"preferred_username": "ana:x"}),
        ({}, {"preferred_username": "-ana"}),
        ({}, {"preferred_username": "team/ana"}),
        ({}, {"preferred_username": "x" * 129}),
        ({"username_claim": "email"}, {"email": "ana@corp.example"}),
        ({"username_claim": "email"}, {"email": "ana@corp.example", "email_verified": "true"}),
        ({"other_user_prefixes": ("an",)}, {}),
        (ALLOWED, {}),
        (ALLOWED, {"groups": ["guests"]}),
        (ALLOWED, {"groups": ["x-staff"]}),
        (ALLOWED, {"groups": {"staff": True}}),
        ({"groups_claim": "groups"}, {"groups": ["g"] * (MOST_GROUPS + 1)}),
        (DOMAINS, {}),
        (DOMAINS, {"email": "ana@corp.example"}),
        (DOMAINS, {"email": "ana@corp.example", "email_verified": False}),
        (DOMAINS, {"email": "ana@corp.example.evil.example", "email_verified": True}),
        (DOMAINS, {"email": "ana@sub.corp.example", "email_verified": True}),
        ({**DOMAINS, "domain_claim": "hd"}, {"email": "ana@corp.example", "email_verified": True}),
        ({**DOMAINS, **ALLOWED}, {"groups": ["staff"]}),
    ],
)
def test_somebody_may_not_come_in(changes: Mapping[str, Any], more: Mapping[str, object]) -> None:
    """Each is told why, and whom to ask."""
    with pytest.raises(PersonRefusedError) as raised:
        person_of({**CLAIMS, **more}, rules(**changes))
    assert raised.value.advice()


@pytest.mark.parametrize(
    ("changes", "more", "name"),
    [
        ({"username_claim": "email"}, {"email": "ana@corp.example", "email_verified": True}, "ana@corp.example"),
        (ALLOWED, {"groups": ["guests", "staff"]}, "ana"),
        (DOMAINS, {"email": "ana@CORP.example", "email_verified": True}, "ana"),
        ({**DOMAINS, "domain_claim": "hd"}, {"hd": "corp.example"}, "ana"),
        ({"user_prefix": "a-", "other_user_prefixes": ("",)}, {}, "a-ana"),
    ],
)
def test_somebody_may_come_in(changes: Mapping[str, Any], more: Mapping[str, object], name: str) -> None:
    """By a group, by a verified address, by what Google calls the domain."""
    assert person_of({**CLAIMS, **more}, rules(**changes)).name == name
