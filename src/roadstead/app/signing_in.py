"""Signing people in at issuers, as settings want it. Loaded with the first who does so."""

import os
from collections.abc import Callable
from urllib.parse import urlsplit

from roadstead.app.plugs import CLOCK
from roadstead.auth.oidc.flow import Provider, SignIn
from roadstead.auth.oidc.id_token import IdTokenRules
from roadstead.auth.oidc.issuer import Issuer
from roadstead.auth.oidc.person import PersonRules
from roadstead.auth.sealing import Sealer
from roadstead.auth.standing import Standing
from roadstead.db.engine import Database
from roadstead.secret import Secret
from roadstead.settings.model import IssuerSettings, OidcSettings, Settings
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.transport import Transport

ATTEMPTS_SECRET = "sign-in attempts"  # noqa: S105 -- the name of the secret


def build_sign_in(
    settings: Settings, database: Database, standing: Standing, refused: Callable[[str, str, str], None]
) -> SignIn:
    """Return what signs people in at the issuers that settings name."""
    oidc = settings.auth.oidc or OidcSettings()

    async def sealer() -> Sealer:
        # Of the installation, so that a browser that begins at one replica can come back to another.
        return Sealer(Secret((await database.instance.secret(ATTEMPTS_SECRET)).hex()))

    return SignIn(
        [_provider(issuer, oidc) for issuer in oidc.issuers],
        sealer,
        database.people,
        standing,
        CLOCK,
        session_lifetime=oidc.session_lifetime,
        refused=refused,
    )


def _provider(issuer: IssuerSettings, oidc: OidcSettings) -> Provider:
    others = [other for other in oidc.issuers if other is not issuer]
    return Provider(
        issuer.name,
        Issuer(issuer.issuer, issuer.client_id, issuer.client_secret, _transport(issuer)),
        issuer.scopes,
        IdTokenRules(issuer.issuer, issuer.client_id, frozenset(issuer.algorithms), issuer.leeway),
        PersonRules(
            issuer=issuer.display_name or issuer.name,
            username_claim=issuer.username_claim,
            groups_claim=issuer.groups_claim,
            user_prefix=issuer.user_prefix,
            group_prefix=issuer.group_prefix,
            other_user_prefixes=tuple(other.user_prefix for other in others),
            other_group_prefixes=tuple(other.group_prefix for other in others),
            allowed_groups=frozenset(issuer.allowed_groups),
            allowed_domains=frozenset(domain.lower() for domain in issuer.allowed_domains),
            domain_claim=issuer.domain_claim,
        ),
    )


def _transport(issuer: IssuerSettings) -> Transport:
    """Return how it is asked: itself and its trusted hosts wherever they are, else public addresses; no redirects."""
    trusted = {urlsplit(issuer.issuer).netloc.lower(), *(host.lower() for host in issuer.trusted_hosts)}
    return Transport(
        ca_file=issuer.ca,
        proxies=Proxies.from_environment(os.environ),
        egress=EgressPolicy(frozenset(trusted)),
        by_proxy=True,
        redirects=0,
    )
