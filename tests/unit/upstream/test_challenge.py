"""What registries answer to strangers is read as RFC 9110 has it, several challenges in one line too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.upstream.challenge import Challenge, parse_challenges, preferred

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
HUB_READ = Challenge(
    "bearer",
    {
        "realm": "https://auth.docker.io/token",
        "service": "registry.docker.io",
        "scope": "repository:a/b:pull,push",
    },
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([HUB], [HUB_READ]),
        (['Basic realm="a, b=\\"c\\""'], [Challenge("basic", {"realm": 'a, b="c"'})]),
        ([f'{HUB}, Basic realm="old"'], [HUB_READ, Challenge("basic", {"realm": "old"})]),
        (['Basic realm="old", ' + HUB], [Challenge("basic", {"realm": "old"}), HUB_READ]),
        ([HUB, "Basic"], [HUB_READ, Challenge("basic")]),
        (["Negotiate YWJjZA==, Basic"], [Challenge("negotiate"), Challenge("basic")]),
        (["Negotiate, Basic realm=x"], [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        (['BEARER Realm = "https://a/t" , SERVICE=b'], [Challenge("bearer", {"realm": "https://a/t", "service": "b"})]),
        (['Bearer realm="a",realm="b"'], [Challenge("bearer", {"realm": "a"})]),
        ([", ,Basic"], [Challenge("basic")]),
        (['Bearer realm="unclosed'], [Challenge("bearer")]),
        (["", "="], []),
    ],
)
def test_challenges(lines: list[str], expected: list[Challenge]) -> None:
    """Each line gives its challenges in order."""
    found = parse_challenges(lines)

    assert [one.scheme for one in found] == [one.scheme for one in expected]
    assert [dict(one.parameters) for one in found] == [dict(one.parameters) for one in expected]


@pytest.mark.parametrize(
    ("line", "scheme"),
    [(f'Basic realm="x", {HUB}', "bearer"), ("Basic", "basic"), ("Bearer", None), ("Negotiate abc", None), ("", None)],
)
def test_preferred(line: str, scheme: str | None) -> None:
    """Bearer is answered before Basic; without a realm it can't be."""
    chosen = preferred(parse_challenges([line]))

    assert (chosen.scheme if chosen else None) == scheme


@given(st.text(max_size=300))
def test_anything_is_read(text: str) -> None:
    """No line can make the reader fail or loop."""
    parse_challenges([text])


TOKEN = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


@given(TOKEN, st.dictionaries(TOKEN, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)))
def test_what_is_quoted_comes_back(scheme: str, parameters: dict[str, str]) -> None:
    """A parameter's value is what was quoted."""
    quoted = [
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in parameters.items()
    ]

    (found,) = parse_challenges([f"{scheme} {', '.join(quoted)}"])

    assert (found.scheme, dict(found.parameters)) == (scheme, parameters)
