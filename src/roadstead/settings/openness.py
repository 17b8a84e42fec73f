"""A registry in which nobody has to sign in, or is never asked to: what settings say of that."""

from urllib.parse import urlsplit

from roadstead.settings.address import is_this_machine
from roadstead.settings.findings import Finding
from roadstead.settings.model import Settings


def open_behind_a_proxy(settings: Settings) -> Finding | None:
    """Return what to know of a loopback port that anybody may write to through a proxy; None where that isn't so. Pure.

    `auth.accounts` has been decided. Of a port that others reach by themselves check_settings tells.
    """
    server = settings.server
    if settings.auth.is_on or settings.registry.read_only or server.open_to_network or not server.listen.is_loopback:
        return None
    key = _reached_by(settings)
    if key is None:
        return None
    return Finding(
        key,
        "others reach this registry through a proxy, and nobody has to sign in: whoever reaches it can read, write "
        "and delete every image",
        advice="Say who may do what in [auth] (docs/how-to/sign-in.md); if it is meant so, say that with "
        "server.open_to_network = true (--open-to-network).",
    )


def opens_without_accounts(settings: Settings) -> bool:
    """Say whether nobody has to sign in after a start that finds no account, as somebody did where it found one. Pure.

    `auth.accounts` hasn't been decided.
    """
    return settings.auth.accounts is None and not settings.auth.is_on and not settings.is_rebuildable


def asks_nobody(settings: Settings) -> Finding | None:
    """Return what to know of passwords that no client would be asked for; None where they are. Pure.

    `auth.accounts` has been decided.
    """
    auth = settings.auth
    has_passwords = auth.htpasswd is not None or bool(auth.accounts)
    if not has_passwords or not auth.is_open_to_some or auth.token is not None or settings.issue is not None:
        return None
    return Finding(
        "auth.issue",
        "policies allow something to those who haven't signed in, and no tokens are given out, so no client is asked "
        "for a password at /v2/: docker login takes any, and docker push ends with unauthorized",
        advice="Have tokens given out, with an empty table [auth.issue] and, where the data isn't on a disk of this "
        "machine, auth.master_key; or have no policy allow anything to everyone or anonymous.",
    )


def _reached_by(settings: Settings) -> str | None:
    """Return the setting that says that others come here; None where none does."""
    public = settings.server.public_url
    if public is not None:
        host = urlsplit(public).hostname or ""
        if not is_this_machine(host) and not host.endswith(".localhost"):  # RFC 6761 §6.3
            return "server.public_url"
    return "server.trusted_proxies" if settings.server.trusted_proxies else None
