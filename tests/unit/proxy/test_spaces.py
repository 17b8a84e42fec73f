"""Which names are whose (design decision 9)."""

from collections.abc import Sequence
from datetime import datetime

import pytest

from roadstead.oci.digest import Digest
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.proxy.ports import PulledStore, PulledTag
from roadstead.proxy.spaces import Routed, Spaces, Upstream


class Hosted:
    """A store that knows repositories by name, and nothing else."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[str] = []

    async def is_known(self, repository: RepositoryName) -> bool:
        """Say whether it is one of the names."""
        self.asked.append(repository.value)
        return repository.value in self.names

    async def find_tag(self, repository: RepositoryName, tag: Tag) -> PulledTag | None:
        """Know nothing."""
        return None

    async def note_checked(self, repository: RepositoryName, tag: Tag, digest: Digest, *, now: datetime) -> None:
        """Forget it."""

    async def note_pulled(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> None:
        """Forget it."""

    async def idle(self, space: str, *, before: datetime, limit: int) -> Sequence[tuple[RepositoryName, Digest]]:
        """Know nothing."""
        return ()

    async def shadowed(self, space: str, *, limit: int) -> Sequence[RepositoryName]:
        """Know nothing."""
        return ()


_: PulledStore = Hosted()

UPSTREAMS = (
    Upstream(host="docker.io", default_for=(Pattern.parse("library/*"),)),
    Upstream(host="quay.io"),
    Upstream(host="open.example", default_for=(Pattern.parse("open/**"),), allow_push=True),
    Upstream(host="whole.example", default_for=(Pattern.parse("whole/*"),), whole=True),
)


@pytest.mark.parametrize(
    ("text", "namespace", "routed"),
    [
        ("team/app", None, Routed("team/app")),
        ("docker.io/library/app", None, Routed("docker.io/library/app")),
        ("quay.io/org/app", None, Routed("quay.io/org/app")),
        ("quay.io", None, Routed("quay.io")),
        ("other.example/org/app", None, Routed("other.example/org/app")),
        ("library/app", None, Routed("docker.io/library/app", "library/app")),
        ("library/hosted", None, Routed("library/hosted")),
        ("whole/hosted", None, Routed("whole.example/whole/hosted", "whole/hosted")),
        ("library/a/b", None, Routed("library/a/b")),
        ("open/a/b", None, Routed("open.example/open/a/b", "open/a/b")),
        ("library/app", "quay.io", Routed("quay.io/library/app", "library/app", "quay.io")),
        ("library/hosted", "docker.io", Routed("docker.io/library/hosted", "library/hosted", "docker.io")),
        ("docker.io/app", None, Routed("docker.io/library/app", "docker.io/app")),
        ("index.docker.io/app", None, Routed("docker.io/library/app", "index.docker.io/app")),
        ("registry-1.docker.io/team/app", None, Routed("docker.io/team/app", "registry-1.docker.io/team/app")),
        ("team/app", "registry-1.docker.io", Routed("docker.io/team/app", "team/app", "registry-1.docker.io")),
        ("docker.io/", None, Routed("docker.io/")),
        ("quay.io/app", None, Routed("quay.io/app")),
        ("library/app", "stranger.example", Routed("library/app")),
        ("quay.io/org/app", "docker.io", Routed("quay.io/org/app")),
        ("Library/APP", None, Routed("Library/APP")),
        ("", None, Routed("")),
    ],
)
async def test_reads(text: str, namespace: str | None, routed: Routed) -> None:
    """The first component decides, then `?ns=`, then the defaults, unless the name is ours."""
    spaces = Spaces(UPSTREAMS, Hosted("library/hosted", "whole/hosted"))

    assert await spaces.route(text, namespace, writing=False) == routed


@pytest.mark.parametrize(
    ("text", "routed"),
    [
        ("team/app", Routed("team/app")),
        ("docker.io/library/app", Routed("docker.io/library/app", read_only="docker.io")),
        ("library/app", Routed("library/app", read_only="docker.io")),
        ("index.docker.io/app", Routed("docker.io/library/app", "index.docker.io/app", read_only="docker.io")),
        ("library/hosted", Routed("library/hosted")),
        ("whole/hosted", Routed("whole/hosted", read_only="whole.example")),
        ("open/app", Routed("open/app")),
        ("open.example/open/app", Routed("open.example/open/app", read_only="open.example")),
    ],
)
async def test_writes(text: str, routed: Routed) -> None:
    """What is an upstream's isn't pushed to; `?ns=` doesn't count."""
    spaces = Spaces(UPSTREAMS, Hosted("library/hosted", "whole/hosted"))

    assert await spaces.route(text, "quay.io", writing=True) == routed


async def test_only_defaults_cost_a_question() -> None:
    """The database isn't asked where the name alone decides."""
    store = Hosted()
    spaces = Spaces(UPSTREAMS, store)
    for text in ("team/app", "docker.io/library/app", "library/a/b"):
        await spaces.route(text, None, writing=False)
    assert store.asked == []


def test_places() -> None:
    """A repository of an upstream has another name there."""
    spaces = Spaces(UPSTREAMS, Hosted())
    place = spaces.place(RepositoryName("docker.io/library/app"))
    assert place is not None
    assert (place.upstream.host, place.remote.value) == ("docker.io", "library/app")
    assert spaces.place(RepositoryName("library/app")) is None
    assert spaces.place(RepositoryName("quay.io")) is None
