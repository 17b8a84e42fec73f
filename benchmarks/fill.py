"""A database with as many tags, repositories and referrers as are wanted, written directly: nobody pushes for hours."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, insert

from roadstead.db import sqlite
from roadstead.db.schema import contents, manifests, repositories, tags
from roadstead.db.stores.repositories import sort_key
from roadstead.oci.digest import Digest
from roadstead.storage import keys

MANIFEST = b'{"schemaVersion":2}'
SUBJECT = f"sha256:{hashlib.sha256(b'subject').hexdigest()}"
_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
_AT_ONCE = 5000
_MOMENT = 1_700_000_000_000_000  # microseconds


def fill(database: Path, *, tag_count: int, repository_count: int, referrer_count: int) -> None:
    """Make a database whose repository ``listed/tags`` has the tags and ``listed/subject`` the referrers."""
    sqlite.migrate(database)
    driver = sqlite3.connect(database, isolation_level=None)
    with closing(driver), sqlite.engine_over(driver).connect() as connection:
        driver.execute("BEGIN")
        _insert(connection, repositories, (_repository(number) for number in range(repository_count)))
        first = _digest(b"tagged")
        held = repository_count + 1
        _insert(connection, repositories, [_named(held, "listed/tags"), _named(held + 1, "listed/subject")])
        _insert(connection, contents, [{"digest": first, "body": MANIFEST}])
        _insert(connection, manifests, [_manifest(held, first, None)])
        _insert(connection, tags, (_tag(held, number, first) for number in range(tag_count)))
        referrers = [_digest(b"referrer %d" % number) for number in range(referrer_count)]
        _insert(connection, contents, ({"digest": digest, "body": MANIFEST} for digest in referrers))
        _insert(connection, manifests, (_manifest(held + 1, digest, SUBJECT) for digest in referrers))
        driver.execute("COMMIT")


def fill_blobs(database: Path, count: int, *, lease_until: datetime, files: Path | None = None) -> None:
    """Give a database, made where there is none, as many blobs that nothing needs.

    With `files`, the root of a storage, their bytes are there, too; without it they aren't anywhere.
    """
    sqlite.migrate(database)
    driver = sqlite3.connect(database, isolation_level=None)
    until = int(lease_until.timestamp()) * 1_000_000
    with closing(driver):
        driver.execute("BEGIN")
        driver.executemany(
            "INSERT INTO blobs (digest, size, storage_key, state, state_since, lease_until, created_at) "
            "VALUES (?, ?, ?, 'live', ?, ?, ?)",
            (_blob(number, files, until) for number in range(count)),
        )
        driver.execute("COMMIT")


def _blob(number: int, files: Path | None, until: int) -> tuple[str, int, str, int, int, int]:
    data = b"blob %d" % number
    digest = _digest(data)
    key = keys.blob(Digest.parse(digest))
    if files is not None:
        folder = f"{files}/{key.rpartition('/')[0]}"
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 -- there may be a million
        with open(f"{folder}/data", "wb", buffering=0) as file:  # noqa: PTH123 -- as above
            file.write(data)
    return digest, len(data), key, _MOMENT, until, _MOMENT


def _insert(connection: Connection, table: object, rows: Iterable[dict[str, object]]) -> None:
    waiting = list(rows)
    for start in range(0, len(waiting), _AT_ONCE):
        connection.execute(insert(table), waiting[start : start + _AT_ONCE])  # type: ignore[arg-type]


def _repository(number: int) -> dict[str, object]:
    return _named(number + 1, f"team-{number % 97}/app-{number:06}")


def _named(number: int, name: str) -> dict[str, object]:
    return {"id": number, "name": name, "sort_key": sort_key(name), "listed": True, "created_at": _MOMENT}


def _manifest(repository: int, digest: str, subject: str | None) -> dict[str, object]:
    return {
        "repository_id": repository,
        "digest": digest,
        "media_type": _MEDIA_TYPE,
        "size": len(MANIFEST),
        "artifact_type": None if subject is None else "application/vnd.example.sbom",
        "subject": subject,
        "annotations": None,
        "derived": False,
        "pushed_at": _MOMENT,
    }


def _tag(repository: int, number: int, digest: str) -> dict[str, object]:
    return {"repository_id": repository, "name": f"v{number:06}", "digest": digest, "updated_at": _MOMENT}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
