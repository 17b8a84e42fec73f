"""An OpenID Connect provider for tests, as a process of its own, and a browser that people use with it."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from roadstead.testing.client import Answer, Client
from roadstead.testing.components import ComponentMissingError
from roadstead.testing.ports import free_port
from roadstead.testing.servers import Process, accepts_connections

INSTALL = 'pip install "roadstead[dev]"'


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """A running provider that takes any client id and secret; people sign in by naming themselves."""

    port: int

    @property
    def url(self) -> str:
        """The issuer."""
        return f"http://127.0.0.1:{self.port}"

    def knows(self, subject: str, **claims: object) -> None:
        """Have it know a person by a subject, with claims for their ID token; those it knew before are forgotten."""
        with Client(f"127.0.0.1:{self.port}") as client:
            answer = client.put(
                f"/users/{quote(subject)}", json.dumps(claims).encode(), {"Content-Type": "application/json"}
            )
        if answer.status != 204:
            raise AssertionError(f"{answer.status} {answer.body!r}")

    def agree(self, url: str, subject: str) -> str:
        """Sign in there as somebody, who agrees; return where the browser is sent."""
        return self._answer(url, {"sub": subject})

    def decline(self, url: str) -> str:
        """Say no there; return where the browser is sent."""
        return self._answer(url, {"action": "deny"})

    def _answer(self, url: str, form: Mapping[str, str]) -> str:
        parts = urlsplit(url)
        if parts.netloc != f"127.0.0.1:{self.port}":
            raise AssertionError(f"{url} is somewhere else")
        with Client(parts.netloc) as client:
            path = f"{parts.path}?{parts.query}"
            answer = client.post(path, urlencode(form).encode(), {"Content-Type": "application/x-www-form-urlencoded"})
        if answer.status != 302:
            raise AssertionError(f"{answer.status} {answer.body[:2000]!r}")
        return answer.headers["location"]


@contextmanager
def open_oidc_provider() -> Iterator[OidcProvider]:
    """Run a provider until the block is left."""
    if find_spec("oidc_provider_mock") is None:
        raise ComponentMissingError("oidc-provider-mock", INSTALL)
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "roadstead.testing.oidc_process", str(port)]
        with Process(command, log=Path(directory) / "provider.log") as process:
            process.wait_ready(lambda: accepts_connections(port))
            yield OidcProvider(port)


@dataclass(slots=True)
class Browser:
    """A client that keeps cookies and says where its forms come from, as browsers do; it follows nothing by itself."""

    client: Client
    origin: str
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Follow a link, or type an address."""
        return self.send("GET", path, headers=headers)

    def post(self, path: str, form: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Answer:
        """Send a form of a page of the same origin, unless `headers` say otherwise."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        own = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return self.send("POST", path, urlencode(form, doseq=True).encode(), {**kind, **own})

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request with the cookies there are, and keep those that the answer brings."""
        sent = dict(headers or {})
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self.client.request(method, path, body, sent)
        for line in answer.every("set-cookie"):
            found = re.match(r"([^=]+)=([^;]*)", line)
            if found is None:
                raise AssertionError(line)
            if "Max-Age=0" in line:
                self.cookies.pop(found[1], None)
            else:
                self.cookies[found[1]] = found[2]
        return answer


def path_of(url: str) -> str:
    """Return path and query of an address."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
