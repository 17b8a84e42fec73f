"""Everything that the API's document says is asked of a running server, and nothing it doesn't say is answered.

Schemathesis makes requests of the OpenAPI document, right ones and wrong ones.
"""

from collections.abc import Iterator
from itertools import product

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import CheckFunction
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.integration.api import ADMIN, Guarded

from roadstead.testing.postgres import PostgresServer
from roadstead.testing.server import RoadsteadServer

OPERATIONS = (
    "GET /api/v1/repositories",
    "GET /api/v1/repository",
    "GET /api/v1/tags",
    "GET /api/v1/tags/history",
    "GET /api/v1/image",
    "POST /api/v1/tags/restore",
    "GET /api/v1/users",
    "POST /api/v1/users",
    "PATCH /api/v1/users/{name}",
    "DELETE /api/v1/users/{name}",
    "GET /api/v1/keys",
    "POST /api/v1/keys",
    "DELETE /api/v1/keys/{key_id}",
    "GET /api/v1/events",
    "POST /api/v1/events/replay",
    "GET /api/v1/audit",
    "GET /api/v1/auth/explain",
)
CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = {"POST /api/v1/users": 5}  # a password costs a quarter of a second
SETTINGS = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "phases": [hypothesis.Phase.explicit, hypothesis.Phase.generate],
}


CONFIG = "[auth]\naccounts = true\n"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One worker with an administrator's key."""
    with RoadsteadServer(tmp_path_factory.mktemp("document"), config=CONFIG, workers=1) as server:
        yield Guarded(server)


@pytest.fixture(scope="module")
def guarded_on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Guarded]:
    """The same on PostgreSQL, which takes less of what clients may send as text."""
    url = postgres.create_database()
    config = f'{CONFIG}[database]\nurl = "{url}"\n'
    with RoadsteadServer(tmp_path_factory.mktemp("on-postgres"), config=config, workers=1) as server:
        yield Guarded(server, url)
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def document(guarded: Guarded) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{guarded.server.url}/api/schema")


@pytest.fixture(scope="module")
def document_on_postgres(guarded_on_postgres: Guarded) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{guarded_on_postgres.server.url}/api/schema")


def test_every_operation_is_asked(document: schemathesis.BaseSchema) -> None:
    """The list here is the document's."""
    found = [result.ok() for result in document.get_all_operations()]
    assert sorted(f"{one.method.upper()} {one.path}" for one in found) == sorted(OPERATIONS)


def ask_as_documented(
    document: schemathesis.BaseSchema, guarded: Guarded, name: str, mode: GenerationMode, most: int
) -> None:
    method, _, path = name.partition(" ")
    operation = document[path][method]

    @hypothesis.settings(**SETTINGS, max_examples=min(most, EXAMPLES.get(name, most)))
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=dict(guarded.headers(ADMIN)), checks=CHECKS)

    ask()


@pytest.mark.parametrize(
    ("name", "mode"), list(product(OPERATIONS, (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)))
)
def test_answers_are_as_documented(
    document: schemathesis.BaseSchema, guarded: Guarded, name: str, mode: GenerationMode
) -> None:
    """No 5xx, no status, type, header or member that isn't in the document; wrong requests aren't taken."""
    ask_as_documented(document, guarded, name, mode, 10)


@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_documented_on_postgres(
    document_on_postgres: schemathesis.BaseSchema, guarded_on_postgres: Guarded, name: str
) -> None:
    """The same there."""
    ask_as_documented(document_on_postgres, guarded_on_postgres, name, GenerationMode.POSITIVE, 10)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nobody_gets_in_without_signing_in(document: schemathesis.BaseSchema, guarded: Guarded, name: str) -> None:
    """Whatever is asked: 401, or what is wrong with the request itself."""
    method, _, path = name.partition(" ")
    operation = document[path][method]

    @hypothesis.settings(**SETTINGS, max_examples=2)
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(headers={"Cookie": "session=root"}, checks=CHECKS[:-1])
        assert answer.status_code in (400, 401)
        assert answer.status_code == 400 or "basic" in answer.headers["www-authenticate"][0].lower()

    ask()
