"""Pages of a catalog of which not all may be shown: the same names as if each were looked at, from fewer reads."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.policies import Policies, Policy
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.registry.catalog import Catalog

ANA = Principal(PrincipalKind.USER, "ana")
LETTERS = "a0-./_"
_component = st.from_regex(r"[a0]+((\.|_|__|-+)[a0]+)?", fullmatch=True).filter(lambda text: len(text) < 6)
names = st.lists(_component, min_size=1, max_size=3).map("/".join)
globs = st.one_of(
    names,
    names.map(lambda name: f"{name}/*"),
    names.map(lambda name: f"{name}*"),
    st.sampled_from(["**", "*/a", "a**"]),
)


class Listed:
    """The names of a catalog, in its order; counts those that were read."""

    def __init__(self, present: Sequence[str]) -> None:
        self._present = sorted(present, key=self._place)
        self.read = 0

    async def repositories(self, *, after: str, limit: int) -> Sequence[str]:
        """Return up to so many names behind that text."""
        found = [name for name in self._present if self._place(name) > self._place(after)][:limit]
        self.read += len(found)
        return found

    @staticmethod
    def _place(name: str) -> list[str]:
        return name.split("/")


def catalog(listed: Any) -> Catalog:
    return Catalog(listed, max_tags=9, default_repositories=100, max_repositories=1000, max_referrers=9)


def everything_by_page(listed: Listed, policies: Policies, key: Scope | None, n: int, after: str) -> list[str]:
    """Return what ana is shown, from page to page."""

    async def run() -> list[str]:
        found: list[str] = []
        page = await catalog(listed).repositories(after=after, n=n, visible=policies.sight(ANA, key, Action.PULL))
        found += page.items
        while page.more:
            sight = policies.sight(ANA, key, Action.PULL)
            page = await catalog(listed).repositories(after=found[-1], n=n, visible=sight)
            found += page.items
        return found

    return asyncio.run(run())


@given(
    present=st.sets(names, max_size=40),
    allowed=st.lists(globs, min_size=1, max_size=4),
    denied=st.lists(globs, max_size=2),
    key=st.one_of(st.none(), st.lists(globs, min_size=1, max_size=3)),
    n=st.integers(1, 5),
    after=st.one_of(st.just(""), names, st.text(LETTERS, max_size=6)),
)
@example(present={"a-a", "a0", "a00"}, allowed=["a0*"], denied=[], key=None, n=1, after="")  # what is just before
@example(present={"a-a", "a", "a/a", "a0"}, allowed=["a/*", "a"], denied=[], key=None, n=1, after="a")
def test_pages_hold_what_may_be_seen(
    present: set[str], allowed: list[str], denied: list[str], key: list[str] | None, n: int, after: str
) -> None:
    """All of it, in order, whatever the globs begin with and wherever the first page begins."""
    written = [Policy.parse("allow", ["user:ana"], allowed, ["pull"])]
    if denied:
        written.append(Policy.parse("deny", ["everyone"], denied, ["pull"], "deny"))
    scope = None if key is None else Scope(tuple(map(RepositoryGlob.parse, key)), frozenset({Action.PULL}))
    listed = Listed(sorted(present))

    found = everything_by_page(listed, Policies(written), scope, n, after)

    def fits(globs: list[str], name: str) -> bool:
        return any(RepositoryGlob.parse(glob).matches(name, "ana") for glob in globs)

    assert found == [
        name
        for name in sorted(present, key=lambda name: name.split("/"))
        if name.replace("/", "\1") > after.replace("/", "\1")
        if fits(allowed, name) and not fits(denied, name) and (key is None or fits(key, name))
    ]


def test_what_others_have_is_not_read() -> None:
    """Ten names among ten thousand cost ten, and a name that is written out costs one."""
    others = [f"team{number:04}/app" for number in range(10_000)]
    listed = Listed([*others, *(f"ana/app{number}" for number in range(10)), "zoo/lion"])
    policies = Policies([Policy.parse("p", ["user:ana"], ["{user}/**", "zoo/lion"], ["pull"])])

    assert len(everything_by_page(listed, policies, None, 100, "")) == 11
    assert listed.read <= 100 + 11
