"""A token service as Docker's specification has it, for a real distribution registry to trust."""

import asyncio
import base64
import hashlib
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from roadstead.auth.key_ids import libtrust_id, thumbprint

ISSUER, SERVICE = "token-service", "registry-under-test"


@dataclass(slots=True)
class TokenService:
    """Gives a user who may do nearly everything what is asked for, and anybody else the right to pull ``public/…``."""

    directory: Path
    user: str
    password: str
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """The scopes of each request, and who asked."""

    named: str = "x5c"
    """How tokens name their key: by the certificate (``x5c``), or by an id (``libtrust``, ``thumbprint``)."""

    closed: str = "closed/"
    """Where nobody gets anything but the right to pull: what repositories' names begin with."""

    _key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    _certificate: bytes = b""

    def trust(self) -> dict[str, Any]:
        """Return the ``auth`` of a registry that trusts it."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._certificate = certificate.public_bytes(serialization.Encoding.DER)
        bundle = self.directory / "bundle.pem"
        bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        realm = f"{self.url}/token"
        return {"token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}}

    async def answer(self, request: web.Request) -> web.Response:
        """Give a token for what was asked and may be had."""
        scopes = request.query.getall("scope", [])
        sent = request.headers.get("Authorization")
        known = sent == f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"
        self.asked.append(f"{self.user if known else 'anonymous'} {' '.join(scopes)}")
        if sent is not None and not known:
            return web.json_response({"details": "wrong"}, status=401)
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            asked = [action for action in actions.split(",") if action == "pull" or not name.startswith(self.closed)]
            if known or (name.startswith("public/") and actions == "pull"):
                access.append({"type": kind, "name": name, "actions": asked})
        return web.json_response({"token": self._token(access, self.user if known else ""), "expires_in": 300})

    def _token(self, access: list[dict[str, Any]], subject: str) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", **self._key_name()}
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": hashlib.sha256(str(time.time_ns()).encode()).hexdigest(),
            "access": access,
        }
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def _key_name(self) -> dict[str, Any]:
        if self.named == "x5c":
            return {"x5c": [base64.b64encode(self._certificate).decode()]}
        return {"kid": {"libtrust": libtrust_id, "thumbprint": thumbprint}[self.named](self._key.public_key())}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@asynccontextmanager
async def token_service(
    directory: Path, user: str, password: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[TokenService]:
    """Run a token service on a free port of 127.0.0.1 until the block is left."""
    service = TokenService(directory, user, password)
    application = web.Application()
    application.router.add_get("/token", service.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    service.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()


@contextmanager
def token_service_in_thread(directory: Path, user: str, password: str, tls: ssl.SSLContext) -> Iterator[TokenService]:
    """The same over TLS, for tests that have no loop."""
    ready: Future[TokenService] = Future()
    over = asyncio.Event()

    async def work() -> None:
        async with token_service(directory, user, password, tls) as service:
            loops.append(asyncio.get_running_loop())
            ready.set_result(service)
            await over.wait()

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(work()), name="token service")
    thread.start()
    try:
        yield ready.result(10)
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(10)
