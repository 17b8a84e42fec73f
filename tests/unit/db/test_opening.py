"""Addresses, and what a process loads to open them."""

import asyncio
import stat
import sys
from pathlib import Path

import pytest

import roadstead
from roadstead.db.engine import open_database
from roadstead.db.errors import DatabaseUrlError, DriverMissingError, StoreFailedError
from roadstead.db.migrating import configuration
from roadstead.db.schema import HEAD, REVISIONS

SOURCES = str(Path(roadstead.__path__[0]).parent)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "roadstead.db",
        "mysql://host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://host/db",
        "sqlite+aiosqlite:///x",
    ],
)
async def test_addresses_that_name_no_database(url: str) -> None:
    """Told apart at once, with a word on how to write them."""
    with pytest.raises(DatabaseUrlError) as caught:
        await open_database(url, migrate=True)

    assert "sqlite:///" in caught.value.advice()


async def test_a_password_is_never_told() -> None:
    """An address that can't be read may hold a password all the same."""
    with pytest.raises(DatabaseUrlError) as caught:
        await open_database("postgres+x://me:hunter2@host/db", migrate=True)

    assert "hunter2" not in str(caught.value)


async def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(DriverMissingError, match="asyncpg, which isn't installed") as caught:
        await open_database("postgresql://127.0.0.1/x", migrate=False)

    assert caught.value.advice() == 'Run: pip install "roadstead[postgres]"'


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """It holds secrets; the folders above it are made."""
    database = await open_database(f"sqlite:///{tmp_path}/a/b/roadstead.db", migrate=True)
    await database.close()

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b").iterdir()}
    assert modes == {"roadstead.db": 0o600, "roadstead.db.lock": 0o600, "roadstead.db.changes": 0o600}


async def test_names_of_files_are_taken_as_they_are(tmp_path: Path) -> None:
    """What means something in an address of SQLite's own doesn't in a path."""
    path = tmp_path / "a b%41#c.db"
    database = await open_database(f"sqlite:///{tmp_path}/a b%2541#c.db", migrate=True)
    await database.check()
    await database.close()

    assert path.exists()


async def test_a_worker_loads_neither_alembic_nor_another_driver(tmp_path: Path) -> None:
    """They cost more than all the rest of its start."""
    url = f"sqlite:///{tmp_path}/roadstead.db"
    await (await open_database(url, migrate=True)).close()
    code = (
        "import asyncio, sys\n"
        "from roadstead.db.engine import open_database\n"
        "async def main():\n"
        "    await (await open_database(sys.argv[1], migrate=False)).close()\n"
        "asyncio.run(main())\n"
        "print(sorted({'alembic', 'asyncpg', 'greenlet'} & set(sys.modules)))\n"
    )

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, url, env={"PYTHONPATH": SOURCES}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()

    assert output.decode().strip() == "[]"


def test_the_code_knows_the_last_migration() -> None:
    """Workers compare the database with a constant, so that it has to be the last migration there is."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(configuration())

    assert scripts.get_heads() == [HEAD]
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_file_of_turns_that_cannot_be_opened_is_named(tmp_path: Path, *, migrate: bool) -> None:
    """As one that a command of root's made first is for the server's user."""
    url = f"sqlite:///{tmp_path}/roadstead.db"
    await (await open_database(url, migrate=True)).close()
    lock = tmp_path / "roadstead.db.lock"
    lock.unlink()
    lock.mkdir()

    with pytest.raises(StoreFailedError, match=r"roadstead\.db\.lock: Is a directory"):
        await open_database(url, migrate=migrate)
