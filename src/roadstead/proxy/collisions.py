"""Names that mean something else here than they do where their images come from (design decision 9). Pure."""

from collections.abc import Collection, Sequence

from roadstead.oci.reference import RepositoryName
from roadstead.proxy.spaces import Upstream, default_space
from roadstead.registry.collision import Collides, Collision


def collisions(upstreams: Sequence[Upstream], reserved: Collection[str]) -> Collides:
    """Return what says of a repository's name whether it means something else; `reserved` are first components."""
    hosts = {upstream.host for upstream in upstreams}
    default_of = default_space(upstreams)

    def look(name: RepositoryName) -> Collision | None:
        first, slash, _ = name.value.partition("/")
        if slash and first in reserved:
            return Collision(name, f"{first}/ is for names that say how an image is to be given", reachable=False)
        if slash and first in hosts:
            return Collision(name, f"{first}/ is for images of the upstream {first}", reachable=False)
        upstream = default_of(name.value)
        if upstream is None:
            return None
        reason = f"it is among the names that the upstream {upstream.host} is the default for"
        return Collision(name, reason, reachable=not upstream.whole)

    return look
