"""Principals, policies and what narrows them, for Hypothesis: few names, so that they meet."""

from typing import Any

from hypothesis import strategies as st

from roadstead.auth.caller import Action, Caller, RepositoryGlob, Scope
from roadstead.auth.principal import ANONYMOUS, Grant, Principal, PrincipalKind

REPOSITORIES = ("team/app", "team/web", "team", "ana/tools", "bob/tools", "library/busybox")
GLOBS = ("**", "*", "team/*", "team/app", "{user}/**", "{user}/tools", "*/tools", "t*m/**", "library/busybox")
NAMES = ("ana", "bob", "Ana", "a*", "team")
GROUPS = ("ci", "admins")

groups = st.frozensets(st.sampled_from(GROUPS))
principals = st.one_of(
    st.just(ANONYMOUS),
    st.builds(Principal, st.sampled_from([PrincipalKind.USER, PrincipalKind.ROBOT]), st.sampled_from(NAMES), groups),
)
issued = st.builds(Principal, st.just(PrincipalKind.ISSUED), st.sampled_from(NAMES))
repositories = st.sampled_from(REPOSITORIES)
actions = st.sampled_from(list(Action))
action_words = st.sampled_from([action.value for action in Action])

subjects = st.one_of(
    st.sampled_from(["anonymous", "authenticated", "everyone"]),
    st.builds("{}:{}".format, st.sampled_from(["user", "robot", "issued"]), st.sampled_from(["ana", "bob", "team"])),
    st.builds("group:{}".format, st.sampled_from(GROUPS)),
)
policies: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "subjects": st.lists(subjects, min_size=1, max_size=3),
        "repositories": st.lists(st.sampled_from(GLOBS), min_size=1, max_size=3),
        "actions": st.lists(action_words, min_size=1, max_size=4),
        "effect": st.sampled_from(["allow", "allow", "allow", "deny"]),
    }
)

_repository_grants = st.builds(
    Grant,
    st.sampled_from(["repository", "repository(plugin)"]),
    repositories,
    st.frozensets(st.sampled_from(["pull", "push", "delete", "*"])),
)
_registry_grants = st.builds(
    Grant, st.just("registry"), st.sampled_from(["catalog", "admin"]), st.just(frozenset({"*"}))
)
grants = st.lists(st.one_of(_repository_grants, _registry_grants), max_size=4).map(tuple)
scopes = st.builds(
    Scope, st.lists(st.sampled_from(GLOBS).map(RepositoryGlob.parse), max_size=3).map(tuple), st.frozensets(actions)
)
callers = st.one_of(
    st.builds(Caller, principals),
    st.builds(Caller, st.one_of(principals, issued), grants=grants),
    st.builds(Caller, principals.filter(lambda principal: principal != ANONYMOUS), scope=scopes),
)
