"""Bearer tokens as settings want them: whose are believed, whether we issue some, how clients are told.

Loaded only where settings speak of tokens: the libraries for them cost a worker half its start.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from roadstead.app.plugs import CLOCK
from roadstead.app.upstreams import build_upstreams
from roadstead.auth.access import Access
from roadstead.auth.bearer import BearerChallenge
from roadstead.auth.challenges import BasicChallenge
from roadstead.auth.policies import Policies
from roadstead.auth.ports import Challenges, Identities
from roadstead.auth.proof import Bonds
from roadstead.auth.providers.tokens import BearerTokens, ForeignTokens
from roadstead.auth.sealing import Sealer, kept_master_key
from roadstead.auth.signing_keys import SigningKeys
from roadstead.auth.token_desk import TokenDesk, by_policies
from roadstead.auth.tokens import OwnTokens, TokenIssuer
from roadstead.auth.trusted_keys import KeysUnreadableError, TrustedKeys, keys_of_bundle, keys_of_jwks
from roadstead.auth.verifying import ALGORITHMS, TokenRules, TokenVerifier
from roadstead.db.stores.tokens import DatabaseTokens
from roadstead.errors import RoadsteadError
from roadstead.http.names import parse_name
from roadstead.http.token_door import TokenDoor
from roadstead.proxy.spaces import Upstream, default_space
from roadstead.secret import Secret
from roadstead.settings.model import IssueSettings, KeyIds, Settings, TokenSettings

MASTER_KEY_FILE = "master.key"


class TokenParts:
    """What settings make of tokens; every process has its own, over the same store."""

    def __init__(self, settings: Settings, store: DatabaseTokens, identities: Identities) -> None:
        self._settings = settings
        self._store = store
        self._identities = identities
        self._issue = settings.issue
        self._keys: SigningKeys | None = None
        if self._issue is not None:
            sealer = Sealer(_master_key(settings))
            self._keys = _signing_keys(settings, self._issue, store, sealer)
            self._bonds = Bonds(sealer.mark)

    async def check(self) -> None:
        """Read every key there is; raises KeysUnreadableError, MasterKeyWrongError."""
        self.authenticator()
        if self._keys is not None:
            await self._keys.published()

    def authenticator(self) -> BearerTokens:
        """Return what believes tokens; raises KeysUnreadableError."""
        issuers: dict[str, OwnTokens | ForeignTokens] = {}
        foreign = self._settings.auth.token
        if foreign is not None:
            issuers[foreign.issuer] = ForeignTokens(_verifier(foreign), CLOCK)
        if self._keys is not None and self._issue is not None:
            rules = _own_rules(self._settings, self._issue)
            issuers[rules.issuer] = OwnTokens(self._keys, rules, self._identities, self._bonds, CLOCK)
        return BearerTokens(issuers)

    def challenges(self) -> Challenges:
        """Return how clients are told where to get a token: from the issuer that is trusted, else from us."""
        foreign = self._settings.auth.token
        if foreign is not None:
            realm = _redirected(foreign.autoredirect_path) if foreign.autoredirect else foreign.realm
            return BearerChallenge(realm, foreign.service)
        return BearerChallenge(_own_realm(self._settings), own_service(self._settings))

    def door(self, access: Access, policies: Policies) -> TokenDoor | None:
        """Return the token server, where we issue."""
        issue = self._issue
        if issue is None or self._keys is None:
            return None
        rules = _own_rules(self._settings, issue)
        issuer = TokenIssuer(
            self._keys,
            rules,
            self._bonds,
            CLOCK,
            lifetime=issue.lifetime,
            libtrust=issue.key_ids is KeyIds.LIBTRUST,
        )
        desk = TokenDesk(
            access,
            issuer,
            by_policies(policies, partial(_repositories, default_space(build_upstreams(self._settings)))),
            self._store,
            self._identities,
            self._bonds,
            CLOCK,
            service=rules.service,
            refresh_lifetime=issue.refresh_lifetime,
        )
        return TokenDoor(desk, self._keys, BasicChallenge(self._settings.auth.realm))


def own_service(settings: Settings) -> str:
    """Return what our tokens are for: the name that was given, else that of the public address."""
    given = settings.issue.service if settings.issue is not None else None
    return given or (settings.server.public_url or "").partition("://")[2].rstrip("/") or "roadstead"


def _own_rules(settings: Settings, issue: IssueSettings) -> TokenRules:
    service = own_service(settings)
    return TokenRules(issue.issuer or service, service, frozenset({"ES256", "RS256", "EdDSA"}))


def _own_realm(settings: Settings) -> str | Callable[[str, str], str]:
    path = f"{settings.server.prefix.rstrip('/')}/auth/token"
    if settings.server.public_url is not None:
        return settings.server.public_url.rstrip("/") + path
    return lambda scheme, host: f"{scheme}://{host}{path}"


def _redirected(path: str) -> Callable[[str, str], str]:
    # As distribution does, which goes by a header that anybody may send only to say http.
    return lambda scheme, host: f"https://{host}/{path.lstrip('/')}"


def _signing_keys(settings: Settings, issue: IssueSettings, store: DatabaseTokens, sealer: Sealer) -> SigningKeys:
    return SigningKeys(
        store,
        sealer,
        CLOCK,
        issuer=issue.issuer or own_service(settings),
        algorithm=issue.algorithm.value,
        rotate_every=issue.rotate_every,
        tokens_last=issue.lifetime,
    )


def _master_key(settings: Settings) -> Secret:
    """Return the master key that was given; beside a data directory of our own, else, one that is made and kept.

    Raises KeysUnreadableError where that can't be read or made.
    """
    if settings.auth.master_key is not None:
        return settings.auth.master_key
    path = settings.storage.path / MASTER_KEY_FILE
    try:
        return kept_master_key(path)
    except OSError as error:
        raise KeysUnreadableError(f"the master key in {path}", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise KeysUnreadableError(f"the master key in {path}", "it is not ASCII") from error


def trusted_keys(settings: TokenSettings) -> TrustedKeys:
    """Return the keys of the issuer that settings trust; raises KeysUnreadableError."""
    keys = TrustedKeys()
    for path, read in ((settings.rootcertbundle, keys_of_bundle), (settings.jwks, keys_of_jwks)):
        if path is not None:
            keys = keys.with_all(read(_bytes(path), str(path)))
    return keys


def _verifier(settings: TokenSettings) -> TokenVerifier:
    algorithms = frozenset(settings.signing_algorithms or ALGORITHMS)
    return TokenVerifier(trusted_keys(settings), TokenRules(settings.issuer, settings.service, algorithms))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeysUnreadableError(str(path), error.strerror or str(error)) from error


def _repositories(default_of: Callable[[str], Upstream | None], name: str) -> Sequence[str]:
    """Return what a name in a path may stand for: what it says, and an upstream's that it may be a short name of."""
    try:
        repository = str(parse_name(name).repository)
    except RoadsteadError:
        return ()
    upstream = default_of(repository)
    return (repository,) if upstream is None else (repository, f"{upstream.host}/{repository}")
