"""Where a manifest's bytes live: in its (repository, digest) row, or in a table of contents by digest.

``python benchmarks/decisions/manifest_rows.py`` uses SQLite and, where it's installed, a PostgreSQL of its own
(PG_BIN names the directory of ``initdb``; run as root, the server runs as the user ``postgres``).
"""

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

TAGS = 100_000
MANIFESTS = 20_000  # five tags a manifest
REPOSITORIES = 200  # each manifest is in three of them
BODY = random.Random(1).randbytes(1100).hex()[:1000]  # hex pads to the size of a small image's manifest
PG_BIN = Path(os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin"))
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"

SCHEMAS = {
    # name: digest's type on SQLite, on PostgreSQL, whether bytes are inline
    "inline, TEXT": ("TEXT", "text", True),
    "contents, TEXT": ("TEXT", "text", False),
    "inline, BLOB(32)": ("BLOB", "bytea", True),
    "contents, BLOB(32)": ("BLOB", "bytea", False),
}


def ddl(digest: str, content: str, *, inline: bool) -> list[str]:
    """Give the statements that make the tables."""
    algorithm = "" if digest in {"TEXT", "text"} else "algorithm smallint NOT NULL,"
    bytes_here = f"content {content} NOT NULL," if inline else ""
    manifest = f"repository integer NOT NULL, {algorithm} digest {digest} NOT NULL, media_type text NOT NULL"
    tag = f"repository integer NOT NULL, name text NOT NULL, {algorithm} digest {digest} NOT NULL"
    tables = [
        f"CREATE TABLE manifest ({manifest}, size integer NOT NULL, {bytes_here} PRIMARY KEY (repository, digest))",
        f"CREATE TABLE tag ({tag}, PRIMARY KEY (repository, name))",
    ]
    if not inline:
        tables.append(
            f"CREATE TABLE content ({algorithm} digest {digest} NOT NULL PRIMARY KEY, content {content} NOT NULL)"
        )
    return tables


def body(number: int) -> bytes:
    """Give a manifest's bytes: 1 KiB, half of it digests that don't compress."""
    return (f'{{"schemaVersion": 2, "mediaType": "{MEDIA_TYPE}", "n": {number}, "layers": ["{BODY}"]}}').encode()


def rows(*, text: bool, inline: bool) -> Iterator[tuple[str, list[tuple]]]:
    """Give each table's rows."""
    manifests, tags, contents = [], [], []
    for number in range(MANIFESTS):
        raw = body(number)
        hashed = hashlib.sha256(raw).digest()
        digest = ("sha256:" + hashed.hex(),) if text else (1, hashed)
        contents.append((*digest, raw))
        homes = [(number + shift) % REPOSITORIES for shift in (0, 67, 131)]
        rest = (*digest, MEDIA_TYPE, len(raw), *((raw,) if inline else ()))
        manifests.extend((home, *rest) for home in homes)
        tags.extend((homes[tag % 3], f"v{number}.{tag}", *digest) for tag in range(TAGS // MANIFESTS))
    yield "manifest", manifests
    yield "tag", tags
    if not inline:
        yield "content", contents


def queries(*, inline: bool, mark: tuple[str, str]) -> dict[str, str]:
    """Give the look-ups: the head of a tag, and the same with the bytes."""
    where = f"WHERE tag.repository = {mark[0]} AND tag.name = {mark[1]}"
    join = "FROM tag JOIN manifest ON manifest.repository = tag.repository AND manifest.digest = tag.digest"
    more = "" if inline else " JOIN content ON content.digest = tag.digest"
    source = "manifest" if inline else "content"
    head = "SELECT tag.digest, manifest.media_type, manifest.size"
    return {"head": f"{head} {join} {where}", "bytes": f"{head}, {source}.content {join}{more} {where}"}


def keys(count: int) -> list[tuple[int, str]]:
    """Give tags that exist, in no order."""
    chosen = random.Random(2)
    pairs = ((chosen.randrange(MANIFESTS), chosen.randrange(5)) for _ in range(count))
    return [((number + (0, 67, 131)[tag % 3]) % REPOSITORIES, f"v{number}.{tag}") for number, tag in pairs]


def on_sqlite(directory: Path, name: str) -> tuple[float, float, float, float]:
    """Give µs for head and bytes, MiB on disk, and seconds to fill."""
    digest, _, inline = SCHEMAS[name]
    path = directory / f"{abs(hash(name))}.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    for statement in ddl(digest, "BLOB", inline=inline):
        connection.execute(statement + (" WITHOUT ROWID" if " tag " in statement else ""))
    started = time.perf_counter()
    connection.execute("BEGIN")
    for table, values in rows(text=digest == "TEXT", inline=inline):
        marks = ", ".join("?" * len(values[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
    connection.execute("COMMIT")
    filled = time.perf_counter() - started
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA mmap_size=268435456")
    figures = []
    for query in queries(inline=inline, mark=("?", "?")).values():
        best = 1e9
        for _ in range(3):
            started = time.perf_counter()
            for key in keys(10_000):
                assert connection.execute(query, key).fetchone()
            best = min(best, time.perf_counter() - started)
        figures.append(best / 10_000 * 1e6)
    connection.close()
    size = path.stat().st_size / 2**20
    path.unlink()
    return figures[0], figures[1], size, filled


async def on_postgresql(port: int, name: str) -> tuple[float, float, float, float]:
    """The same on PostgreSQL."""
    _, digest, inline = SCHEMAS[name]
    connection = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="postgres")
    try:
        for statement in ddl(digest, "bytea", inline=inline):
            await connection.execute(statement)
        started = time.perf_counter()
        tables = []
        for table, values in rows(text=digest == "text", inline=inline):
            await connection.copy_records_to_table(table, records=values)
            tables.append(table)
        filled = time.perf_counter() - started
        await connection.execute("VACUUM ANALYZE")
        figures = []
        for query in queries(inline=inline, mark=("$1", "$2")).values():
            prepared = await connection.prepare(query)
            best = 1e9
            for _ in range(2):
                started = time.perf_counter()
                for key in keys(3000):
                    assert await prepared.fetchrow(*key)
                best = min(best, time.perf_counter() - started)
            figures.append(best / 3000 * 1e6)
        sizes = [await connection.fetchval("SELECT pg_total_relation_size($1::regclass)", table) for table in tables]
        for table in tables:
            await connection.execute(f"DROP TABLE {table}")
        return figures[0], figures[1], sum(sizes) / 2**20, filled
    finally:
        await connection.close()


@contextlib.contextmanager
def postgresql(directory: Path) -> Iterator[int]:
    """Run a PostgreSQL server of our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = directory / "pg"
    data.mkdir()
    user = "postgres" if os.getuid() == 0 else None
    if user:
        directory.chmod(0o755)
        shutil.chown(data, user)
    run = {"user": user, "cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([PG_BIN / "initdb", "-D", data, "-A", "trust", "-U", "postgres"], check=True, **run)
    command = [PG_BIN / "postgres", "-D", data, "-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen([*command, "-c", "max_wal_size=4GB"], **run)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        yield port
    finally:
        server.terminate()
        server.wait()


def table(title: str, figures: dict[str, tuple[float, float, float, float]]) -> None:
    """Print each schema's figures and their ratio to the best."""
    print(f"\n## {title}: tag to digest, type, size (us) | with the bytes (us) | MiB | seconds to fill")
    best = [min(column) for column in zip(*figures.values(), strict=True)]
    for name, row in figures.items():
        print(f"{name:<20}", *(f"{f:>9.1f} x{f / b:.2f} " for f, b in zip(row, best, strict=True)))


def main() -> None:
    print(f"SQLite {sqlite3.sqlite_version}, asyncpg {asyncpg.__version__}; {TAGS} tags, {MANIFESTS} manifests x 3")
    print(f"a manifest has {len(body(10_000))} bytes")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        table("SQLite", {name: on_sqlite(directory, name) for name in SCHEMAS})
        if not (PG_BIN / "initdb").exists():
            print("no PostgreSQL found: PG_BIN names the directory of initdb")
            return
        with postgresql(directory) as port:
            version = subprocess.run([PG_BIN / "postgres", "-V"], capture_output=True, text=True, check=True).stdout
            table(version.strip(), {name: asyncio.run(on_postgresql(port, name)) for name in SCHEMAS})


if __name__ == "__main__":
    main()
