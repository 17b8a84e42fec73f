"""The ASGI applications: of a worker, and of the address that is for numbers and health alone."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from roadstead.app.adoption import linked
from roadstead.app.auditing import refusals_written
from roadstead.app.plugs import CLOCK, metered, open_plugs
from roadstead.app.services import build_services, build_uploads
from roadstead.app.telling import telling
from roadstead.app.upstreams import pulling_through
from roadstead.http.api.mount import Mount
from roadstead.http.application import Application
from roadstead.http.context import Services
from roadstead.http.forwarded import TrustedProxies
from roadstead.http.health import side_table
from roadstead.http.hosts import Hosts
from roadstead.http.outside import Outside
from roadstead.http.routes import Router
from roadstead.http.token_routes import ROUTES as TOKENS
from roadstead.http.v2.table import ROUTES as API
from roadstead.http.v2.table import read_only
from roadstead.http.wave.table import ROUTES as WAVE
from roadstead.settings.handover import Handover
from roadstead.settings.model import ServerSettings
from roadstead.telemetry.metrics import EventMetrics, Metrics, RequestMetrics, UpstreamMetrics
from roadstead.telemetry.observer import RequestObserver
from roadstead.web.table import ROUTES as PAGES


def worker_application(handover: Handover, process: str) -> Application:
    """Return the ASGI application of one worker, ``worker-1`` and so on; it opens its plugs when it starts."""
    numbers = Metrics(handover.run_directory, process)
    metrics = RequestMetrics(numbers)

    @asynccontextmanager
    async def open_services() -> AsyncGenerator[Services, None]:
        async with open_plugs(handover.settings, migrate=False) as plugs:
            plugs = await linked(metered(plugs, numbers), handover.settings)
            uploads = await build_uploads(plugs, handover.settings)
            async with (
                refusals_written(plugs.database, CLOCK) as refusals,
                pulling_through(plugs, handover, uploads, UpstreamMetrics(numbers)) as proxy,
            ):
                services = await build_services(
                    plugs, handover, metrics, refusals=refusals, uploads=uploads, proxy=proxy
                )
                try:
                    async with telling(plugs.database, handover.settings, EventMetrics(numbers), CLOCK) as told:
                        yield replace(services, telling=told)
                finally:
                    await services.augmenter.aclose()
                    if services.containers is not None:
                        await services.containers.containers.aclose()
                    if services.people is not None:
                        await services.people.aclose()

    settings = handover.settings
    routes = list(read_only(API) if settings.registry.read_only else API)
    if settings.metrics.open_to_network:
        routes = [replace(route, needs=None) if route.name == "metrics" else route for route in routes]
    observer = RequestObserver(metrics, access=settings.log.access)
    router = Router([*routes, *TOKENS, *WAVE, *Mount().routes(), *PAGES])
    proxies = TrustedProxies.parse(settings.server.trusted_proxies)
    idle_s = settings.limits.body_idle.total_seconds()
    hosts = Hosts.parse(settings.server.hosts, settings.server.public_url)
    return Application(
        router, open_services, observer, _outside(settings.server), proxies, hosts=hosts, body_idle_s=idle_s
    )


def side_application(handover: Handover) -> Application:
    """Return the ASGI application of the address that is for numbers and health alone."""
    numbers = Metrics(handover.run_directory, "side")
    metrics = RequestMetrics(numbers)

    @asynccontextmanager
    async def open_services() -> AsyncGenerator[Services, None]:
        async with open_plugs(handover.settings, migrate=False) as plugs:
            services = await build_services(plugs, handover, metrics)
            try:
                yield replace(services, metrics_open=True, guard=None)
            finally:
                await services.augmenter.aclose()

    routes = side_table(handover.settings.metrics.path)
    return Application(Router(routes), open_services, RequestObserver(metrics, access=False))


def _outside(server: ServerSettings) -> Outside:
    return Outside(
        prefix=server.prefix,
        origin="" if server.relative_urls else (server.public_url or "").rstrip("/"),
        headers=[(name.lower().encode(), value.encode("latin-1")) for name, value in server.headers.pairs],
    )
