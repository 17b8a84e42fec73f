"""Every endpoint decides as the reference model does, whoever asks and whatever the policies.

Handlers, stores and the guard are the real ones, in this process over SQLite; only the way of signing in is the test's:
it gives the caller that Hypothesis drew.
"""

import asyncio
import json
import secrets
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.integration.endpoints import DIGEST, ENDPOINTS, path_of, push_images
from tests.unit.auth import model
from tests.unit.auth.strategies import callers, policies, repositories

from roadstead.app.plugs import Plugs, open_plugs
from roadstead.app.services import build_services
from roadstead.auth.access import Access
from roadstead.auth.caller import NOBODY, Caller
from roadstead.auth.challenges import BasicChallenge
from roadstead.auth.credentials import Credentials
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.policies import Policies, Policy
from roadstead.auth.principal import ANONYMOUS, Principal, PrincipalKind
from roadstead.http.access import Guard
from roadstead.http.application import Application
from roadstead.http.context import Services
from roadstead.http.routes import Router
from roadstead.http.v2.table import ROUTES
from roadstead.settings.handover import Handover
from roadstead.settings.model import DatabaseSettings, Settings, StorageSettings
from roadstead.telemetry.metrics import Metrics, RequestMetrics
from roadstead.telemetry.observer import RequestObserver

PRESENT = ("ana/tools", "library/busybox", "team/app")
"""Repositories that hold something; the others of `REPOSITORIES` are nowhere."""


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class AsDrawn:
    """`Authenticator` that knows one caller."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        return self._caller


class Inside:
    """The application in this process, guarded anew for each example."""

    def __init__(self, runner: asyncio.Runner, services: Services) -> None:
        self._runner = runner
        self._services = services
        observer = RequestObserver(_NoNumbers(), access=False)  # type: ignore[arg-type]
        self._application = Application(Router(ROUTES), lambda: None, observer)  # type: ignore[arg-type, return-value]

    def ask(self, tables: list[dict[str, Any]], caller: Caller, method: str, path: str, query: str = "") -> Answered:
        """Send a request as this caller under these policies."""
        policies = Policies(tuple(Policy.parse(f"p{at}", **table) for at, table in enumerate(tables)))
        access = Access(policies, [AsDrawn(caller)], FailureLimiter())
        self._application._services = replace(self._services, guard=Guard(access, BasicChallenge("here")))
        headers = [(b"host", b"here"), (b"content-length", b"0")]
        if caller.principal != ANONYMOUS or caller.grants is not None:
            headers.append((b"authorization", b"Bearer drawn"))
        return self._runner.run(self._answer(method, path, query, headers))

    @contextmanager
    def without(self, names: Sequence[str]) -> Iterator[None]:
        """Let nobody touch these services."""
        kept = self._services
        self._services = replace(kept, **{name: _Untouchable(name) for name in names})
        try:
            yield
        finally:
            self._services = kept

    async def _answer(self, method: str, path: str, query: str, headers: list[tuple[bytes, bytes]]) -> Answered:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers,
                 "client": ("192.0.2.1", 1)}  # fmt: skip
        await self._application(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answered(sent[0]["status"], sent[0]["headers"], body)


class _NoNumbers:
    def begin(self) -> None:
        pass

    def observe(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Each refusal is a line of the log; here there are thousands."""
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """The services over a directory in which some repositories hold an image."""
    folder: Path = tmp_path_factory.mktemp("inside")
    settings = Settings(
        storage=StorageSettings(path=folder), database=DatabaseSettings(url=f"sqlite:///{folder}/facts.db")
    )
    with asyncio.Runner() as runner:
        opening = open_plugs(settings, migrate=True)
        plugs = runner.run(opening.__aenter__())
        services = runner.run(_filled(plugs, settings, folder))
        yield Inside(runner, services)
        runner.run(services.augmenter.aclose())
        runner.run(opening.__aexit__(None, None, None))


async def _filled(plugs: Plugs, settings: Settings, folder: Path) -> Services:
    handover = Handover(settings=settings, rules_json='{"rules": []}', run_directory=folder)
    services = await build_services(plugs, handover, RequestMetrics(Metrics(folder, "test")))
    await push_images(services, PRESENT)
    return services


MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
some_policies = st.lists(policies, max_size=5)


def test_every_route_is_asked_about() -> None:
    """A route that is added has to say what it needs, and stand in the table above; these few are for everybody."""
    for_everybody = {route.name for route in ROUTES if route.needs is None}

    assert for_everybody == {"alive", "ready"}
    assert {route.name for route in ROUTES} - for_everybody - {"end-1"} == {name for name, _, _, _ in ENDPOINTS}
    assert {(route.name, str(route.needs)) for route in ROUTES if route.needs and route.name != "end-1"} == {
        (name, action) for name, _, _, action in ENDPOINTS
    }


@MANY
@given(some_policies, callers, repositories, st.sampled_from(ENDPOINTS))
def test_a_request_is_let_through_as_the_model_says(
    inside: Inside, tables: list[dict[str, Any]], caller: Caller, name: str, endpoint: tuple[str, str, str, str]
) -> None:
    """Allowed: whatever the handler answers, but no 401 or 403. Else 401 with a challenge for whoever has not signed in
    or whose token isn't good for it, 403 for others."""
    _, method, template, action = endpoint
    repository = name if "{name}" in template else None

    answer = inside.ask(tables, caller, method, path_of(template, name))

    if model.allowed(tables, caller, action, repository):
        assert answer.status not in (401, 403)
        return
    asked_again = caller.principal == ANONYMOUS or _lies_with_the_token(caller, action, repository)
    assert answer.status == (401 if asked_again else 403)
    assert (answer.header(b"www-authenticate") is not None) is (answer.status == 401)


def _lies_with_the_token(caller: Caller, action: str, repository: str | None) -> bool:
    """Say whether a bearer token came that isn't good for it, whatever policies say."""
    if caller.grants is None:
        return False
    alone = Caller(Principal(PrincipalKind.ISSUED, "whoever"), grants=caller.grants)
    return not model.allowed([], alone, action, repository)


@MANY
@given(some_policies, callers, st.sampled_from([one for one in ENDPOINTS if "{name}" in one[2]]))
def test_a_refusal_does_not_tell_what_there_is(
    inside: Inside, tables: list[dict[str, Any]], caller: Caller, endpoint: tuple[str, str, str, str]
) -> None:
    """Whoever may not see it gets the same for what is there and for what isn't, but for the name that they said."""
    _, method, template, action = endpoint
    there, nowhere = "team/app", "team/web"
    if any(model.allowed(tables, caller, action, name) for name in (there, nowhere)):
        return
    if _lies_with_the_token(caller, action, there) is not _lies_with_the_token(caller, action, nowhere):
        return  # what differs is what they came with, and know themselves

    answers = [inside.ask(tables, caller, method, path_of(template, name)) for name in (there, nowhere)]

    assert answers[0].status == answers[1].status
    assert answers[0].headers == answers[1].headers
    assert answers[0].body.replace(there.encode(), b"NAME") == answers[1].body.replace(nowhere.encode(), b"NAME")


class _Untouchable:
    """Fails whoever looks."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise AssertionError(f"somebody who was refused had {self._name}.{attribute} looked at")


LOOKED_AT = ("manifests", "blobs", "uploads", "catalog", "history", "administration", "augmenter", "quotas")


@MANY
@given(some_policies, callers, repositories, st.sampled_from(ENDPOINTS))
def test_a_refusal_comes_before_anybody_looks(
    inside: Inside, tables: list[dict[str, Any]], caller: Caller, name: str, endpoint: tuple[str, str, str, str]
) -> None:
    """So it takes the same work for what is there and for what isn't: no store, nor anything else, is asked."""
    _, method, template, action = endpoint
    if model.allowed(tables, caller, action, name if "{name}" in template else None):
        return

    with inside.without(LOOKED_AT):
        answer = inside.ask(tables, caller, method, path_of(template, name))

    assert answer.status in (401, 403)


@MANY
@given(some_policies, callers, repositories, st.sampled_from(PRESENT))
def test_a_mount_needs_the_right_to_read_the_source(
    inside: Inside, tables: list[dict[str, Any]], caller: Caller, target: str, source: str
) -> None:
    """Without it an upload starts, as if the blob weren't there; and without `from` nobody searches for one."""
    target = f"{target}/{secrets.token_hex(6)}"
    path, mount = f"/v2/{target}/blobs/uploads/", f"mount={DIGEST}&from="
    if not model.allowed(tables, caller, "push", target):
        return

    assert inside.ask(tables, caller, "POST", path, f"mount={DIGEST}").status == 202
    answer = inside.ask(tables, caller, "POST", path, mount + source)

    assert answer.status == (201 if model.allowed(tables, caller, "pull", source) else 202)
    assert inside.ask(tables, caller, "POST", path, f"{mount}no/where").status == 202


@MANY
@given(some_policies, callers, st.integers(1, 4))
def test_the_catalog_shows_what_may_be_pulled(
    inside: Inside, tables: list[dict[str, Any]], caller: Caller, size: int
) -> None:
    """Page by page, each as full as it can be; no page and no link names a repository that may not be seen.

    A token for the catalog names no repositories: what counts is what its holder may pull.
    """
    if not model.allowed(tables, caller, "catalog", None):
        return
    holder = replace(caller, grants=None)
    visible = [name for name in PRESENT if model.allowed(tables, holder, "pull", name)]

    pages: list[list[str]] = []
    query = f"n={size}"
    while query:
        answer = inside.ask(tables, caller, "GET", "/v2/_catalog", query)
        pages.append(json.loads(answer.body)["repositories"])
        link = (answer.header(b"link") or b"").decode()
        query = link.partition("?")[2].partition(">")[0]

    assert [name for page in pages for name in page] == visible
    assert all(len(page) == size for page in pages[:-1])


@MANY
@given(some_policies, callers)
def test_the_door_asks_whoever_has_nothing_to_hope_for(
    inside: Inside, tables: list[dict[str, Any]], caller: Caller
) -> None:
    """`/v2/` is where clients learn that they have to sign in; whoever has done so, or brings a token, is let in."""
    allowed = [table for table in tables if table["effect"] == "allow"]
    anything = any({"anonymous", "everyone"} & set(table["subjects"]) for table in allowed)
    came_with_something = caller.principal != ANONYMOUS or caller.grants is not None
    expected = 200 if came_with_something or anything else 401

    assert inside.ask(tables, caller, "GET", "/v2/").status == expected
    assert inside.ask(tables, caller, "HEAD", "/v2").status == expected


@pytest.mark.parametrize(
    "path",
    ["//v2/_catalog", "/v2//_catalog", "/v2/./_catalog", "/v2/x/../_catalog", "/V2/_catalog", "/v2/_catalog/",
     "/v2/_Catalog", "/v2/_catalog\\", "/v2/%5fcatalog", "/v2/_catalog;a", "/v2/_catalog#"],
)  # fmt: skip
def test_no_other_spelling_of_the_catalog_is_open(inside: Inside, path: str) -> None:
    """A variant of the path isn't served, or is asked about like the path itself (CVE-2020-29662)."""
    answer = inside.ask(
        [{"subjects": ["user:ana"], "repositories": ["**"], "actions": ["catalog"]}], NOBODY, "GET", path
    )

    assert answer.status in (400, 401, 404)
    assert b"repositories" not in answer.body
