"""From what an issuer says of somebody to who they are here, and whether they may come in. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roadstead.auth.names import AccountNameInvalidError, parse_account_name
from roadstead.auth.oidc.errors import PersonRefusedError

MOST_GROUPS = 1000
_LONGEST_GROUP = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRules:
    """How an issuer's people are known here, and which of them may come in.

    Names and groups get prefixes; those that then would look like another issuer's (`others`) aren't taken. Of
    `allowed_groups` one will do, and of `allowed_domains` too; where both are named one has to have both.
    """

    issuer: str
    username_claim: str = "preferred_username"
    groups_claim: str | None = None
    user_prefix: str = ""
    group_prefix: str = ""
    other_user_prefixes: tuple[str, ...] = ()
    other_group_prefixes: tuple[str, ...] = ()
    allowed_groups: frozenset[str] = frozenset()
    allowed_domains: frozenset[str] = frozenset()
    domain_claim: str = "email"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as an issuer vouches for them; ``subject`` is what it calls them for ever."""

    subject: str
    name: str
    groups: frozenset[str]


def person_of(claims: Mapping[str, object], rules: PersonRules) -> Person:
    """Return who it is; raises PersonRefusedError."""
    groups = _groups(claims, rules)
    if rules.allowed_groups and not rules.allowed_groups & set(groups):
        raise PersonRefusedError(
            f"{rules.issuer} has signed you in, and you are in none of the groups that may come in here",
            "Ask those who look after this registry which groups that are, and be added to one; then begin again.",
        )
    if rules.allowed_domains and _domain(claims, rules) not in rules.allowed_domains:
        raise PersonRefusedError(
            f"{rules.issuer} has signed you in, with an address whose domain may not come in here or isn't verified",
            "Begin again with your other account; if there is none, ask those who look after this registry.",
        )
    own = frozenset(
        name for group in groups if not (name := rules.group_prefix + group).startswith(_longer(
            rules.group_prefix, rules.other_group_prefixes))
    )  # fmt: skip
    return Person(str(claims["sub"]), _name(claims, rules), own)


def find_claim(claims: Mapping[str, object], path: str) -> object:
    """Return a claim: one that is called so (names may have dots), else one inside others, ``a.b``; None: not there."""
    if path in claims:
        return claims[path]
    found: object = claims
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def _name(claims: Mapping[str, object], rules: PersonRules) -> str:
    said = find_claim(claims, rules.username_claim)
    if not isinstance(said, str) or not said:
        raise PersonRefusedError(
            f"{rules.issuer} tells no name for you: the claim {rules.username_claim} is missing",
            "Those who look after this registry can name another one (username_claim), or ask for more (scopes).",
        )
    if rules.username_claim == "email" and claims.get("email_verified") is not True:
        raise PersonRefusedError(
            f"{rules.issuer} knows you by an address that it has not verified",
            "Have your address verified there, then begin again.",
        )
    try:
        name = parse_account_name(rules.user_prefix + said)
    except AccountNameInvalidError as error:
        raise PersonRefusedError(
            str(error), "Those who look after this registry can have another claim name people here (username_claim)."
        ) from error
    if name.startswith(_longer(rules.user_prefix, rules.other_user_prefixes)):
        raise PersonRefusedError(
            f"the name {name} would look like somebody's of another issuer",
            "Have another name at the issuer, or ask those who look after this registry to change its user_prefix.",
        )
    return name


def _longer(own: str, others: Sequence[str]) -> tuple[str, ...]:
    """Return the other prefixes that one's own names may begin with by chance, or on purpose."""
    return tuple(other for other in others if other != own and other.startswith(own))


def _groups(claims: Mapping[str, object], rules: PersonRules) -> Sequence[str]:
    said = None if rules.groups_claim is None else find_claim(claims, rules.groups_claim)
    if isinstance(said, str):
        said = [said]
    if not isinstance(said, list):
        return ()
    if len(said) > MOST_GROUPS:
        raise PersonRefusedError(
            f"{rules.issuer} names {len(said)} groups of yours, and {MOST_GROUPS} are the most that are kept here",
            "Those who look after the issuer can have it name fewer to this registry.",
        )
    return [group for group in said if isinstance(group, str) and 0 < len(group) <= _LONGEST_GROUP
            and group.isprintable()]  # fmt: skip


def _domain(claims: Mapping[str, object], rules: PersonRules) -> str | None:
    said = find_claim(claims, rules.domain_claim)
    if not isinstance(said, str):
        return None
    if rules.domain_claim == "email" and claims.get("email_verified") is not True:
        return None
    return said.rpartition("@")[2].lower()
