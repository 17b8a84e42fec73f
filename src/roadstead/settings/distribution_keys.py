"""Every key of distribution's ``config.yml``, and what becomes of it here: the one table.

The reading (``distribution.py``), its variables and docs/how-to/use-a-distribution-config.md follow from it. A key is
*honoured* (it ends in a setting of ours), *warned* about (nothing here needs it, and nothing is lost that protects
anybody), or *refused* (serving as if it weren't there would be wrong).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of a key."""

    HONOURED = "honoured"
    WARNED = "warned"
    REFUSED = "refused"


class Kind(StrEnum):
    """What a key takes."""

    TEXT = "text"
    TRUTH = "true or false"
    NUMBER = "whole number"
    DURATION = "duration"
    HEADERS = "table of lists"
    FIELDS = "table"
    TEXTS = "list"
    ANYTHING = "anything"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One line of the table.

    ``about`` is a phrase that says what is done or why not; ``advice`` what to do about a refusal. ``quiet`` are the
    values, as lower-case texts, that ask for nothing and so need no word. ``members`` are keys below it that share
    its fate.
    """

    path: str
    fate: Fate
    kind: Kind = Kind.TEXT
    settings: Sequence[str] = ()
    about: str = ""
    advice: str | None = None
    quiet: frozenset[str] = frozenset()
    members: Sequence[str] = ()


def _honoured(path: str, kind: Kind, *settings: str, about: str = "") -> Key:
    return Key(path=path, fate=Fate.HONOURED, kind=kind, settings=settings, about=about)


def _warned(path: str, about: str, *, kind: Kind = Kind.ANYTHING, quiet: str = "", members: str = "") -> Key:
    return Key(
        path=path,
        fate=Fate.WARNED,
        kind=kind,
        about=about,
        quiet=frozenset(quiet.split()),
        members=tuple(members.split()),
    )


def _refused(
    path: str, about: str, advice: str, *, kind: Kind = Kind.ANYTHING, quiet: str = "", members: str = ""
) -> Key:
    return Key(
        path=path,
        fate=Fate.REFUSED,
        kind=kind,
        about=about,
        advice=advice,
        quiet=frozenset(quiet.split()),
        members=tuple(members.split()),
    )


_NO_DRIVER = "images are kept on a file system or in S3"
_DRIVER_ADVICE = "Use storage.filesystem or storage.s3; most object stores speak S3 (storage.s3.regionendpoint)."
_PARTS = "parts are sized by what is sent"
_COPIES = "finished uploads aren't copied"
_NO_MIDDLEWARE = "there is no middleware here"
_REDIS_ADVICE = "Remove the section: descriptors are found in the database."

KEYS: tuple[Key, ...] = (
    # log
    _honoured("log.level", Kind.TEXT, "log.level"),
    _honoured(
        "log.formatter", Kind.TEXT, "log.format", about="`text` or `json`; `logstash` is written as `json`, with a word"
    ),
    _honoured("log.fields", Kind.FIELDS, "log.fields"),
    _honoured(
        "log.accesslog.disabled",
        Kind.TRUTH,
        "log.access",
        about="lines are events on standard error, not Apache's format on standard output",
    ),
    _warned("log.hooks", "log lines aren't mailed; let what collects the log do that"),
    _warned("log.reportcaller", "lines don't tell the place in the code", kind=Kind.TRUTH, quiet="false"),
    _honoured("loglevel", Kind.TEXT, "log.level", about="the old name of log.level, which goes before it"),
    # storage
    _honoured(
        "storage.filesystem.rootdirectory",
        Kind.TEXT,
        "storage.path",
        about="`/var/lib/registry` by default; the database lies beside distribution's tree, in `roadstead.db`",
    ),
    _warned("storage.filesystem.maxthreads", "threads are few and of a fixed number"),
    _refused(
        "storage.inmemory",
        "images aren't kept in memory: several processes serve them",
        "Use storage.filesystem with a rootdirectory on a tmpfs.",
    ),
    _honoured("storage.s3.region", Kind.TEXT, "storage.region"),
    _honoured("storage.s3.bucket", Kind.TEXT, "storage.bucket"),
    _honoured("storage.s3.accesskey", Kind.TEXT, "storage.access_key"),
    _honoured("storage.s3.secretkey", Kind.TEXT, "storage.secret_key"),
    _refused(
        "storage.s3.sessiontoken",
        "temporary credentials aren't read from the file, as they would run out",
        "Put all three into the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.",
    ),
    _honoured(
        "storage.s3.regionendpoint",
        Kind.TEXT,
        "storage.endpoint",
        about="without a scheme, storage.s3.secure decides which",
    ),
    _honoured("storage.s3.forcepathstyle", Kind.TRUTH, "storage.path_style"),
    _honoured("storage.s3.redirectendpoint", Kind.TEXT, "storage.redirect_endpoint"),
    _warned(
        "storage.s3.accelerate",
        "the bucket's usual address is used; the AWS configuration file can say another",
        kind=Kind.TRUTH,
        quiet="false",
    ),
    _warned(
        "storage.s3.usedualstack",
        "set AWS_USE_DUALSTACK_ENDPOINT=true in the environment instead",
        kind=Kind.TRUTH,
        quiet="false",
    ),
    _refused(
        "storage.s3.usefipsendpoint",
        "the address isn't chosen here",
        "Remove the key and set AWS_USE_FIPS_ENDPOINT=true in the environment.",
        kind=Kind.TRUTH,
        quiet="false",
    ),
    _honoured("storage.s3.encrypt", Kind.TRUTH, "storage.encrypt"),
    _honoured("storage.s3.keyid", Kind.TEXT, "storage.kms_key", about="counts with storage.s3.encrypt only"),
    _honoured(
        "storage.s3.secure", Kind.TRUTH, "storage.endpoint", about="`http` or `https` where an endpoint says none"
    ),
    _refused(
        "storage.s3.skipverify",
        "certificates are always checked",
        "Remove the key, and name the authority's certificate in AWS_CA_BUNDLE.",
        kind=Kind.TRUTH,
        quiet="false",
    ),
    _warned("storage.s3.v4auth", "requests are always signed with version 4", kind=Kind.TRUTH, quiet="true"),
    _warned("storage.s3.chunksize", _PARTS),
    _warned("storage.s3.multipartcopychunksize", _COPIES),
    _warned("storage.s3.multipartcopymaxconcurrency", _COPIES),
    _warned("storage.s3.multipartcopythresholdsize", _COPIES),
    _honoured("storage.s3.rootdirectory", Kind.TEXT, "storage.prefix"),
    _honoured("storage.s3.storageclass", Kind.TEXT, "storage.storage_class", about="`NONE` leaves it to the service"),
    _refused(
        "storage.s3.objectacl",
        "objects are written without an access list of their own",
        "Remove the key, and let the bucket's policy say who may read.",
        kind=Kind.TEXT,
        quiet="private",
    ),
    _warned("storage.s3.useragent", "requests carry the library's own"),
    _warned("storage.s3.loglevel", "log.level is for these too", quiet="off false"),
    _refused("storage.azure", _NO_DRIVER, _DRIVER_ADVICE),
    _refused("storage.gcs", _NO_DRIVER, _DRIVER_ADVICE),
    _refused("storage.swift", _NO_DRIVER, _DRIVER_ADVICE),
    _refused("storage.oss", _NO_DRIVER, _DRIVER_ADVICE),
    _warned("storage.cache.blobdescriptor", "descriptors are found in the database, which needs no cache"),
    _warned("storage.cache.layerinfo", "the old name of blobdescriptor: descriptors are found in the database"),
    _warned("storage.cache.blobdescriptorsize", "descriptors are found in the database, which needs no cache"),
    _honoured("storage.delete.enabled", Kind.TRUTH, "storage.delete", about="`false` by default in such a file"),
    _honoured(
        "storage.redirect.disable",
        Kind.TRUTH,
        "storage.redirect",
        about="counts with storage.s3 only, where clients are redirected unless it is `true`",
    ),
    _warned("storage.tag.concurrencylimit", "a tag is found in one step"),
    _honoured("storage.maintenance.uploadpurging.enabled", Kind.TRUTH, "registry.purge_uploads"),
    _honoured("storage.maintenance.uploadpurging.age", Kind.DURATION, "registry.upload_max_age"),
    _honoured("storage.maintenance.uploadpurging.interval", Kind.DURATION, "registry.upload_purge_interval"),
    _honoured(
        "storage.maintenance.uploadpurging.dryrun",
        Kind.TRUTH,
        "registry.purge_uploads",
        about="`true` removes nothing, and nothing is listed either",
    ),
    _honoured("storage.maintenance.readonly.enabled", Kind.TRUTH, "registry.read_only"),
    # auth
    Key(path="auth.none", fate=Fate.HONOURED, kind=Kind.ANYTHING, about="which is so anyway"),
    _refused(
        "auth.silly",
        "it takes any credentials for good, so it would keep nobody out",
        "Use auth.htpasswd, or `auth: none` where everybody may do everything.",
        members="realm service",
    ),
    _honoured("auth.htpasswd.realm", Kind.TEXT, "auth.realm"),
    _honoured(
        "auth.htpasswd.path",
        Kind.TEXT,
        "auth.htpasswd",
        about="also with hashes of `openssl passwd -apr1`; the file has to be there, none is made with a password in "
        "the log",
    ),
    _honoured("auth.token.realm", Kind.TEXT, "auth.token"),
    _honoured("auth.token.service", Kind.TEXT, "auth.token"),
    _honoured("auth.token.issuer", Kind.TEXT, "auth.token"),
    _honoured("auth.token.rootcertbundle", Kind.TEXT, "auth.token", about="or jwks"),
    _honoured("auth.token.jwks", Kind.TEXT, "auth.token"),
    _honoured("auth.token.signingalgorithms", Kind.TEXTS, "auth.token"),
    _honoured("auth.token.autoredirect", Kind.TRUTH, "auth.token"),
    _honoured("auth.token.autoredirectpath", Kind.TEXT, "auth.token"),
    # middleware
    _refused("middleware.registry", _NO_MIDDLEWARE, "Remove the section, or disable its entries."),
    _refused("middleware.repository", _NO_MIDDLEWARE, "Remove the section, or disable its entries."),
    _refused(
        "middleware.storage",
        f"{_NO_MIDDLEWARE}; clients get bytes from this server, not from a redirect, CDN or other address",
        "Remove the section, or disable its entries.",
    ),
    # http
    _honoured(
        "http.addr",
        Kind.TEXT,
        "server.listen",
        "server.open_to_network",
        about="says what `--open-to-network` does, with a loud word; `:5000` is every address, IPv6 too where there is",
    ),
    _refused(
        "http.net",
        "there is no listening at a Unix socket",
        "Set http.net to tcp, and http.addr to HOST:PORT.",
        kind=Kind.TEXT,
        quiet="tcp",
    ),
    _honoured("http.prefix", Kind.TEXT, "server.prefix"),
    _honoured(
        "http.host",
        Kind.TEXT,
        "server.public_url",
        "server.relative_urls",
        about="locations in answers begin with it; without it they are paths",
    ),
    _warned("http.secret", "uploads are kept in the database, under a secret of its own"),
    _honoured(
        "http.relativeurls",
        Kind.TRUTH,
        "server.relative_urls",
        about="`true` is the default here; `false` needs http.host, which goes before it",
    ),
    _honoured(
        "http.draintimeout",
        Kind.DURATION,
        "server.shutdown_timeout",
        about="half a minute by default, where distribution stops at once",
    ),
    _honoured("http.tls.certificate", Kind.TEXT, "tls.certificate", about="read again when it changes"),
    _honoured("http.tls.key", Kind.TEXT, "tls.key"),
    _honoured("http.tls.clientcas", Kind.TEXTS, "tls.client_ca"),
    _honoured(
        "http.tls.clientauth",
        Kind.TEXT,
        "tls.client_certificates",
        about="`require-and-verify-client-cert` or `verify-client-cert-if-given`; what isn't checked isn't asked for, "
        "so that the other two are refused",
    ),
    _honoured(
        "http.tls.minimumtls", Kind.TEXT, "tls.minimum_version", about="`tls1.0` and `tls1.1` are taken as `tls1.2`"
    ),
    _warned("http.tls.ciphersuites", "the suites of TLS 1.3 and those of 1.2 with forward secrecy are offered"),
    _refused(
        "http.tls.letsencrypt",
        "certificates aren't fetched from Let's Encrypt here",
        "Let certbot, lego or a proxy in front (Traefik, Caddy) fetch them, and name the files in http.tls.certificate "
        "and http.tls.key: they are read again when they change.",
        members="cachefile email hosts directoryurl",
    ),
    _honoured("http.headers", Kind.HEADERS, "server.headers"),
    _honoured(
        "http.debug.addr",
        Kind.TEXT,
        "metrics.listen",
        about="answers with numbers, `/debug/health`, `/healthz`, `/readyz`; there is no pprof and no `/debug/vars`",
    ),
    _warned(
        "http.debug.prometheus.enabled",
        "numbers are always given at http.debug.addr",
        kind=Kind.TRUTH,
        quiet="true false",
    ),
    _honoured("http.debug.prometheus.path", Kind.TEXT, "metrics.path"),
    _warned("http.http2.disabled", "only HTTP/1.1 is spoken", kind=Kind.TRUTH, quiet="true"),
    _warned("http.h2c.enabled", "only HTTP/1.1 is spoken", kind=Kind.TRUTH, quiet="false"),
    # notifications
    _honoured("notifications.events.includereferences", Kind.TRUTH, "events.include_references"),
    Key(
        path="notifications.endpoints",
        fate=Fate.HONOURED,
        kind=Kind.ANYTHING,
        settings=("events.endpoints",),
        about="events survive a restart; sent one at a time, and tried for ever, as there",
        members=(
            "name",
            "url",
            "disabled",
            "headers",
            "timeout",
            "threshold",
            "backoff",
            "ignoredmediatypes",
            "ignore",
        ),
    ),
    _refused("redis", "nothing here uses Redis", _REDIS_ADVICE),
    # health
    _warned(
        "health.storagedriver",
        "the database is asked whenever `/readyz` and `/` are",
        members="enabled interval threshold",
    ),
    Key(
        path="health.file",
        fate=Fate.HONOURED,
        kind=Kind.ANYTHING,
        settings=("server.down_files",),
        about="looked at when `/readyz` and `/` are asked, which answer 503; other paths go on",
        members=("file", "interval", "threshold"),
    ),
    _warned(
        "health.http",
        "other services aren't asked; let what watches them do that",
        members="uri headers statuscode timeout interval threshold",
    ),
    _warned(
        "health.tcp",
        "other services aren't asked; let what watches them do that",
        members="addr timeout interval threshold",
    ),
    # proxy
    _honoured(
        "proxy.remoteurl",
        Kind.TEXT,
        "upstreams.registries",
        about="asked for every name (`default_for`, `whole`), at every pull (`revalidate`); nothing can be pushed",
    ),
    _honoured("proxy.username", Kind.TEXT, about="with `proxy.remoteurl`"),
    _honoured("proxy.password", Kind.TEXT, about="with `proxy.remoteurl`"),
    _honoured(
        "proxy.ttl",
        Kind.DURATION,
        about="with `proxy.remoteurl`; counted from the last pull, 168h where nothing is said",
    ),
    _refused(
        "proxy.exec",
        "credentials aren't asked of a program",
        "Set proxy.username and proxy.password.",
        members="command lifetime",
    ),
    _warned("proxy.cachewritetimeout", "a download that was begun is finished, whoever waits for it"),
    # validation
    _honoured(
        "validation.disabled",
        Kind.TRUTH,
        "registry.sparse_indexes",
        "registry.sparse_images",
        about="`true` lets manifests name what isn't here; their form is checked all the same",
    ),
    _warned("validation.enabled", "validation.disabled says it", kind=Kind.TRUTH, quiet="true"),
    _warned("validation.manifests.urls.allow", "addresses that layers name are kept and never followed"),
    _warned("validation.manifests.urls.deny", "addresses that layers name are kept and never followed"),
    _honoured(
        "validation.manifests.indexes.platforms",
        Kind.TEXT,
        "registry.sparse_indexes",
        about="`none` and `list` let an index name images that aren't here",
    ),
    _warned(
        "validation.manifests.indexes.platformlist",
        "with `list`, images of every platform may be missing, of these too",
    ),
    # pages
    _honoured("catalog.maxentries", Kind.NUMBER, "registry.catalog_page_max", "registry.catalog_page"),
    _honoured("tags.maxtags", Kind.NUMBER, "registry.tags_page_max"),
    # the rest
    _refused(
        "policy.repository.classes",
        "which classes of repositories a token may name isn't looked at",
        "Remove the section.",
    ),
    _warned("compatibility", "schema 1 manifests are refused", members="schema1"),
    _warned("reporting", "errors are in the log only", members="bugsnag newrelic"),
)

BY_PATH: Mapping[str, Key] = {key.path: key for key in KEYS}

VERSION = "0.1"
OUR_SECTION = "roadstead"
"""A section of such a file that distribution doesn't read: settings of ours, as in a TOML file."""

NOT_DRIVERS = frozenset({"cache", "delete", "maintenance", "redirect", "tag"})
"""What stands in ``storage`` beside the one driver."""

FREE_NAMES = frozenset({"storage", "auth", "middleware", "reporting"})
"""Sections that are maps in distribution: there a variable makes any key, in others an unknown one is left out."""

FIELD_NAMES: Mapping[str, str] = {
    "NOTIFICATIONS_EVENTCONFIG": "events",
    "HEALTH_FILECHECKERS": "file",
    "HEALTH_HTTPCHECKERS": "http",
    "HEALTH_TCPCHECKERS": "tcp",
}
"""Names that distribution's variables use for a key, where they aren't the key's own."""

LISTS = frozenset(
    {
        "log.hooks",
        "notifications.endpoints",
        "health.file",
        "health.http",
        "health.tcp",
        "middleware.registry",
        "middleware.repository",
        "middleware.storage",
        "http.tls.clientcas",
        "http.tls.ciphersuites",
        "http.tls.letsencrypt.hosts",
        "validation.manifests.urls.allow",
        "validation.manifests.urls.deny",
        "validation.manifests.indexes.platformlist",
        "policy.repository.classes",
        "auth.token.signingalgorithms",
        "redis.addrs",
    }
)
"""Keys that take lists, which variables fill by position."""
