"""A token service as Docker's specification has it, for a real distribution registry to trust."""

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

ISSUER, SERVICE = "token-service", "registry-under-test"


@dataclass(slots=True)
class TokenService:
    """Gives a user who may do everything what is asked for, and anybody else the right to pull ``public/…``."""

    directory: Path
    user: str
    password: str
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """The scopes of each request, and who asked."""

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
            if known or (name.startswith("public/") and actions == "pull"):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
        return web.json_response({"token": self._token(access), "expires_in": 300})

    def _token(self, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self._certificate).decode()]}
        claims = {
            "iss": ISSUER,
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": hashlib.sha256(str(time.time_ns()).encode()).hexdigest(),
            "access": access,
        }
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@asynccontextmanager
async def token_service(directory: Path, user: str, password: str) -> AsyncIterator[TokenService]:
    """Run a token service on a free port of 127.0.0.1 until the block is left."""
    service = TokenService(directory, user, password)
    application = web.Application()
    application.router.add_get("/token", service.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()
