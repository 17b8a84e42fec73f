"""Names that mean something else here."""

import pytest

from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName
from roadstead.proxy.collisions import collisions
from roadstead.proxy.spaces import Upstream

LOOK = collisions(
    (
        Upstream(host="docker.io", default_for=(Pattern.parse("library/*"),)),
        Upstream(host="whole.example", default_for=(Pattern.parse("whole/**"),), whole=True),
    ),
    {"wt", "as-pushed"},
)


@pytest.mark.parametrize(
    ("name", "reachable", "told"),
    [
        ("wt/app", False, "wt/ is for names"),
        ("as-pushed/a/b", False, "as-pushed/ is for names"),
        ("docker.io/team/app", False, "the upstream docker.io"),
        ("library/app", True, "the upstream docker.io is the default for"),
        ("whole/a/b", False, "the upstream whole.example is the default for"),
    ],
)
def test_names_that_collide(name: str, reachable: bool, told: str) -> None:
    """By their first component, or by a default pattern."""
    found = LOOK(RepositoryName.parse(name))

    assert found is not None
    assert found.reachable is reachable
    assert told in str(found)
    assert str(found).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["team/app", "wt", "docker.io", "library/a/b", "quay.io/team/app"])
def test_names_that_do_not(name: str) -> None:
    """They mean here what they do elsewhere."""
    assert LOOK(RepositoryName.parse(name)) is None
