"""Layers that are blobs of a registry: ``docker://`` locations; and the registries that included images are in.

A configured upstream is read with our credentials, which is why the caller has to be one who may pull that repository
here; so it has to be for what this registry holds itself. Any other registry is asked as nobody, and only where it is
on the public internet (upstream/egress.py).
"""

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

from roadstead.augment.locations import HERE, BlobAddress, LayerForbiddenError, LayerMismatchError
from roadstead.augment.ports import LayerSource, MayPull, ReadableRegistry, Registries
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName


class KnownRegistries:
    """Gives the client of a registry, as whom the caller may read it."""

    def __init__(
        self,
        configured: Callable[[str], ReadableRegistry | None],
        anonymous: Callable[[str], ReadableRegistry],
        here: ReadableRegistry | None = None,
        own_hosts: Collection[str] = (),
    ) -> None:
        """Take what gives the client of a configured host, None for others; and that of any host, as nobody.

        `here` is this registry itself, which is meant by `own_hosts` beside HERE.
        """
        self._here = here
        self._own_hosts = frozenset(own_hosts)
        self._configured = configured
        self._anonymous = anonymous

    def registry(self, host: str, repository: RepositoryName, may_pull: MayPull) -> ReadableRegistry:
        """Return the client to read a repository with; raises LayerForbiddenError, and nobody is asked."""
        if self._here is not None and (host == HERE or host in self._own_hosts):
            if not may_pull(str(repository)):
                raise LayerForbiddenError(str(repository))
            return self._here
        registry = self._configured(host)
        if registry is None:
            return self._anonymous(host)
        if not may_pull(f"{host}/{repository}"):
            raise LayerForbiddenError(f"{host}/{repository}")
        return registry


class RegistryLayers:
    """Reads ``docker://`` locations."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    async def read(
        self, location: str, digest: Digest | None, size: int | None, may_pull: MayPull
    ) -> AsyncGenerator[bytes, None]:
        """Yield the blob's bytes; raises LayerForbiddenError before anybody is asked, and the errors of upstreams."""
        address = BlobAddress.parse(location)
        if digest is not None and address.digest != digest:
            raise LayerMismatchError(location, f"the location names {address.digest}, not {digest}")
        registry = self._registries.registry(address.host, address.repository, may_pull)
        async with aclosing(registry.blob(address.repository, address.digest, size=size)) as pieces:
            async for piece in pieces:
                yield piece


def _claims(registries: KnownRegistries) -> tuple[LayerSource, Registries]:
    """Tell the type checker what these plugs are."""
    return RegistryLayers(registries), registries
