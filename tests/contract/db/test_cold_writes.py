"""What is written cold (`Access.write_cold`) changes nothing that hot queries read: what is remembered stays true."""

import ast
import importlib
import pkgutil
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Concatenate
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from roadstead.acts import Act, ActKind
from roadstead.db import sqlite, stores
from roadstead.db.access import P, Query, T
from roadstead.db.engine import open_database
from roadstead.db.sqlite import Pending, SqliteAccess, connect_for_writing
from roadstead.events.bundle import Bundle, Pulls
from roadstead.events.event import Cause, manifest_pulled
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.ports import UploadRecord

NOW = datetime(2026, 11, 1, tzinfo=UTC)
REPOSITORY = RepositoryName.parse("team/app")
_CHANGES = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
_OF_SQLITE = "sqlite_"


class Watched:
    """The tables that each cold intention changed, by the module and the name of the intention."""

    def __init__(self) -> None:
        self.tables: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._now = ("", "")

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """Look at what processes write from now on: one intention after the other."""
        write_cold, write_batch = SqliteAccess.write_cold, sqlite.write_batch

        async def told(
            access: SqliteAccess, intention: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
        ) -> T:
            self._now = intention.__module__, intention.__name__
            return await write_cold(access, intention, *args, **kwargs)

        def looked_at(connection: Connection, driver: sqlite3.Connection, batch: list[Pending[Any]]) -> None:
            if all(pending.cold for pending in batch):
                driver.set_authorizer(self._changed)  # from here statements are prepared anew, and each asks it
            write_batch(connection, driver, batch)
            driver.set_authorizer(None)

        patch.setattr(SqliteAccess, "write_cold", told)
        patch.setattr(sqlite, "write_batch", looked_at)

    def _changed(self, action: int, table: str | None, *_: str | None) -> int:
        if action in _CHANGES and table is not None and not table.startswith(_OF_SQLITE):
            self.tables[self._now].add(table)
        return sqlite3.SQLITE_OK


@pytest.fixture
def path(migrated_sqlite: Path, tmp_path: Path) -> Path:
    """A migrated database."""
    path = tmp_path / "roadstead.db"
    shutil.copyfile(migrated_sqlite, path)
    return path


async def test_cold_writes_change_nothing_that_hot_queries_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is run once, here, and none is left out."""
    watched = Watched()
    watched.put_in_place(monkeypatch)
    database = await open_database(f"sqlite:///{path}", migrate=False)
    outbox, uploads, leases = database.outbox, database.uploads, database.leases

    await outbox.add([pulled()])
    (letter,) = await outbox.due("ci", now=NOW, limit=1)
    await outbox.hold(letter.position, error="no", until=NOW)
    await outbox.release("ci", now=NOW)
    await outbox.bury(letter.position, error="no", now=NOW)
    await outbox.settle([letter.position], now=NOW)
    await outbox.purge(settled_before=NOW, endpoints=["ci"])
    await database.pulls.count_pull("anonymous", NOW, timedelta(hours=1))
    lease = await leases.acquire("work", "me", timedelta(minutes=1), NOW)
    assert lease is not None
    assert await leases.renew(lease, timedelta(minutes=1), NOW)
    await leases.release(lease)
    record = UploadRecord(upload_id=str(uuid4()), repository=REPOSITORY, algorithm=Algorithm.SHA256, started_at=NOW)
    assert await uploads.advance(record, now=NOW)
    assert await uploads.cancel(record, now=NOW)
    await uploads.forget_closed(touched_before=NOW + timedelta(days=1))
    await database.acts.record([Act(at=NOW, by="me", client="::1", kind=ActKind.SIGN_IN, target="me")])
    await database.acts.purge(before=NOW + timedelta(days=1))
    await database.close()

    assert set(watched.tables) == {*cold_intentions()}
    hot = tables_of_hot_queries(path)
    assert {"tags", "manifests", "accounts", "api_keys"} <= hot
    for intention, tables in watched.tables.items():
        assert tables, intention
        assert not tables & hot, intention


def pulled() -> Bundle:
    """Pulls that are told of."""
    digest = Digest.parse(f"sha256:{'a' * 64}")
    event = manifest_pulled(REPOSITORY, digest, "application/json", 2, None, cause=Cause(), at=NOW)
    return Bundle("ci", REPOSITORY, [event], Pulls([0], [0], ["127.0.0.1"]))


def modules() -> Iterator[ModuleType]:
    """Yield the modules of the stores."""
    for found in pkgutil.iter_modules(stores.__path__, f"{stores.__name__}."):
        yield importlib.import_module(found.name)


def cold_intentions() -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each intention that is written cold."""
    for module in modules():
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write_cold":
                intention = getattr(module, ast.unparse(node.args[0]))
                yield intention.__module__, intention.__name__


def tables_of_hot_queries(path: Path) -> set[str]:
    """Return what SQLite reads for them."""
    found: set[str] = set()

    def read(action: int, table: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ and table is not None:
            found.add(table)
        return sqlite3.SQLITE_OK

    with closing(connect_for_writing(path)) as driver:
        driver.set_authorizer(read)
        for module in modules():
            for query in vars(module).values():
                if isinstance(query, Query) and query.hot:
                    prepared = query.sqlite
                    driver.execute(f"EXPLAIN {prepared.text}", prepared.parameters(("",) * len(query.names)))
    return found
