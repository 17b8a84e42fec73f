"""Scopes of token requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.auth.principal import Grant
from roadstead.auth.scope import MAX_SCOPES, format_scope, parse_scopes


def grant(kind: str, name: str, *actions: str) -> Grant:
    return Grant(kind, name, frozenset(actions))


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], []),
        (["repository:team/app:pull,push"], [grant("repository", "team/app", "pull", "push")]),
        (["repository:a:pull repository:b:push"], [grant("repository", "a", "pull"), grant("repository", "b", "push")]),
        (["repository:a:pull", "repository:a:pull,push"], [grant("repository", "a", "pull", "push")]),
        (["repository:localhost:5000/app:pull"], [grant("repository", "localhost:5000/app", "pull")]),
        (["repository(plugin):a:pull"], [grant("repository(plugin)", "a", "pull")]),
        (["registry:catalog:*"], [grant("registry", "catalog", "*")]),
        (["repository:a:"], [grant("repository", "a")]),
        (["repository:a:,pull,"], [grant("repository", "a", "pull")]),
        (["", "  ", "x", "a:b", "Repository:a:pull", "repository::pull", ":a:pull"], []),
    ],
)
def test_scopes_are_read(texts: list[str], found: list[Grant]) -> None:
    """One or several, apart or together, added up; what can't be read is left out."""
    assert parse_scopes(texts) == found


def test_their_number_is_limited() -> None:
    """More than any client asks for is not looked at."""
    assert len(parse_scopes([" ".join(f"repository:r{n}:pull" for n in range(MAX_SCOPES + 50))])) == MAX_SCOPES


@given(
    st.from_regex(r"[a-z0-9]+", fullmatch=True),
    st.from_regex(r"[a-z0-9/._-]+(:[0-9]+/[a-z]+)?", fullmatch=True),
    st.frozensets(st.sampled_from(["pull", "push", "delete", "*"])),
)
def test_a_scope_that_was_printed_is_read_again(kind: str, name: str, actions: frozenset[str]) -> None:
    """Printing and reading are each other's inverse."""
    assert parse_scopes([format_scope(Grant(kind, name, actions))]) == [Grant(kind, name, actions)]
