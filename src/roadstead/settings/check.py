"""What can only be judged of settings as a whole: one function a question, each returning findings."""

import errno
import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from roadstead.oci.descriptor import Platform, PlatformInvalidError
from roadstead.oci.digest import Digest, DigestInvalidError
from roadstead.oci.pattern import Pattern, PatternInvalidError
from roadstead.oci.reference import NameInvalidError, RepositoryName
from roadstead.settings.address import is_this_machine
from roadstead.settings.database_url import has_good_port, is_postgresql
from roadstead.settings.findings import Finding, nearest
from roadstead.settings.model import (
    EndpointSettings,
    IssuerSettings,
    LayerSettings,
    LinksMode,
    OffloadMode,
    PolicyAction,
    PolicyEffect,
    PolicySettings,
    RetentionSettings,
    Settings,
    SignIn,
    StorageDriver,
    TokenSettings,
    UpstreamSettings,
)
from roadstead.settings.mounts import filesystem_of, is_network

_SQLITE = "sqlite"
_SHORTEST_MASTER_KEY = 32
_SHORTEST_TOKEN, _LONGEST_TOKEN = timedelta(minutes=1), timedelta(hours=1)
_SHORTEST_ROTATION = timedelta(hours=1)
_HOST_PORT = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SHORTEST_WINDOW = timedelta(seconds=1)
_SIGNING = ("EdDSA", "Ed25519", *(f"{kind}{size}" for kind in ("RS", "ES", "PS", "HS") for size in (256, 384, 512)))
_SHORTEST_WRITER_LEASE = timedelta(seconds=6)
_SHORTEST_GRACE = timedelta(hours=1)
_PREFIX = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")
_SHORTEST_SECRET = 16
_AMAZONS = re.compile(r"[0-9]{12}\.dkr[.-]ecr[a-z0-9.-]+|public\.ecr\.aws")
_HEADER = re.compile(r"[!-~]+")
_METRICS_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_REALM = re.compile(r"[\x20-\x7e]{1,255}")
_SUBJECTS = ("anonymous", "authenticated", "everyone")
_MOST_PULLS = 64
_SUBJECT_KINDS = ("user", "robot", "group", "issued")
_NAMED_SUBJECT = re.compile(rf"(?:{'|'.join(_SUBJECT_KINDS)}):\S{{1,255}}")
_ISSUER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_ACCOUNT_PREFIX = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._@+-]{0,31})?")
_ID_TOKEN_SIGNING = tuple(name for name in _SIGNING if not name.startswith("HS"))
_LONGEST_LEEWAY = timedelta(minutes=5)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:[!-~]{1,500}")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(?:/[a-z0-9.]+)?")


def check_settings(settings: Settings) -> Sequence[Finding]:
    """Return everything that speaks against serving with these settings; empty if nothing does."""
    return tuple(
        finding
        for question in (
            _server,
            _proxies,
            _tls,
            _storage,
            _database,
            _limits,
            _allowances,
            _auth,
            _rules,
            _signatures,
            _gc,
            _upstreams,
            _events,
        )
        for finding in question(settings)
    )


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for another database or one in memory."""
    scheme, _, rest = url.partition("://")
    path = rest.partition("?")[0][1:]
    return Path(path) if scheme.partition("+")[0] == _SQLITE and path and path != ":memory:" else None


def unreadable(path: Path) -> str | None:
    """Say why a file can't be read, as the system has it; None: it can."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))  # a pipe need not have a writer yet
    except OSError as error:
        return error.strerror or str(error)
    return os.strerror(errno.EISDIR) if path.is_dir() else None


def _server(settings: Settings) -> Iterator[Finding]:
    server = settings.server
    if not server.listen.is_loopback and not server.open_to_network and not settings.auth.is_on:
        yield Finding(
            "server.listen",
            f"{server.listen} can be reached from other machines, and nobody has to sign in: whoever "
            "reaches it could read, write and delete every image",
            advice="Say who may do what in [auth] (docs/how-to/sign-in.md), or listen at 127.0.0.1; if it is meant so, "
            "say that with server.open_to_network = true (--open-to-network).",
        )
    if server.public_url is not None:
        url = urlsplit(server.public_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.path not in ("", "/") or url.query:
            yield Finding(
                "server.public_url", f"expected http(s)://HOST[:PORT] without a path, got {server.public_url!r}"
            )
    elif not server.relative_urls:
        yield Finding(
            "server.relative_urls",
            "false needs server.public_url: which host and scheme a client used can't be known behind a proxy",
        )
    for name in server.hosts:
        if not _HOST_PORT.fullmatch(name):
            yield Finding("server.hosts", f"expected HOST or HOST:PORT, got {name!r}")
    if not _PREFIX.fullmatch(server.prefix):
        yield Finding("server.prefix", f"expected a path with a slash at both ends, got {server.prefix!r}")
    yield from _offload(settings)
    yield from _metrics(settings)


def _offload(settings: Settings) -> Iterator[Finding]:
    server, secret = settings.server, settings.server.offload_secret
    if server.offload is OffloadMode.OFF:
        return
    if settings.storage.driver is not StorageDriver.FILESYSTEM:
        yield Finding(
            "server.offload",
            f"{server.offload} needs files that nginx can read, and blobs are in S3",
            advice="Leave it out; with S3, storage.redirect = true sends clients to the bucket.",
        )
    if server.offload_location == "/" or not _PREFIX.fullmatch(server.offload_location):
        yield Finding(
            "server.offload_location",
            f"expected a path with a slash at both ends, such as /roadstead-blobs/, got {server.offload_location!r}",
        )
    if secret is None or len(secret.reveal()) < _SHORTEST_SECRET or not _HEADER.fullmatch(secret.reveal()):
        yield Finding(
            "server.offload_secret",
            f"{server.offload} needs a secret of {_SHORTEST_SECRET} or more visible characters, without spaces",
            advice="Make one with `openssl rand -hex 24`, and have nginx say it in X-Roadstead-Offload.",
        )


def _proxies(settings: Settings) -> Iterator[Finding]:
    for text in settings.server.trusted_proxies:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            told = f"expected an address or a network such as 10.0.0.0/8, got {text!r} ({error})"
            yield Finding("server.trusted_proxies", told)


def _tls(settings: Settings) -> Iterator[Finding]:
    tls = settings.tls
    if (tls.certificate is None) != (tls.key is None):
        given, other = ("certificate", "key") if tls.key is None else ("key", "certificate")
        yield Finding(f"tls.{given}", f"needs tls.{other} too")
    elif tls.self_signed and tls.certificate is not None:
        yield Finding("tls.self_signed", "there is tls.certificate already: take one of them")
    for name in tls.names:
        if not _HOST.fullmatch(name) and not _is_address(name):
            yield Finding("tls.names", f"expected hosts and addresses without a port, got {name!r}")
    if tls.names and not tls.self_signed:
        yield Finding("tls.names", "are for tls.self_signed = true; another certificate has its names already")
    if tls.client_ca and not settings.speaks_tls:
        yield Finding("tls.client_ca", "needs TLS: set tls.certificate and tls.key, or tls.self_signed = true")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _metrics(settings: Settings) -> Iterator[Finding]:
    listen, path = settings.metrics.listen, settings.metrics.path
    if listen is not None and listen.port and listen == settings.server.listen:
        yield Finding("metrics.listen", f"{listen} is server.listen already; leave it out or take another port")
    if not _METRICS_PATH.fullmatch(path):
        yield Finding("metrics.path", f"expected a path such as /metrics, got {path!r}")


def _storage(settings: Settings) -> Iterator[Finding]:
    storage = settings.storage
    if storage.driver is StorageDriver.FILESYSTEM:
        # What this user may not look into is told by whoever opens it: Path.exists would raise.
        if os.path.exists(storage.path) and not storage.path.is_dir():  # noqa: PTH110
            yield Finding("storage.path", f"{storage.path} is not a directory")
        if storage.redirect:
            yield Finding(
                "storage.redirect",
                "clients can be sent to a bucket, and blobs are in files",
                advice='Leave it out; behind nginx, server.offload = "x-accel" takes the bytes off this server.',
            )
        return
    if not storage.bucket:
        yield Finding("storage.bucket", "the s3 driver needs the name of a bucket")
    for key, url in (("storage.endpoint", storage.endpoint), ("storage.redirect_endpoint", storage.redirect_endpoint)):
        if url is None:
            continue
        if "@" in urlsplit(url).netloc:
            yield Finding(
                key, "has a password in it", advice="Write them as storage.access_key and storage.secret_key."
            )
        elif urlsplit(url).scheme not in ("http", "https"):
            yield Finding(key, f"expected http(s)://HOST[:PORT], got {url!r}")
    if storage.kms_key is not None and not storage.encrypt:
        yield Finding("storage.kms_key", "encrypts nothing without storage.encrypt = true")
    if (storage.access_key is None) != (storage.secret_key is None):
        yield Finding("storage.access_key", "access_key and secret_key belong together: set both or neither")


def _database(settings: Settings) -> Iterator[Finding]:
    url = settings.database_url
    if settings.database.url == "":
        yield Finding(
            "database.url",
            "is empty",
            advice="Leave it out, and it is SQLite in the data directory.",
            id="secret.empty",
        )
        return
    if settings.is_rebuildable:
        yield from _rebuildable(settings)
    if url.partition(":")[0].partition("+")[0] == _SQLITE:
        yield from _sqlite(settings)
    elif not is_postgresql(url) or not has_good_port(url):
        yield Finding("database.url", "expected sqlite:///PATH or postgresql://USER:PASSWORD@HOST[:PORT]/NAME")


def _rebuildable(settings: Settings) -> Iterator[Finding]:
    if is_postgresql(settings.database_url):
        yield Finding("database.mode", "rebuildable is for SQLite: PostgreSQL keeps what it knows; leave the mode out")
    if settings.storage.driver is not StorageDriver.S3:
        yield Finding(
            "database.mode",
            "rebuildable is for storage in a bucket",
            advice="Leave it out: beside a folder the database is kept, and built anew by itself if it is lost.",
        )
    if settings.storage.links not in (None, LinksMode.SYNC):
        yield Finding("storage.links", f"{settings.storage.links} loses what database.mode = rebuildable builds from")
    if settings.auth.accounts:
        yield Finding(
            "auth.accounts",
            "accounts are kept in the database alone, and database.mode = rebuildable would lose them",
            advice="Use auth.htpasswd, whose file is yours to keep.",
        )
    if settings.database.writer_lease < _SHORTEST_WRITER_LEASE:
        yield Finding("database.writer_lease", "expected 6s or more: storage may take seconds to answer")


def _sqlite(settings: Settings) -> Iterator[Finding]:
    if settings.storage.driver is StorageDriver.S3 and not settings.is_rebuildable:
        yield Finding(
            "database.url",
            "SQLite with storage in S3: the bytes would outlive the machine and what they are would not",
            advice='Set database.url = "postgresql://…" (in the environment ROADSTEAD_DATABASE_URL), or keep the bytes '
            'beside SQLite with storage.driver = "filesystem". A single server can do without a database that lasts: '
            'database.mode = "rebuildable".',
        )
        return
    path = sqlite_path(settings.database_url)
    if path is None:
        yield Finding("database.url", "SQLite in memory can't be shared by processes; name a file: sqlite:///PATH")
        return
    filesystem = filesystem_of(path.parent)
    if filesystem is not None and is_network(filesystem):
        yield Finding(
            "database.url",
            f"SQLite in {path.parent}, which is a network file system ({filesystem}): its locks can't be relied on "
            "there, and the database would break",
            advice='Put the file on a local disk with database.url = "sqlite:////local/path/roadstead.db", '
            'or use PostgreSQL with database.url = "postgresql://…".',
        )


def _limits(settings: Settings) -> Iterator[Finding]:
    registry = settings.registry
    at_least_one = {
        "server.workers": settings.server.workers,
        "database.pool_size": settings.database.pool_size,
        "registry.max_manifest_bytes": registry.max_manifest_bytes,
        "registry.tags_page_max": registry.tags_page_max,
        "registry.catalog_page": registry.catalog_page,
        "registry.catalog_page_max": registry.catalog_page_max,
        "registry.referrers_page_max": registry.referrers_page_max,
        "registry.max_tags_per_push": registry.max_tags_per_push,
    }
    for key, value in at_least_one.items():
        if value < 1:
            yield Finding(key, f"expected 1 or more, got {value}")
    if settings.audit.retention < timedelta(days=1):
        yield Finding("audit.retention", "expected a day at the least: a log that is gone tells nobody anything")
    for number, pattern in enumerate(registry.immutable):
        yield from _pattern(f"registry.immutable[{number}]", pattern)
    for number, quota in enumerate(registry.quotas):
        key = f"registry.quotas[{number}]"
        if ":" in quota.repositories:
            yield Finding(f"{key}.repositories", f"{quota.repositories!r} has a tag; a limit is for whole repositories")
        else:
            yield from _pattern(f"{key}.repositories", quota.repositories)
        if quota.max_bytes < 1:
            yield Finding(f"{key}.max_bytes", "expected a size of 1 byte or more")
    if registry.catalog_page > registry.catalog_page_max:
        yield Finding("registry.catalog_page", f"is larger than registry.catalog_page_max, {registry.catalog_page_max}")
    for key, duration in (
        ("registry.upload_max_age", registry.upload_max_age),
        ("registry.upload_purge_interval", registry.upload_purge_interval),
        ("augment.layer_patience", settings.augment.layer_patience),
        ("gc.interval", settings.gc.interval),
        ("gc.sweep_interval", settings.gc.sweep_interval),
    ):
        if not duration:
            yield Finding(key, "expected more than 0s")


def _pattern(key: str, pattern: str) -> Iterator[Finding]:
    try:
        Pattern.parse(pattern)
    except PatternInvalidError as error:
        yield Finding(key, str(error), advice=error.advice())


def _allowances(settings: Settings) -> Iterator[Finding]:
    limits = settings.limits
    for name in ("client", "user"):
        for what in ("rate", "burst", "uploads"):
            if (number := getattr(limits, f"{name}_{what}")) is not None and number < 1:
                yield Finding(f"limits.{name}_{what}", f"expected 1 or more, got {number}")
        if getattr(limits, f"{name}_burst") is not None and getattr(limits, f"{name}_rate") is None:
            yield Finding(f"limits.{name}_burst", f"goes with limits.{name}_rate, which is not set")
    for name in ("anonymous_pulls", "user_pulls"):
        if (number := getattr(limits, name)) is not None and number < 1:
            yield Finding(f"limits.{name}", f"expected 1 or more, got {number}; who may not pull is for [auth] to say")
    if limits.pull_window < _SHORTEST_WINDOW:
        yield Finding("limits.pull_window", "expected 1s or more")
    if not limits.body_idle:
        yield Finding("limits.body_idle", "expected more than 0s")


def _auth(settings: Settings) -> Iterator[Finding]:
    auth = settings.auth
    if not _REALM.fullmatch(auth.realm):
        yield Finding("auth.realm", "expected 1 to 255 printable characters of ASCII")
    if auth.htpasswd is not None:
        path = auth.htpasswd.path
        if path.is_dir():
            yield Finding(
                "auth.htpasswd", f"{path} is a directory", advice=f"Name the file, such as {path / 'htpasswd'}."
            )
        elif not path.is_file():
            yield Finding("auth.htpasswd", f"{path} does not exist", advice=f"Make it with: htpasswd -cB {path} NAME")
        elif (reason := unreadable(path)) is not None:
            yield Finding("auth.htpasswd", f"{path} cannot be read: {reason}")
    if auth.token is not None:
        yield from _token(auth.token)
    yield from _issue(settings)
    yield from _oidc(settings)
    for number, policy in enumerate(auth.policies):
        yield from _policy(f"auth.policies[{number}]", policy)
    if auth.policies and all(policy.effect is PolicyEffect.DENY for policy in auth.policies):
        yield Finding("auth.policies", "every policy denies, so nobody may do anything; what isn't allowed is denied")


def _token(token: TokenSettings) -> Iterator[Finding]:
    for name in ("service", "issuer", *(() if token.autoredirect else ("realm",))):
        if not getattr(token, name):
            yield Finding(f"auth.token.{name}", "is required")
    if token.rootcertbundle is None and token.jwks is None:
        yield Finding("auth.token.rootcertbundle", "the keys that sign are needed: here, or as auth.token.jwks")
    for name, path in (("rootcertbundle", token.rootcertbundle), ("jwks", token.jwks)):
        if path is not None and (reason := unreadable(path)) is not None:
            yield Finding(f"auth.token.{name}", f"{path} cannot be read: {reason}")
    for algorithm in token.signing_algorithms:
        if algorithm not in _SIGNING:
            told = f"expected some of {', '.join(_SIGNING)}, got {algorithm!r}{nearest(algorithm, _SIGNING)}"
            yield Finding("auth.token.signing_algorithms", told)


def _issue(settings: Settings) -> Iterator[Finding]:
    auth, issue = settings.auth, settings.issue if settings.auth.issue is not None else None
    if auth.master_key is not None and len(auth.master_key.reveal()) < _SHORTEST_MASTER_KEY:
        yield Finding(
            "auth.master_key",
            f"is shorter than {_SHORTEST_MASTER_KEY} characters",
            advice="Make one with: openssl rand -base64 32",
            id="secret.weak",
        )
    if issue is None:
        return
    if auth.token is not None:
        yield Finding("auth.issue", "clients can be sent to one token server only, and auth.token names another")
    if not _SHORTEST_TOKEN <= issue.lifetime <= _LONGEST_TOKEN:
        yield Finding("auth.issue.lifetime", "expected 1m to 1h: clients take a shorter one for a minute")
    if issue.refresh_lifetime < issue.lifetime:
        yield Finding("auth.issue.refresh_lifetime", "is shorter than auth.issue.lifetime")
    if issue.rotate_every < _SHORTEST_ROTATION:
        yield Finding("auth.issue.rotate_every", "expected 1h or more")
    if auth.master_key is None and settings.storage.driver is StorageDriver.S3:
        yield Finding(
            "auth.master_key",
            "is needed for auth.issue where the data isn't on a disk of this machine: what signs tokens is encrypted "
            "under it, for every replica alike",
            advice="Make one with: openssl rand -base64 32",
            id="secret.missing",
        )


def _oidc(settings: Settings) -> Iterator[Finding]:
    oidc = settings.auth.oidc
    if oidc is None:
        return
    if not oidc.issuers:
        yield Finding("auth.oidc.issuers", "names no issuer", advice="Add one as [[auth.oidc.issuers]].")
    if settings.auth.accounts is False:
        yield Finding(
            "auth.accounts", "false shuts out the keys that people make, which auth.oidc is for; leave it out"
        )
    if settings.is_rebuildable:
        yield Finding("auth.oidc", "people and their keys are kept in the database alone, and database.mode = "
                      "rebuildable would lose them")  # fmt: skip
    yield from _reached_safely(settings)
    if not timedelta() < oidc.session_idle <= oidc.session_lifetime:
        yield Finding("auth.oidc.session_idle", "expected more than 0s, and no more than auth.oidc.session_lifetime")
    for number, issuer in enumerate(oidc.issuers):
        yield from _issuer(f"auth.oidc.issuers[{number}]", issuer)
    for name in ("name", "issuer", "user_prefix", "group_prefix"):
        values = [getattr(issuer, name) for issuer in oidc.issuers if name != "group_prefix" or issuer.groups_claim]
        if len(set(values)) < len(values):
            yield Finding(
                "auth.oidc.issuers",
                f"two have the same {name}",
                advice="Else somebody of one could be taken for somebody of the other.",
            )


def _reached_safely(settings: Settings) -> Iterator[Finding]:
    """Browsers come back from the issuer to one address, which is registered there, with what signs them in."""
    public, listen = settings.server.public_url, settings.server.listen
    if public is None and not listen.is_loopback:
        yield Finding("auth.oidc", "needs server.public_url: where browsers come back to from the issuer")
    elif public is not None and not _is_safe(public):
        yield Finding(
            "auth.oidc", f"needs TLS: server.public_url is {public}, and who listens could sign in as anybody"
        )


def _is_safe(url: str) -> bool:
    """Say whether nobody listens on the way: TLS, or this machine alone."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(parts.hostname or ""))


def _issuer(key: str, issuer: IssuerSettings) -> Iterator[Finding]:
    url = urlsplit(issuer.issuer)
    if not url.hostname or url.query or url.fragment or url.username is not None or not _is_safe(issuer.issuer):
        yield Finding(
            f"{key}.issuer", f"expected https://HOST[/PATH] (http:// is for loopback alone), got {issuer.issuer!r}"
        )
    for name in ("client_id", "username_claim", "algorithms"):
        if not getattr(issuer, name):
            yield Finding(f"{key}.{name}", "is required")
    yield from _issuer_words(key, issuer)
    if not issuer.allow_all and not issuer.allowed_groups and not issuer.allowed_domains:
        yield Finding(
            key,
            "everybody whom this issuer lets in could sign in here",
            advice="Name allowed_groups or allowed_domains; if it is meant so, say that with allow_all = true.",
        )
    if issuer.allowed_groups and issuer.groups_claim is None:
        yield Finding(f"{key}.allowed_groups", "needs groups_claim: which claim has the groups")
    if issuer.leeway > _LONGEST_LEEWAY:
        yield Finding(f"{key}.leeway", "expected 5m at the most; have the clocks set instead")
    if not issuer.sign_in_again:
        yield Finding(f"{key}.sign_in_again", "expected more than 0s")
    if issuer.ca is not None and (reason := unreadable(issuer.ca)) is not None:
        yield Finding(f"{key}.ca", f"{issuer.ca} cannot be read: {reason}")


def _issuer_words(key: str, issuer: IssuerSettings) -> Iterator[Finding]:
    if not _ISSUER_NAME.fullmatch(issuer.name):
        yield Finding(f"{key}.name", f"expected small letters, digits and -, got {issuer.name!r}")
    for name in ("user_prefix", "group_prefix"):
        if not _ACCOUNT_PREFIX.fullmatch(getattr(issuer, name)):
            yield Finding(f"{key}.{name}", f"expected letters, digits, . _ @ + -, got {getattr(issuer, name)!r}")
    for algorithm in issuer.algorithms:
        if algorithm not in _ID_TOKEN_SIGNING:
            told = f"expected some of {', '.join(_ID_TOKEN_SIGNING)}, got {algorithm!r}"
            yield Finding(f"{key}.algorithms", f"{told}{nearest(algorithm, _ID_TOKEN_SIGNING)}")
    for name in issuer.trusted_hosts:
        if not _HOST_PORT.fullmatch(name):
            yield Finding(f"{key}.trusted_hosts", f"expected HOST or HOST:PORT, got {name!r}")


def _policy(key: str, policy: PolicySettings) -> Iterator[Finding]:
    for name, values in (("subjects", policy.subjects), ("actions", policy.actions)):
        if not values:
            yield Finding(f"{key}.{name}", "every policy names some; it would apply to nothing")
    if not policy.repositories and not set(policy.actions) <= {PolicyAction.CATALOG, PolicyAction.ADMIN}:
        yield Finding(f"{key}.repositories", 'every policy says which repositories it is for, such as "team/*" or "**"')
    for number, subject in enumerate(policy.subjects):
        if subject not in _SUBJECTS and not _NAMED_SUBJECT.fullmatch(subject):
            kinds = ", ".join((*_SUBJECTS, *(f"{kind}:NAME" for kind in _SUBJECT_KINDS)))
            suggestion = nearest(subject.partition(":")[0], (*_SUBJECTS, *_SUBJECT_KINDS))
            yield Finding(f"{key}.subjects[{number}]", f"expected one of {kinds}, got {subject!r}{suggestion}")
    for number, pattern in enumerate(policy.repositories):
        at = f"{key}.repositories[{number}]"
        if ":" in pattern:
            yield Finding(at, f"{pattern!r} has a tag; access is given to whole repositories")
        else:
            yield from _pattern(at, pattern.replace("{user}", "user"))


def _rules(settings: Settings) -> Iterator[Finding]:
    for at, rule in enumerate(settings.augment.rules):
        key = f"augment.rules[{at}]"
        if not rule.match:
            yield Finding(f"{key}.match", "every rule says which images it is for, such as library/*:latest")
        else:
            yield from _pattern(f"{key}.match", rule.match)
        for number, layer in enumerate(rule.layers):
            yield from _layer(f"{key}.layers[{number}]", layer)
        for number, assignment in enumerate(rule.env):
            if assignment.find("=") < 1:
                yield Finding(f"{key}.env[{number}]", f"expected NAME=VALUE, got {assignment!r}")
        for number, assignment in enumerate(rule.labels):
            if assignment.find("=") < 1:
                yield Finding(f"{key}.labels[{number}]", f"expected NAME=VALUE, got {assignment!r}")


def _layer(key: str, layer: LayerSettings) -> Iterator[Finding]:
    if layer.location is not None:
        yield from _location(key, layer)
    elif layer.path is None:
        yield Finding(key, "a layer needs a path, or a location")
    elif not layer.path.exists():
        yield Finding(key, f"{layer.path} does not exist")
    elif not os.access(layer.path, os.R_OK):
        yield Finding(key, f"{layer.path} cannot be read")
    if layer.platform is not None and not _is_platform(layer.platform):
        yield Finding(key, f"expected a platform such as linux/amd64 or linux/arm64/v8, got {layer.platform!r}")


def _location(key: str, layer: LayerSettings) -> Iterator[Finding]:
    if layer.path is not None:
        yield Finding(key, "a layer has a path or a location, not both")
    for name, text in (("gzip_digest", layer.gzip_digest), ("tar_digest", layer.tar_digest)):
        if text is None:
            continue
        try:
            Digest.parse(text)
        except DigestInvalidError as error:
            yield Finding(f"{key}.{name}", str(error))
    if layer.gzip_size is not None and layer.gzip_size < 1:
        yield Finding(f"{key}.gzip_size", f"expected the layer's size in bytes, got {layer.gzip_size}")
    if (layer.location or "").lower().startswith("http") and layer.gzip_digest is None:
        yield Finding(
            f"{key}.gzip_digest",
            "is needed with an address: what lies there may change, and images would with it",
            advice="roadstead layer pack prints it; of a file, sha256sum does.",
        )


def _signatures(settings: Settings) -> Iterator[Finding]:
    if not _URI.fullmatch(settings.augment.builder):
        yield Finding(
            "augment.builder", f"expected a URI such as https://registry.example.org, got {settings.augment.builder!r}"
        )
    for at, policy in enumerate(settings.signatures.policies):
        key = f"signatures.policies[{at}]"
        if not policy.match:
            yield Finding(f"{key}.match", 'every policy says which images it is for, such as ["team/**"]')
        for number, pattern in enumerate(policy.match):
            if ":" in pattern:
                yield Finding(f"{key}.match[{number}]", f"{pattern!r} has a tag; whole repositories have to be signed")
            else:
                yield from _pattern(f"{key}.match[{number}]", pattern)
        if not policy.keys:
            yield Finding(f"{key}.keys", "every policy says who may have signed: public keys, or certificates")
        for number, entry in enumerate(policy.keys):
            if (entry.path is None) == (entry.pem is None):
                yield Finding(f"{key}.keys[{number}]", "expected a path or the PEM itself, one of the two")
            elif entry.path is not None and (reason := unreadable(entry.path)) is not None:
                yield Finding(f"{key}.keys[{number}]", f"{entry.path} cannot be read: {reason}")


def _is_platform(text: str) -> bool:
    """Say whether a text is a platform with its system, and no word of it stands in another's place."""
    try:
        return _PLATFORM.fullmatch(text) is not None and str(Platform.parse(text)) == text
    except PlatformInvalidError:
        return False


def _gc(settings: Settings) -> Iterator[Finding]:
    if settings.gc.grace < _SHORTEST_GRACE:
        yield Finding(
            "gc.grace",
            "expected 1h or more: a client may go on for long between pushing a layer and the manifest that needs it",
        )
    for number, rule in enumerate(settings.gc.retention):
        yield from _retention(f"gc.retention[{number}]", rule)
    if settings.gc.untagged_after < _SHORTEST_GRACE:
        yield Finding("gc.untagged_after", "expected 1h or more: an index is pushed after the images that it lists")


def _retention(key: str, rule: RetentionSettings) -> Iterator[Finding]:
    yield from _pattern(f"{key}.match", rule.match)
    for number, glob in enumerate(rule.keep_matching):
        try:
            Pattern.parse(f"**:{glob}")
        except PatternInvalidError as error:
            message = f"expected a pattern of tags such as v*, got {glob!r}: {error.reason}"
            yield Finding(f"{key}.keep_matching[{number}]", message)
    if rule.keep_newest is None and rule.keep_younger is None and not rule.keep_matching:
        yield Finding(
            key, "the rule would remove every tag it matches: give keep_newest, keep_younger or keep_matching"
        )
    if rule.keep_newest is not None and rule.keep_newest < 0:
        yield Finding(f"{key}.keep_newest", f"expected 0 or more, got {rule.keep_newest}")


def _upstreams(settings: Settings) -> Iterator[Finding]:
    hosts: set[str] = set()
    for at, upstream in enumerate(settings.upstreams.registries):
        key = f"upstreams.registries[{at}]"
        if upstream.host in hosts:
            yield Finding(f"{key}.host", f"{upstream.host} is there twice")
        hosts.add(upstream.host)
        yield from _upstream(key, upstream)


def _upstream(key: str, upstream: UpstreamSettings) -> Iterator[Finding]:
    if not _is_space(upstream.host):
        yield Finding(
            f"{key}.host",
            f"expected a host as it stands in names, without a port, such as docker.io, got {upstream.host!r}",
            advice="Say where it is asked, with a port if it has one, in url.",
        )
    if upstream.url is not None:
        yield from _upstream_url(f"{key}.url", upstream.url)
    if (upstream.username is None) != (upstream.password is None):
        yield Finding(f"{key}.username", "username and password belong together: set both or neither")
    yield from _sign_in(key, upstream)
    if upstream.whole and upstream.allow_push:
        yield Finding(f"{key}.whole", "what is pushed would never be found again: it doesn't go with allow_push")
    for pattern in upstream.default_for:
        yield from _default_pattern(f"{key}.default_for", pattern)
    for text in upstream.platforms:
        if not _PLATFORM.fullmatch(text):
            yield Finding(f"{key}.platforms", f"expected os/architecture[/variant], got {text!r}")
    if upstream.downloads < 0:
        yield Finding(f"{key}.downloads", f"expected 0 or more, got {upstream.downloads}")
    for name in ("revalidate", "keep", "missing_for"):
        value: timedelta | None = getattr(upstream, name)
        if value is not None and value < timedelta(0):
            yield Finding(f"{key}.{name}", "can't be less than 0s")


def _upstream_url(key: str, text: str) -> Iterator[Finding]:
    url = urlsplit(text)
    if "@" in url.netloc:
        yield Finding(key, "has a password in it", advice="Set username and password beside it.")
    elif url.scheme not in ("http", "https") or not url.hostname or url.path not in ("", "/") or url.query:
        yield Finding(key, f"expected http(s)://HOST[:PORT] without a path, got {text!r}")


def _sign_in(key: str, upstream: UpstreamSettings) -> Iterator[Finding]:
    by_docker = upstream.sign_in is SignIn.DOCKER
    if by_docker and upstream.username is not None:
        yield Finding(f"{key}.sign_in", "docker doesn't go with username and password: leave out one or the other")
    if by_docker != (upstream.docker_config is not None):
        yield Finding(f"{key}.docker_config", 'docker_config and sign_in = "docker" belong together: set both')
    if upstream.sign_in is SignIn.ECR and not _AMAZONS.fullmatch(upstream.host):
        yield Finding(
            f"{key}.sign_in",
            f"AWS has no password for {upstream.host}: expected ACCOUNT.dkr.ecr.REGION.amazonaws.com or public.ecr.aws",
        )


def _is_space(host: str) -> bool:
    """Say whether names may begin with it, and nobody takes them for those of a repository pushed here."""
    try:
        RepositoryName.parse(f"{host}/name")
    except NameInvalidError:
        return False
    return "." in host and "/" not in host


def _default_pattern(key: str, text: str) -> Iterator[Finding]:
    try:
        Pattern.parse(text)
    except PatternInvalidError as error:
        yield Finding(key, str(error), advice=error.advice())
    else:
        if ":" in text:
            yield Finding(key, f"{text!r} names a tag; expected repositories alone, such as library/*")


def _events(settings: Settings) -> Iterator[Finding]:
    names: set[str] = set()
    for at, endpoint in enumerate(settings.events.endpoints):
        key = f"events.endpoints[{at}]"
        if not endpoint.name:
            yield Finding(f"{key}.name", "an endpoint needs a name: events that wait for it are kept under it")
        elif endpoint.name in names:
            yield Finding(f"{key}.name", f"{endpoint.name} is the name of another endpoint already")
        names.add(endpoint.name)
        yield from _endpoint(key, endpoint)


def _endpoint(key: str, endpoint: EndpointSettings) -> Iterator[Finding]:
    try:
        url = urlsplit(endpoint.url.reveal())
        is_address = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:  # not shown: it may hold a password
        yield Finding(
            f"{key}.url", "expected http(s)://HOST[:PORT]/PATH" if endpoint.url else "an endpoint needs a url"
        )
    for name, duration in (("timeout", endpoint.timeout), ("backoff", endpoint.backoff)):
        if not duration:
            yield Finding(f"{key}.{name}", "expected more than 0s")
    for name, number in (
        ("threshold", endpoint.threshold),
        ("parallel", endpoint.parallel),
        ("max_attempts", endpoint.max_attempts),
    ):
        if number is not None and number < 1:
            yield Finding(f"{key}.{name}", f"expected 1 or more, got {number}")
    if not 1 <= endpoint.pulls_at_once <= _MOST_PULLS:
        yield Finding(f"{key}.pulls_at_once", f"expected 1 to {_MOST_PULLS}, got {endpoint.pulls_at_once}")
    if endpoint.signing_key is not None and not endpoint.signing_key:
        yield Finding(f"{key}.signing_key", "is empty: everybody could sign with it")
