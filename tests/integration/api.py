"""A server whose API is asked: who there is, and what they say."""

import asyncio
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from roadstead.auth.api_keys import make_key
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.db.engine import open_database
from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer

ADMIN, ANA = "root", "ana"
JSON = {"Content-Type": "application/json"}


class Guarded:
    """A server with an administrator, and ana, who isn't one; each has a key that is good for everything."""

    def __init__(self, server: RoadsteadServer, database_url: str | None = None) -> None:
        self.server = server
        self._database_url = database_url or f"sqlite:///{server.data}/roadstead.db"
        self._keys = {name: asyncio.run(self._key(name, groups)) for name, groups in ((ADMIN, ["admins"]), (ANA, []))}

    def headers(self, name: str) -> Mapping[str, str]:
        """Return what somebody signs in with."""
        return {"Authorization": f"Basic {b64encode(f'{name}:{self._keys[name]}'.encode()).decode()}"}

    def ask(self, client: Client, name: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request as somebody; return status and document."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers(name), **(JSON if body is not None else {})}
        answer = client.request(method, f"/api/v1{path}", headers=headers, body=data)
        return answer.status, json.loads(answer.body) if answer.body else None

    def run(self, *words: str) -> str:
        """Run a command beside the server and return what it printed."""
        config = [str(self.server.directory / "roadstead.toml"), "--data", str(self.server.data)]
        command = [sys.executable, "-m", "roadstead", *words, *config]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def _key(self, name: str, groups: Collection[str]) -> str:
        now = datetime.now(UTC)
        principal = Principal(PrincipalKind.USER, name, frozenset(groups))
        made = make_key(principal, Scope((RepositoryGlob("**"),), frozenset(Action)), now=now, expires_at=None)
        database = await open_database(self._database_url, migrate=False)
        try:
            await database.accounts.put_account(principal, None, replace=False, now=now)
            await database.accounts.put_key(made.row)
        finally:
            await database.close()
        return made.text.reveal()
