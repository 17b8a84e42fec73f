"""Workers and replicas decide as the reference model does, on every endpoint of `/v2/` and of the API.

Hypothesis draws some policies for each of several universes, that is, for the names below ``u0/``, ``u1/`` and so on;
some more for what is done to the registry as a whole; accounts; and keys that are good for less than their accounts.
All of that is served at once, and asked by who and what Hypothesis draws then.
"""

import asyncio
import json
from base64 import b64encode, urlsafe_b64decode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.integration.endpoints import API, ENDPOINTS, path_of, push_images
from tests.integration.test_api_document import OPERATIONS
from tests.unit.auth import model
from tests.unit.auth.strategies import REPOSITORIES, action_words, actions, groups, policies

from roadstead.app.plugs import open_plugs
from roadstead.app.services import build_services
from roadstead.auth.api_keys import make_key
from roadstead.auth.caller import NOBODY, Action, Caller, RepositoryGlob, Scope
from roadstead.auth.principal import Grant, Principal, PrincipalKind
from roadstead.settings.handover import Handover
from roadstead.settings.model import DatabaseSettings, Settings, StorageSettings
from roadstead.telemetry.metrics import Metrics, RequestMetrics
from roadstead.testing.client import Answer, Client
from roadstead.testing.server import RoadsteadServer

UNIVERSES = 16
NAMES = ("ana", "bob", "Ana", "team")
PRESENT = ("u0/ana/tools", "u1/library/busybox", "u2/team/app", "u3/team/app", "u3/bob/tools")
SERVICE = "registry.test"
ALL = Scope((RepositoryGlob("**"),), frozenset(Action))

EVERYWHERE = [(method, path, None, action) for _, method, path, action in ENDPOINTS] + list(API)

key_scopes = st.builds(
    Scope,
    st.lists(st.sampled_from(["**", "*/team/*", "*/{user}/**", "u0/**", "*/*/tools"]).map(RepositoryGlob), max_size=2)
    .map(tuple),
    st.frozensets(actions, min_size=1),
)  # fmt: skip
accounts = st.fixed_dictionaries(
    {name: st.tuples(st.sampled_from([PrincipalKind.USER, PrincipalKind.ROBOT]), groups) for name in NAMES}
)
asked_scopes = st.lists(
    st.one_of(
        st.tuples(
            st.just("repository"),
            st.one_of(st.just(""), st.just(""), st.sampled_from(REPOSITORIES)),  # often the one that is asked for
            st.lists(st.sampled_from(["pull", "push", "delete", "*"]), min_size=1, max_size=2),
        ),
        st.tuples(st.just("registry"), st.sampled_from(["catalog", "admin"]), st.just(["*"])),
    ),
    max_size=2,
)


@dataclass(slots=True)
class Drawn:
    """What is served."""

    tables: list[dict[str, Any]] = field(default_factory=list)
    holders: list[Caller] = field(default_factory=list)

    @property
    def config(self) -> str:
        """Return the settings of it."""
        written = [
            "[[auth.policies]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
            for table in self.tables
        ]
        return f'[auth]\naccounts = true\n[auth.issue]\nservice = "{SERVICE}"\n' + "\n".join(written)


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Policies and accounts of this run."""
    found = Drawn()

    @settings(max_examples=UNIVERSES, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(policies, min_size=2, max_size=5))
    def of_a_universe(tables: list[dict[str, Any]]) -> None:
        number = of_a_universe.number = getattr(of_a_universe, "number", -1) + 1  # type: ignore[attr-defined]
        for table in tables:
            words = [word for word in table["actions"] if Action(word).of_repository]
            globs = [f"u{number}/{glob}" for glob in table["repositories"]]
            if words:
                found.tables.append({**table, "actions": words, "repositories": globs})
        # Policies that are drawn allow little; with this one there is something to deny.
        open_to_some = {"subjects": ["authenticated"], "actions": ["pull", "push", "delete"], "effect": "allow"}
        found.tables.append({**open_to_some, "repositories": [f"u{number}/team/*", f"u{number}/*/tools"]})

    @settings(max_examples=6, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(policies, accounts, key_scopes, st.lists(action_words, min_size=1))
    def of_the_registry(table: dict[str, Any], people: dict[str, Any], scope: Scope, words: list[str]) -> None:
        words = [word for word in words if not Action(word).of_repository]
        if words and table["effect"] == "allow":
            found.tables.append({**table, "actions": words})
        principals = [Principal(kind, name, groups) for name, (kind, groups) in people.items()]
        found.holders[: len(NAMES)] = [Caller(principal, scope=ALL) for principal in principals]
        found.holders.append(Caller(principals[len(found.holders) % len(NAMES)], scope=scope))

    of_a_universe()
    of_the_registry()
    # Limited keys belong to the accounts that were drawn last.
    people = {holder.principal.name: holder.principal for holder in found.holders[: len(NAMES)]}
    found.holders[len(NAMES) :] = [
        Caller(people[holder.principal.name], scope=holder.scope) for holder in found.holders[len(NAMES) :]
    ]
    found.tables.append({"subjects": ["user:ana", "robot:bob"], "repositories": ["**"], "actions": ["catalog"],
                         "effect": "allow"})  # fmt: skip
    found.tables.append({"subjects": ["user:Ana"], "repositories": ["**"], "actions": ["admin"], "effect": "allow"})
    return found


@dataclass(slots=True)
class Served:
    """Servers, and keys by which their callers sign in."""

    drawn: Drawn
    clients: Sequence[Client]
    keys: Sequence[str]
    tokens: dict[tuple[int, str], tuple[str, Caller]] = field(default_factory=dict)

    def headers(self, holder: int) -> Mapping[str, str]:
        """Return what a holder of a key signs in with."""
        name = self.drawn.holders[holder].principal.name
        return {"Authorization": f"Basic {b64encode(f'{name}:{self.keys[holder]}'.encode()).decode()}"}

    def token(self, holder: int | None, scopes: Sequence[str]) -> tuple[Mapping[str, str], Caller]:
        """Return a bearer token for that, given out by one server, and what its holder is then."""
        key = (-1 if holder is None else holder, " ".join(scopes))
        if key not in self.tokens:
            self.tokens[key] = self._token(holder, scopes)
        text, caller = self.tokens[key]
        return {"Authorization": f"Bearer {text}"}, caller

    def _token(self, holder: int | None, scopes: Sequence[str]) -> tuple[str, Caller]:
        query = urlencode({"service": SERVICE, "scope": list(scopes)}, doseq=True)
        client = self.clients[len(self.tokens) % len(self.clients)]
        answer = client.get(f"/auth/token?{query}", {} if holder is None else self.headers(holder))
        assert answer.status == 200, answer
        text = str(answer.json()["token"])
        payload = text.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        grants = tuple(
            Grant(entry["type"], entry["name"], frozenset(entry["actions"])) for entry in claims.get("access", ())
        )
        whoever = NOBODY if holder is None else self.drawn.holders[holder]
        self._check(grants, scopes, whoever)
        return text, Caller(whoever.principal, grants=grants, scope=whoever.scope)  # a key narrows what it got, too

    def _check(self, grants: Sequence[Grant], scopes: Sequence[str], whoever: Caller) -> None:
        """Compare what was given with the model: all that was asked for and is allowed, and nothing else."""
        for scope in scopes:
            kind, name, words = scope.split(":")
            for word in words.split(","):
                if kind == "registry":
                    right = name in ("catalog", "admin") and model.allowed(self.drawn.tables, whoever, name, None)
                    assert right == any((grant.kind, grant.name) == (kind, name) for grant in grants), (scope, grants)
                    continue
                for action in ("pull", "push", "delete") if word == "*" else (word,):
                    right = model.allowed(self.drawn.tables, whoever, action, name)
                    given_ = any(grant.name == name and action in grant.actions for grant in grants)
                    assert right == given_, (scope, grants, action)


async def _fill(settings: Settings, drawn: Drawn, folder: Path) -> Sequence[str]:
    """Make repositories, accounts and keys in an empty database; return the keys."""
    now, keys = datetime.now(UTC), []
    async with open_plugs(settings, migrate=True) as plugs:
        handover = Handover(settings=settings, rules_json='{"rules": []}', run_directory=folder)
        services = await build_services(plugs, handover, RequestMetrics(Metrics(folder, "test")))
        await push_images(services, PRESENT)
        await services.augmenter.aclose()
        store = plugs.database.accounts
        for holder in drawn.holders:
            await store.put_account(holder.principal, None, replace=True, now=now)
        for holder in drawn.holders:
            assert holder.scope is not None
            made = make_key(holder.principal, holder.scope, now=now, expires_at=None)
            assert await store.put_key(made.row)
            keys.append(made.text.reveal())
    return keys


@pytest.fixture(scope="module")
def workers(drawn: Drawn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server, and a connection to each of its two workers."""
    folder = tmp_path_factory.mktemp("workers")
    data = folder / "data"
    data.mkdir()
    there = Settings(
        storage=StorageSettings(path=data), database=DatabaseSettings(url=f"sqlite:///{data}/roadstead.db")
    )
    keys = asyncio.run(_fill(there, drawn, tmp_path_factory.mktemp("filling")))
    with RoadsteadServer(folder, config=drawn.config) as server:
        yield Served(drawn, [server.client_of(worker) for worker in server.workers], keys)


@pytest.fixture
def replicas(drawn: Drawn, tmp_path: Path, postgres_url: str) -> Iterator[Served]:
    """Two servers on one PostgreSQL database."""
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "filling").mkdir()
    there = Settings(storage=StorageSettings(path=data), database=DatabaseSettings(url=postgres_url))
    keys = asyncio.run(_fill(there, drawn, tmp_path / "filling"))
    config = f'{drawn.config}\n[storage]\npath = "{data}"\n[database]\nurl = "{postgres_url}"\n'
    with ExitStack() as stack:
        servers = [stack.enter_context(RoadsteadServer(tmp_path / name, config=config, workers=1)) for name in "ab"]
        yield Served(drawn, [server.client() for server in servers], keys)


def test_every_operation_is_asked_about() -> None:
    """An operation that is added has to stand in the table, with what it needs."""
    said = {f"{method} {path.partition('?')[0]}" for method, path, _, _ in API}
    said = {line.replace("/nobody", "/{name}").replace("/aaaaaaaaaaaaaaaa", "/{key_id}") for line in said}

    assert said == set(OPERATIONS)


requests = st.tuples(
    st.integers(-1, len(NAMES) + 5),
    st.one_of(st.none(), st.none(), asked_scopes),
    st.integers(0, UNIVERSES - 1),
    st.sampled_from(REPOSITORIES),
    st.sampled_from(EVERYWHERE),
    st.integers(0, 1),
)
MANY, SOME, FEW = (settings(max_examples=count, suppress_health_check=list(HealthCheck)) for count in (5000, 200, 60))


def test_the_workers_decide_as_the_model_does(workers: Served) -> None:
    """Whichever is asked, by nobody, with a key or with a token that the other one gave out."""
    assert_alike(workers, SOME)


def test_the_replicas_decide_as_the_model_does(replicas: Served) -> None:
    """The same with two servers on one database."""
    assert_alike(replicas, FEW)


@pytest.mark.soak
def test_workers_and_replicas_decide_as_the_model_does(workers: Served, replicas: Served) -> None:
    """The same for minutes."""
    assert_alike(workers, MANY)
    assert_alike(replicas, MANY)


def assert_alike(served: Served, how: settings) -> None:
    """Make requests, and compare what is decided; of both decisions there have to be many."""
    decided: Counter[bool] = Counter()

    @how
    @given(requests)
    def ask(drawn_request: Any) -> None:
        decided[compare(served, *drawn_request)] += 1

    ask()
    assert min(decided[True], decided[False]) > how.max_examples // 20, decided


def compare(
    served: Served,
    number: int,
    scopes: Sequence[tuple[str, str, Sequence[str]]] | None,
    universe: int,
    repository: str,
    endpoint: tuple[str, str, Any, str],
    place: int,
) -> bool:
    """Send a request, and see that it is let through or refused as the model says; return whether it is let through."""
    holder = None if number < 0 else number % len(served.drawn.holders)
    name = f"u{universe}/{repository}"
    method, template, document, action = endpoint
    if scopes is None:
        headers: Mapping[str, str] = {} if holder is None else served.headers(holder)
        caller = NOBODY if holder is None else served.drawn.holders[holder]
    else:
        texts = [f"{kind}:{f'u{universe}/' if kind == 'repository' else ''}{one or repository}:{','.join(words)}"
                 for kind, one, words in scopes]  # fmt: skip
        headers, caller = served.token(holder, texts)
    body = None
    if document is not None:
        body = json.dumps(document).replace("{name}", name).encode()
        headers = {**headers, "Content-Type": "application/json"}
    of_repository = "{name}" in template or "{name}" in json.dumps(document)

    answer = served.clients[place].request(method, path_of(template, name), body, headers)

    where = name if of_repository else None
    if model.allowed(served.drawn.tables, caller, action, where):
        assert answer.status not in (401, 403), answer
        _check_listing(served, caller, template, answer)
        return True
    token_alone = Caller(Principal(PrincipalKind.ISSUED, "whoever"), grants=caller.grants)
    lies = caller.grants is not None and not model.allowed([], token_alone, action, where)
    assert answer.status == (401 if caller.is_anonymous or lies else 403), answer
    assert ("www-authenticate" in answer.headers) is (answer.status == 401)
    return False


def _check_listing(served: Served, caller: Caller, template: str, answer: Answer) -> None:
    """A listing has what its reader may pull, whatever else is there."""
    if template in ("/v2/_catalog", "/api/v1/repositories"):
        # A token for the catalog names no repositories.
        reader = Caller(caller.principal, scope=caller.scope)
        visible = [name for name in PRESENT if model.allowed(served.drawn.tables, reader, "pull", name)]
        assert sorted(answer.json()["repositories"]) == sorted(visible)
