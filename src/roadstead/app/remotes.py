"""The clients of upstreams: who we are there, and where they may connect to."""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from roadstead.settings.model import SignIn, UpstreamSettings
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.credentials import BearerKey, Credentials, CredentialSource, DockerConfig, Given, Password
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.errors import CredentialsError, UnreachableError
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.retry import Backoff
from roadstead.upstream.transport import Exchange, Trace, Transport

_log = structlog.get_logger()

BACKOFF = Backoff(attempts=3, first_s=0.3, patience_s=5)
"""A client waits meanwhile, and tries again itself."""


@asynccontextmanager
async def open_remotes(
    upstreams: Sequence[UpstreamSettings], *, trace: bool = False
) -> AsyncGenerator[Mapping[str, RegistryClient], None]:
    """Give a client for each upstream, by its host; close their connections at the end.

    With `trace` every request is logged, without what is secret in it.
    """
    async with AsyncExitStack() as stack:
        remotes = {}
        for upstream in upstreams:
            transport = await stack.enter_async_context(_transport(upstream, _logged if trace else None))
            remotes[upstream.host] = _client(upstream, transport)
        yield remotes


def nobody(host: str) -> RegistryClient:
    """Raise: what is here is served, and nothing may change (``registry.read_only``)."""
    raise UnreachableError(host, "nothing is fetched while this registry is set to be read only", lasting=True)


def _client(upstream: UpstreamSettings, transport: Transport) -> RegistryClient:
    return RegistryClient(
        _address(upstream),
        transport,
        credentials=_credentials(upstream),
        trusted_realms=frozenset(upstream.trusted_hosts),
    )


def _credentials(upstream: UpstreamSettings) -> CredentialSource:
    given = None
    if upstream.username is not None and upstream.password is not None:
        given = Password(upstream.username, upstream.password)
    if upstream.sign_in is SignIn.ECR:
        # AWS's library costs as much as all else that a start loads.
        from roadstead.upstream.ecr import EcrPassword

        return _Ours(EcrPassword(given))
    if upstream.sign_in is SignIn.DOCKER and upstream.docker_config is not None:
        return _Ours(DockerConfig((upstream.docker_config,)))
    return Given(given)


@dataclass(frozen=True, slots=True)
class _Ours:
    """Credentials of ours that can't be read are no fault of a client's, who isn't told where they are."""

    source: CredentialSource

    async def find(self, registry: RegistryAddress, repository: str) -> Credentials | BearerKey | None:
        """Return what the source knows. Raises UnreachableError."""
        try:
            return await self.source.find(registry, repository)
        except CredentialsError as error:
            _log.error("nobody can be signed in at an upstream", host=registry.host, error=str(error))
            raise UnreachableError(registry.host, "we can't sign in there; see the log", lasting=True) from error


def _logged(exchange: Exchange) -> None:
    """Write a line about a request; an exchange holds no secret."""
    _log.info(
        "upstream request",
        method=exchange.method,
        url=exchange.url,
        status=exchange.status,
        duration_s=round(exchange.duration_s, 4),
    )


def _transport(upstream: UpstreamSettings, trace: Trace | None) -> Transport:
    """Return how it is reached: through the environment's proxies, else nowhere but there and to public addresses.

    A proxy connects for us, unchecked; whoever has one decides there where it may connect to. What `NO_PROXY` names is
    connected to by us, and checked.
    """
    proxies = Proxies.from_environment(os.environ)
    own = {urlsplit(_address(upstream).url).netloc.lower(), *(host.lower() for host in upstream.trusted_hosts)}
    egress = EgressPolicy(frozenset(own))
    return Transport(ca_file=upstream.ca, proxies=proxies, egress=egress, by_proxy=True, backoff=BACKOFF, trace=trace)


def _address(upstream: UpstreamSettings) -> RegistryAddress:
    if upstream.url is None:
        return RegistryAddress(upstream.host, RegistryAddress.parse(upstream.host).url)
    return RegistryAddress(upstream.host, upstream.url.rstrip("/"))
