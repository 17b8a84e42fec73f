"""Who may do what, said once more and as simply as can be: the reference that rules and server are compared with.

A policy is a table as it stands in TOML. Patterns are matched by ``re``, subjects by comparing texts, and there is no
shortcut anywhere: the order of policies, early answers and caches belong to the code that is tested.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from roadstead.auth.caller import Caller
from roadstead.auth.principal import Principal, PrincipalKind

PolicyTable = Mapping[str, Any]

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")


def allowed(tables: Sequence[PolicyTable], caller: Caller, action: str, repository: str | None) -> bool:
    """Say whether the caller may, by these policies (none: signed in is enough, but for `admin`)."""
    if caller.grants is not None and not _granted(caller, action, repository):
        return False
    if caller.scope is not None and not _in_scope(caller, action, repository):
        return False
    if caller.principal.kind is PrincipalKind.ISSUED and not tables:
        return True
    if not tables:
        if caller.principal.kind is PrincipalKind.ANONYMOUS:
            return False
        return action != "admin" or "admins" in caller.principal.groups
    effects = {
        table.get("effect", "allow") for table in tables if _applies(table, caller.principal, action, repository)
    }
    return effects == {"allow"}


def _applies(table: PolicyTable, principal: Principal, action: str, repository: str | None) -> bool:
    return (
        action in table["actions"]
        and any(_is(subject, principal) for subject in table["subjects"])
        and (repository is None or any(fits(glob, repository, principal.name) for glob in table["repositories"]))
    )


def _is(subject: str, principal: Principal) -> bool:
    if subject == "everyone":
        return True
    if subject == "authenticated":
        return principal.kind is not PrincipalKind.ANONYMOUS
    if subject == "anonymous":
        return principal.kind is PrincipalKind.ANONYMOUS
    kind, _, name = subject.partition(":")
    names = principal.groups if kind == "group" else {principal.name} if kind == principal.kind.value else set()
    return name in names


def fits(glob: str, repository: str, name: str) -> bool:
    """Say whether a repository fits a glob; a name that can't be a component of a repository stands for nothing."""
    if "{user}" in glob:
        if not _NAME.fullmatch(name):
            return False
        glob = glob.replace("{user}", name)
    words = {"**": ".*", "*": "[^/]*"}
    pattern = "".join(words.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", glob))
    return re.fullmatch(pattern, repository, re.DOTALL) is not None


def _granted(caller: Caller, action: str, repository: str | None) -> bool:
    wanted = ("repository", repository) if repository is not None else ("registry", action)
    return any(
        (grant.kind.replace("(plugin)", ""), grant.name) == wanted and grant.actions & {action, "*"}
        for grant in caller.grants or ()
    )


def _in_scope(caller: Caller, action: str, repository: str | None) -> bool:
    scope = caller.scope
    assert scope is not None
    return action in {one.value for one in scope.actions} and (
        repository is None or any(fits(str(glob), repository, caller.principal.name) for glob in scope.repositories)
    )
