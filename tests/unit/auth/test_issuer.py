"""An issuer that is asked over the wire: what it may say, where it may send us, and keys that change."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from roadstead.auth.oidc.errors import IssuerUnavailableError
from roadstead.auth.oidc.issuer import LOOKED_FOR_AGAIN_AFTER_S, REFRESHED_AFTER_S, CodeRefusedError, Issuer
from roadstead.secret import Secret
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.transport import Transport


def jwk(kid: str) -> dict[str, object]:
    return {**ECKey.import_key(ec.generate_private_key(ec.SECP256R1())).as_dict(private=False), "kid": kid}


@dataclass
class Scripted:
    """A server that answers as it is told to, and keeps what it was asked."""

    host: str = ""
    document: dict[str, object] = field(default_factory=dict)
    keys: list[dict[str, object]] = field(default_factory=lambda: [jwk("first")])
    token: dict[str, object] = field(default_factory=lambda: {"id_token": "the token"})
    token_status: int = 200
    asked: list[str] = field(default_factory=list)
    forms: list[dict[str, list[str]]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    redirect: str | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.redirect is not None:
            return web.Response(status=302, headers={"Location": self.redirect})
        if request.path == "/keys":
            return web.json_response({"keys": self.keys})
        if request.path == "/token":
            self.forms.append(parse_qs(await request.text()))
            self.authorizations.append(request.headers.get("Authorization"))
            return web.json_response(self.token, status=self.token_status)
        default = {"issuer": self.url, "authorization_endpoint": f"{self.url}/authorize",
                   "token_endpoint": f"{self.url}/token", "jwks_uri": f"{self.url}/keys"}  # fmt: skip
        return web.json_response({**default, **self.document})


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    script, application = Scripted(), web.Application()
    application.router.add_route("*", "/{path:.*}", script.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    script.host = f"{host}:{port}"
    yield script
    await runner.cleanup()


@dataclass
class Ticks:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer(scripted: Scripted) -> AsyncIterator[Callable[..., Issuer]]:
    made: list[Issuer] = []

    def make(secret: str | None = None, ticks: Ticks | None = None) -> Issuer:
        transport = Transport(egress=EgressPolicy(frozenset({scripted.host})), redirects=0)
        given = None if secret is None else Secret(secret)
        made.append(Issuer(scripted.url, "road:stead", given, transport, ticks=ticks or Ticks()))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


async def test_a_new_key_is_looked_for_once_in_a_while(scripted: Scripted, issuer: Callable[..., Issuer]) -> None:
    """A token that names an unknown one has the set read again, but no flood of such tokens does."""
    ticks = Ticks()
    one = issuer(ticks=ticks)
    first = await one.keys()
    assert await one.keys() is first
    assert await one.keys(beyond=first) is first
    scripted.keys.append(jwk("second"))
    ticks.now += LOOKED_FOR_AGAIN_AFTER_S
    assert await one.keys() is first

    second = await one.keys(beyond=first)

    assert [key.kid for key in second.keys] == ["first", "second"]
    assert await one.keys(beyond=second) is second
    assert await one.keys(beyond=first) is second
    assert scripted.asked.count("/keys") == 2
    ticks.now += REFRESHED_AFTER_S
    del scripted.keys[0]
    assert [key.kid for key in (await one.keys()).keys] == ["second"]
    assert scripted.asked.count("/.well-known/openid-configuration") == 2


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "http://127.0.0.1:1"},
        {"issuer": None},
        {"token_endpoint": None},
        {"token_endpoint": "ftp://127.0.0.1/token"},
        {"token_endpoint": "http://169.254.169.254/token"},
        {"jwks_uri": "http://sso.example/keys"},
        {"jwks_uri": "https://user@127.0.0.1/keys"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://[::1/authorize"},
        {"authorization_endpoint": "https://sso.example/authorize#part"},
        {"authorization_endpoint": ["https://sso.example/authorize"]},
    ],
)
async def test_a_document_that_misleads_is_not_taken(
    scripted: Scripted, issuer: Callable[..., Issuer], document: dict[str, object]
) -> None:
    """It has to be the issuer's own, and to name addresses that are safe."""
    scripted.document = document

    with pytest.raises(IssuerUnavailableError):
        await issuer().metadata()


@pytest.mark.parametrize("where", ["http://127.0.0.1:1/", "https://evil.example/", "/elsewhere"])
async def test_redirects_are_not_followed(scripted: Scripted, issuer: Callable[..., Issuer], where: str) -> None:
    """Neither elsewhere nor to itself: settings name where it is."""
    scripted.redirect = where

    with pytest.raises(IssuerUnavailableError, match="redirect"):
        await issuer().metadata()
    assert len(scripted.asked) == 1


async def test_private_addresses_that_nobody_named_are_not_asked(
    scripted: Scripted, issuer: Callable[..., Issuer]
) -> None:
    """The issuer may be anywhere, as settings name it; where its document points has to be public, or named too."""
    scripted.document = {"jwks_uri": "https://127.0.0.1:9/keys"}

    with pytest.raises(IssuerUnavailableError, match="may not be connected to"):
        await issuer().keys()


async def test_a_code_is_redeemed_with_its_proof(scripted: Scripted, issuer: Callable[..., Issuer]) -> None:
    """With the secret in the header, encoded as RFC 6749 wants it; in the form where the issuer wants that."""
    tokens = await issuer("a secret: 100%").redeem("the code", "the verifier", "http://localhost/auth/callback")

    assert (tokens.id_token, tokens.access_token) == ("the token", None)
    assert scripted.forms[0] == {
        "grant_type": ["authorization_code"], "code": ["the code"], "code_verifier": ["the verifier"],
        "redirect_uri": ["http://localhost/auth/callback"],
    }  # fmt: skip
    sent = (scripted.authorizations[0] or "").removeprefix("Basic ")
    assert b64decode(sent) == b"road%3Astead:a%20secret%3A%20100%25"
    scripted.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    await issuer("a secret").redeem("c", "v", "u")
    assert (scripted.forms[1]["client_id"], scripted.forms[1]["client_secret"]) == (["road:stead"], ["a secret"])
    await issuer().redeem("c", "v", "u")
    assert (scripted.forms[2]["client_id"], "client_secret" in scripted.forms[2]) == (["road:stead"], False)
    assert scripted.authorizations[1:] == [None, None]


@pytest.mark.parametrize(("said", "told"), [("invalid_grant", "invalid_grant"), ("<b>", "an error without a name")])
async def test_a_code_that_is_refused(scripted: Scripted, issuer: Callable[..., Issuer], said: str, told: str) -> None:
    """Is told by the issuer's own word for it, if that is one."""
    scripted.token, scripted.token_status = {"error": said}, 400

    with pytest.raises(CodeRefusedError) as raised:
        await issuer().redeem("c", "v", "u")
    assert raised.value.code == told


async def test_an_answer_without_an_id_token(scripted: Scripted, issuer: Callable[..., Issuer]) -> None:
    """Isn't OpenID Connect."""
    scripted.token = {"access_token": json.dumps({})}

    with pytest.raises(IssuerUnavailableError, match="openid"):
        await issuer().redeem("c", "v", "u")
