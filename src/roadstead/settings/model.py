"""The settings: one tree of frozen dataclasses, each field with its meaning, unit and the reason for its default.

``docs/reference/settings.md`` is generated from this file. Reading them from files, environment and command line
is ``load.py``'s work; what can only be judged together (S3 with SQLite, say) is ``check.py``'s.
"""
# ruff: noqa: FBT003, RUF009 - setting() is dataclasses.field() with a description; its defaults read by name.

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from roadstead.secret import Secret
from roadstead.settings.address import ListenAddress
from roadstead.settings.quantity import ByteSize
from roadstead.settings.tables import Headers, LogFields, SentHeaders

T = TypeVar("T")

ABOUT = "about"
"""The key of a field's description in its metadata."""


def setting(default: T, about: str, *, shown: bool = True) -> T:
    """Declare a field with its default and its description; ``shown=False`` keeps it out of ``repr``."""
    return field(default=default, repr=shown, metadata={ABOUT: about})


class StorageDriver(StrEnum):
    """Where the bytes lie."""

    FILESYSTEM = "filesystem"
    S3 = "s3"


class OffloadMode(StrEnum):
    """Who sends a blob's bytes."""

    OFF = "off"
    X_ACCEL = "x-accel"


class LinksMode(StrEnum):
    """When distribution's link files are written beside the facts."""

    OFF = "off"
    ASYNC = "async"
    SYNC = "sync"


class DatabaseMode(StrEnum):
    """What the database is worth."""

    KEPT = "kept"
    REBUILDABLE = "rebuildable"


class UntaggedManifests(StrEnum):
    """What becomes of manifests that no tag, index or subject keeps."""

    KEEP = "keep"
    DELETE = "delete"


class PolicyEffect(StrEnum):
    """What a policy comes to where it applies."""

    ALLOW = "allow"
    DENY = "deny"


class PolicyAction(StrEnum):
    """What can be allowed or denied."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"
    AUGMENT = "augment"
    WATCH = "watch"
    ADMIN = "admin"


class LogFormat(StrEnum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important events that are still written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """``[server]``: the port and the processes behind it."""

    listen: ListenAddress = setting(
        ListenAddress("127.0.0.1", 5000),
        "Where to listen, `HOST:PORT`. Loopback until told otherwise, since whoever reaches the port may do everything "
        "as long as nobody has to sign in; 5000 is the port that registries are known by. Port 0 takes a free one, "
        "which is printed at the start.",
    )
    workers: int = setting(
        2, "Worker processes that answer requests: about one for each core. Beside them runs one background process."
    )
    public_url: str | None = setting(
        None,
        "The address that clients use, `http://…` or `https://…` without a path, where it differs from `listen` "
        "(behind a proxy). It is shown when the server starts; locations in answers need it only where "
        "`relative_urls` is false.",
    )
    hosts: tuple[str, ...] = setting(
        (),
        "Names by which clients may call this server, `registry.example.com` or with a port; whoever uses another one "
        "is answered 421. That of `public_url` belongs to them. By default any name is good: give them where tokens "
        "are issued without a `public_url`, since clients are sent to the name that they used.",
    )
    relative_urls: bool = setting(
        True,
        "Whether locations and links in answers are paths, which are right behind every proxy. `false` writes "
        "`public_url` before them, for clients that can't follow a path.",
    )
    prefix: str = setting(
        "/",
        "What stands before `/v2/` in every path, with a slash at both ends (`/registry/`): for a proxy that hands on "
        "a part of its paths as they are. Health and metrics answer without it too.",
    )
    headers: Headers = setting(
        Headers(),
        'Headers that every answer carries, `{ Name = ["value"] }`. What an answer says of itself (its length, type, '
        "digest, location) can't be set here.",
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Addresses and networks (`10.0.0.0/8`) of proxies whose word counts: from these alone `Forwarded` and "
        "`X-Forwarded-For`, `-Proto`, `-Host` tell who asks, for the log, the limit on guessed passwords and the "
        "address of the token server.",
    )
    down_files: tuple[Path, ...] = setting(
        (),
        "Files that take this server out of rotation: while one of them exists, `/readyz` and `/` answer 503, so that "
        "load balancers send requests elsewhere. What comes all the same is served.",
    )
    open_to_network: bool = setting(
        False,
        "The word that is needed to listen beyond loopback while nobody has to sign in (`[auth]`): whoever reaches "
        "the port can read, write and delete every image. Where `public_url` or `trusted_proxies` tell that others "
        "come by a proxy, a warning is given without it.",
    )
    offload: OffloadMode = setting(
        OffloadMode.OFF,
        "`x-accel` lets nginx in front send blobs from the data directory by itself, with the filesystem driver: "
        "answers to requests that carry `offload_secret` name the file instead of holding it. Others get the bytes "
        "from here (docs/how-to/run-behind-nginx.md).",
    )
    offload_location: str = setting(
        "/roadstead-blobs/",
        "`offload`: nginx's internal location for the folder `docker/registry/v2/blobs` of the data directory.",
    )
    offload_secret: Secret | None = setting(
        None,
        "`offload`: what nginx says in the header `X-Roadstead-Offload`, 16 characters or more: by this it is told "
        "from clients and from other proxies, which would get an empty answer or keep one for others.",
    )
    shutdown_timeout: timedelta = setting(
        timedelta(seconds=30),
        "How long requests in flight may go on after SIGTERM, as a duration. Then they are cut. Service managers "
        "wait longer than this by default (systemd 90 s, Kubernetes 30 s).",
    )


class TlsVersion(StrEnum):
    """The oldest version of TLS that clients may speak."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class ClientCertificate(StrEnum):
    """Whether clients have to show a certificate."""

    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """``[tls]``: TLS at the registry's port."""

    certificate: Path | None = setting(
        None,
        "The server's certificate in PEM, those that issued it behind it. It, the key and `client_ca` are read again "
        "when the files change or on SIGHUP, and no request is lost by that.",
    )
    key: Path | None = setting(
        None,
        "The key of `certificate` in PEM, without a password: RSA of 2048 bits or more, ECDSA with P-256 or P-384, or "
        "Ed25519.",
    )
    self_signed: bool = setting(
        False,
        "Whether to make a certificate that vouches for itself (`--tls self-signed`). It is kept below the data "
        "directory, in `tls`; with storage in S3 it is in memory alone, and another one at every start.",
    )
    names: tuple[str, ...] = setting(
        (),
        "Hosts and addresses that a certificate of `self_signed` is for, beside those of `server.listen`, "
        "`server.public_url` and this machine.",
    )
    client_ca: tuple[Path, ...] = setting(
        (),
        "Certificates in PEM of those who issue clients' certificates: who has none of them isn't let in. Their names "
        "aren't looked at; who may do what is another question.",
    )
    client_certificates: ClientCertificate = setting(
        ClientCertificate.REQUIRED,
        "What `client_ca` asks for: a certificate (`required`), or none or a good one (`optional`).",
    )
    minimum_version: TlsVersion = setting(TlsVersion.TLS_1_2, "The oldest version of TLS that clients may speak.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """``[storage]``: where blobs lie."""

    driver: StorageDriver = setting(StorageDriver.FILESYSTEM, "Where blobs lie: `filesystem` or `s3`.")
    path: Path = setting(
        Path("roadstead-data"),
        "The data directory: the tree of blobs with the filesystem driver, and the database if it is SQLite. The "
        "default lies in the working directory, so that trying it out leaves nothing elsewhere.",
    )
    bucket: str | None = setting(None, "`s3`: the bucket.")
    region: str | None = setting(None, "`s3`: the region; by default from the AWS environment.")
    endpoint: str | None = setting(None, "`s3`: the URL of a service other than Amazon's.")
    prefix: str = setting("", "`s3`: what stands before every key in the bucket.")
    access_key: Secret | None = setting(
        None, "`s3`: the access key; without it the usual AWS chain is asked (environment, files, task role)."
    )
    secret_key: Secret | None = setting(None, "`s3`: the secret key that belongs to `access_key`.")
    path_style: bool | None = setting(
        None,
        "`s3`: put the bucket in the path of the URL instead of the host. By default where there is an `endpoint`, "
        "since most services other than Amazon's need it.",
    )
    encrypt: bool = setting(
        False,
        "`s3`: ask for each object to be encrypted where it lies (SSE-S3, or SSE-KMS with `kms_key`). Amazon does the "
        "former by itself.",
    )
    kms_key: str | None = setting(None, "`s3`: the id of the key in KMS that encrypts; needs `encrypt`.")
    storage_class: str | None = setting(
        None, "`s3`: the storage class of objects, such as `STANDARD_IA`; by default that of the bucket's service."
    )
    redirect: bool = setting(
        False,
        "`s3`: send clients who pull a blob to the bucket, by a signed URL that holds for 20 minutes: its bytes then "
        "don't pass through here. Clients must reach the bucket; whoever has such a URL can read that blob meanwhile.",
    )
    redirect_endpoint: str | None = setting(
        None, "`s3`: the URL by which clients reach the bucket for `redirect`, where it isn't `endpoint`."
    )
    delete: bool = setting(
        True,
        "Whether clients may delete manifests, tags and blobs; otherwise they are answered 405.",
    )
    links: LinksMode | None = setting(
        None,
        "Whether Docker's registry can take the tree back, and the database be built anew from it: its link files are "
        "written behind the answer (`async`, within a second or so), before it (`sync`), or not at all (`off`). By "
        "default `async` on a file system and on anything that was imported, `off` in a bucket.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """``[database]``: where the facts lie (repositories, tags, uploads)."""

    url: str | None = setting(
        None,
        "`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`. By default SQLite, `roadstead.db` in the data "
        "directory: no other server is needed until there are replicas.",
        shown=False,
    )
    mode: DatabaseMode = setting(
        DatabaseMode.KEPT,
        "`kept`, or `rebuildable`: SQLite with storage in a bucket, where what the database knows is in the bucket too "
        "(`storage.links` is `sync`) and the database is built from it when the server starts. One server at a time.",
    )
    writer_lease: timedelta = setting(
        timedelta(seconds=60),
        "`rebuildable`: how long after its last sign of life another server may take over the bucket from one that "
        "was killed. One that was stopped gives it back at once.",
    )
    pool_size: int = setting(5, "PostgreSQL: connections that each process keeps at the most.")


class AcceptRule(StrEnum):
    """What becomes of a manifest whose type the client's Accept doesn't name."""

    LENIENT = "lenient"
    DISTRIBUTION = "distribution"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """``[[registry.quotas]]``: how many bytes repositories may hold together."""

    repositories: str = setting(
        "", "Which repositories, as a pattern (`team/**`); a blob counts in each that holds it."
    )
    max_bytes: ByteSize = setting(
        ByteSize(0), "How much all of them may hold together, as a size: blobs, not manifests (4 MiB each at the most)."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """``[registry]``: the limits of the registry's API."""

    accept: AcceptRule = setting(
        AcceptRule.LENIENT,
        "What a client gets whose `Accept` doesn't name a manifest's type: the manifest all the same (`lenient`; many "
        "scripts send no `Accept` or half of it), or 404, and for a Docker manifest list by tag its linux/amd64 image "
        "(`distribution`, as that registry answers).",
    )

    max_manifest_bytes: ByteSize = setting(
        ByteSize(4 << 20), "The largest manifest that is taken, as a size; 4 MiB is what the specification asks for."
    )
    sparse_indexes: bool = setting(
        False,
        "Whether an index may name manifests that its repository doesn't hold (yet).",
    )
    sparse_images: bool = setting(
        False,
        "Whether an image may name layers that its repository doesn't hold (yet), as one that is fetched lazily does. "
        "Its config must be there all the same.",
    )
    tags_page_max: int = setting(1000, "Tags in one page of `tags/list` at the most; a larger `n` gets this many.")
    catalog_page: int = setting(100, "Repositories in one page of `_catalog` if the client doesn't say `n`.")
    catalog_page_max: int = setting(1000, "Repositories in one page of `_catalog` at the most; a larger `n` is 400.")
    referrers_page_max: int = setting(1000, "Referrers in one page at the most.")
    max_tags_per_push: int = setting(46, "Values of `tag=` that one push of a manifest by digest may carry.")
    immutable: tuple[str, ...] = setting(
        (),
        "Tags that stay where they are once they were pushed, as patterns of `repository:tag` (`team/*:v*`). Moving or "
        "removing one is answered 403, and so is deleting the manifest it is at, or a part or a blob of that.",
    )
    quotas: tuple[QuotaSettings, ...] = setting(
        (),
        "Limits on what repositories hold; see `[[registry.quotas]]`. An upload that would go beyond is answered 403. "
        "What they hold is summed up at most twice a minute in each worker, so uploads at once may go a little beyond.",
    )
    upload_max_age: timedelta = setting(
        timedelta(hours=168), "Uploads that were started longer ago than this and not finished are removed: a week."
    )
    purge_uploads: bool = setting(
        True, "Whether unfinished uploads are removed at all; `false` keeps them for ever, and what they take."
    )
    read_only: bool = setting(
        False,
        "Whether pushes, mounts and deletes are answered 405. Abandoned uploads stay too, and the server collects "
        "nothing, so that a copy of the data can be taken meanwhile.",
    )
    upload_purge_interval: timedelta = setting(timedelta(hours=1), "How often abandoned uploads are looked for.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HtpasswdSettings:
    """``auth.htpasswd``: a path, or a table of ``path``."""

    path: Path = setting(Path(), "The file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """``auth.token``: another server's bearer tokens are believed (distribution's ``auth.token``)."""

    realm: str = setting("", "The address where clients get their tokens.")
    service: str = setting("", "What a token has to be for: the `aud` that the issuer writes for this registry.")
    issuer: str = setting("", "Who has to have issued it: the `iss` of its tokens.")
    rootcertbundle: Path | None = setting(None, "Certificates in PEM whose keys sign tokens.")
    jwks: Path | None = setting(None, "A JWK set whose keys sign tokens, beside or instead of the certificates.")
    signing_algorithms: tuple[str, ...] = setting((), "The algorithms that are taken; without any, all that there are.")
    autoredirect: bool = setting(
        False, "Whether clients get tokens at the host that they asked, at `autoredirect_path`, instead of `realm`."
    )
    autoredirect_path: str = setting("/auth/token", "The path that goes with `autoredirect`.")


class SigningAlgorithm(StrEnum):
    """How tokens are signed."""

    ES256 = "ES256"
    RS256 = "RS256"
    EDDSA = "EdDSA"


class KeyIds(StrEnum):
    """How tokens name the key that signed them."""

    THUMBPRINT = "thumbprint"
    LIBTRUST = "libtrust"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueSettings:
    """``auth.issue``: bearer tokens of our own, given out at ``/auth/token`` to whoever signs in."""

    enabled: bool | None = setting(
        None,
        "Whether there are any. By default where this table is written, where users or keys are in the database, and "
        "where policies allow something to those who haven't signed in; not beside `auth.token`. `false` has clients "
        "asked for a password (Basic), as with an htpasswd file alone; where some may do something without signing in "
        "nobody is asked then.",
    )
    service: str | None = setting(
        None, "What the tokens are for (`aud`): by default the host of `server.public_url`, else `roadstead`."
    )
    issuer: str | None = setting(None, "Who issues them (`iss`): by default the same.")
    lifetime: timedelta = setting(
        timedelta(minutes=5), "How long a token is good: a minute at the least, as clients expect, an hour at the most."
    )
    refresh_lifetime: timedelta = setting(
        timedelta(days=90), "How long clients that ask for it get new tokens without the password: 90 days."
    )
    algorithm: SigningAlgorithm = setting(SigningAlgorithm.ES256, "How tokens are signed.")
    key_ids: KeyIds = setting(
        KeyIds.THUMBPRINT,
        "How they name their key: by RFC 7638's `thumbprint`, or by the `libtrust` id, as Docker's registry of version "
        "2 needs it if it shall believe our tokens.",
    )
    rotate_every: timedelta = setting(
        timedelta(days=90),
        "How long a key signs: an hour at the least. Then another does, and the old one is known until its tokens end.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """``[[auth.oidc.issuers]]``: an OpenID Connect issuer whose people may sign in with a browser."""

    name: str = setting(
        "sso",
        "What it is called in addresses and in the log: a short word of small letters, digits and `-`, which no other "
        "issuer has.",
    )
    display_name: str | None = setting(None, "What people are shown; by default `name`.")
    issuer: str = setting(
        "",
        "Its address, exactly as it writes itself into its tokens (`iss`): `https://sso.example/realms/team`. Below it "
        "is `/.well-known/openid-configuration`. Plain `http://` is for loopback alone.",
    )
    client_id: str = setting("", "How this registry is registered there.")
    client_secret: Secret | None = setting(
        None, "What this registry proves itself with; by default it is a public client, with PKCE alone."
    )
    scopes: tuple[str, ...] = setting(("openid", "profile", "email"), "What is asked for; `openid` always is.")
    username_claim: str = setting(
        "preferred_username",
        "Which claim of the ID token is the person's name here: what `docker login` takes and `user:NAME` means. It is "
        "taken when they come for the first time, and stays. `email` counts only where `email_verified` is true.",
    )
    groups_claim: str | None = setting(
        None,
        "Which claim has their groups, a list: `groups`, or one inside another, `realm_access.roles`. By default they "
        "are in none. `group:admins` administers unless policies are written.",
    )
    user_prefix: str = setting("", "What stands before their names here: no two issuers may have the same.")
    group_prefix: str = setting("", "What stands before the names of their groups here, likewise.")
    allowed_groups: tuple[str, ...] = setting(
        (), "In which groups, as the issuer calls them, one has to be to sign in; one of them will do."
    )
    allowed_domains: tuple[str, ...] = setting(
        (), "Of which domains one has to be to sign in: what stands behind the `@` in `domain_claim`, or all of it."
    )
    domain_claim: str = setting("email", "Which claim tells the domain; of Google it is `hd`.")
    allow_all: bool = setting(
        False,
        "The word that is needed to let everybody in whom the issuer lets in. At an issuer that is open to all, such "
        "as Google, that is everybody there is.",
    )
    algorithms: tuple[str, ...] = setting(
        ("RS256", "ES256", "PS256", "EdDSA"), "How its ID tokens may be signed; never with a shared secret."
    )
    leeway: timedelta = setting(
        timedelta(minutes=1), "What its clock and ours may differ by: five minutes at the most."
    )
    sign_in_again: timedelta = setting(
        timedelta(days=30),
        "How long the keys of a person work after they last signed in. Until then the groups are those of that time.",
    )
    trusted_hosts: tuple[str, ...] = setting(
        (), "Hosts, `HOST[:PORT]`, where it may have its tokens and keys although their addresses aren't public."
    )
    ca: Path | None = setting(None, "Certificates in PEM that its TLS is trusted by, beside the system's.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """``[auth.oidc]``: people sign in with a browser, at an OpenID Connect issuer, and make their own keys."""

    session_lifetime: timedelta = setting(
        timedelta(hours=12), "How long one stays signed in at the most, in the browser."
    )
    session_idle: timedelta = setting(timedelta(hours=1), "After how long without a request one is signed out.")
    issuers: tuple[IssuerSettings, ...] = setting((), "Where; see `[[auth.oidc.issuers]]`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """``[[auth.policies]]``: who may do what; one that denies wins over any that allows."""

    subjects: tuple[str, ...] = setting(
        (),
        "Whom it is about: `user:NAME`, `robot:NAME`, `group:NAME`, `issued:NAME` (of a foreign issuer's token), "
        "`anonymous`, `authenticated`, `everyone`. In a name `*` stands for any characters.",
    )
    repositories: tuple[str, ...] = setting(
        (),
        "Which repositories, as patterns (`team/*`, `**`); `{user}` stands for the name of whoever asks. For `catalog` "
        "and `admin` they don't count.",
    )
    actions: tuple[PolicyAction, ...] = setting(
        (),
        "What is done: `pull`, `push` (which goes with `pull` for every client), `delete`, `catalog` (list the "
        "repositories that one may pull from), `augment` (ask for a container token), `admin` (numbers, users, "
        "settings). `watch` is kept for what is to come: nothing asks for it yet.",
    )
    effect: PolicyEffect = setting(PolicyEffect.ALLOW, "`allow` or `deny`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """``[auth]``: who may do what; nothing here and no account: everybody may do everything."""

    realm: str = setting("roadstead", "What clients show when they ask for a name and a password.")
    htpasswd: HtpasswdSettings | None = setting(
        None,
        "A file of names and hashed passwords, as `htpasswd -B` writes it: bcrypt, and also apr1, SHA-crypt and "
        "`{SHA}`. It is read again when it changes.",
    )
    accounts: bool | None = setting(
        None,
        "Whether the users, robots and keys of `roadstead user` and `roadstead key` may sign in. By default as soon as "
        "there is one when the server starts.",
    )
    token: TokenSettings | None = setting(
        None,
        "Another server's bearer tokens that are believed, a table; see `auth.token`. What they grant is allowed, and "
        "policies, if any are written, narrow it (`issued:NAME`).",
    )
    issue: IssueSettings | None = setting(
        None,
        "Bearer tokens of our own, a table that may be empty; see `[auth.issue]`. Clients need them where some may do "
        "something without signing in: with passwords alone they would never be asked.",
    )
    oidc: OidcSettings | None = setting(
        None,
        "People sign in with a browser, a table; see `[auth.oidc]`. It makes `accounts` true.",
    )
    master_key: Secret | None = setting(
        None,
        "What encrypts the secrets in the database (the keys that sign tokens): a random text of 32 characters or "
        "more, the same for every replica. By default one is made and kept in the data directory, in `master.key`.",
    )
    policies: tuple[PolicySettings, ...] = setting(
        (),
        "Who may do what; see `[[auth.policies]]`. Without any, whoever signs in may do everything to images, and "
        "others nothing.",
    )

    @property
    def is_open_to_some(self) -> bool:
        """Say whether policies allow anything to those who haven't signed in."""
        return any(
            policy.effect is PolicyEffect.ALLOW and {"anonymous", "everyone"} & set(policy.subjects)
            for policy in self.policies
        )

    @property
    def is_on(self) -> bool:
        """Say whether access is controlled, as far as settings alone tell."""
        ways = (self.htpasswd, self.token, self.oidc)
        return any(way is not None for way in ways) or bool(self.accounts) or bool(self.policies)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSettings:
    """One entry of a rule's ``layers``: a path or a location, or a table of either and what else there is to say."""

    path: Path | None = setting(
        None, "A layer as `.tar`, `.tar.gz` or `.tar.zst`, or a directory that is packed as one."
    )
    location: str | None = setting(
        None,
        "Where the layer lies, in place of `path`: `https://…`, `docker://HOST/NAME@DIGEST`, or `data:` with the "
        "base64 of a layer. It is fetched at the first start and kept.",
    )
    gzip_digest: str | None = setting(
        None, "The digest of the layer as it is sent; needed for `https://`, where the address doesn't tell it."
    )
    gzip_size: int | None = setting(None, "Its size in bytes as it is sent; without it, whatever arrives.")
    tar_digest: str | None = setting(None, "The digest of the tar inside; without it, it is taken from what arrives.")
    platform: str | None = setting(
        None, "The platform it is for, `os/architecture[/variant]`; without it, every platform."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    """``[[augment.rules]]``: what is added to images while they are pulled; the first rule that matches counts."""

    match: str = setting("", "Which images, as a pattern of `repository:tag` (`library/*:latest`).")
    layers: tuple[LayerSettings, ...] = setting((), "Layers to put on top, in this order.")
    includes: tuple[str, ...] = setting(
        (),
        "Other images, named with their registry (`docker.io/library/busybox:1.37`), whose layers are put on top of "
        "those. Tags are looked up at each start.",
    )
    env: tuple[str, ...] = setting((), "Environment variables, `NAME=VALUE`; one of the same name is replaced.")
    entrypoint: tuple[str, ...] | None = setting(None, "The new entrypoint; `[]` removes it; without it, it stays.")
    cmd: tuple[str, ...] | None = setting(None, "The new command; `[]` removes it; without it, it stays.")
    workdir: str | None = setting(None, "The new working directory; without it, it stays.")
    labels: tuple[str, ...] = setting((), "Labels, `NAME=VALUE`; one of the same name is replaced.")


class AugmentProfile(StrEnum):
    """Whose habits augmented images have."""

    NATIVE = "native"
    WAVE = "wave"


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSettings:
    """``[augment]``: what is added to images while they are pulled."""

    rules: tuple[RuleSettings, ...] = setting((), "The rules; see `[[augment.rules]]`.")
    profile: AugmentProfile = setting(
        AugmentProfile.NATIVE,
        "`wave` makes the images that Wave makes, to the byte: variables are appended and not replaced, the old "
        "entrypoint is in `WAVE_ENTRY_CHAIN`, and of an index only linux/amd64 is augmented.",
    )
    location_hosts: tuple[str, ...] = setting(
        (),
        "Hosts (`artifacts.internal:8443`) at private addresses that layers may lie at, or be redirected to. Callers "
        "reach these and the public internet; a rule reaches the host that it names, too.",
    )
    max_layer_bytes: ByteSize = setting(
        ByteSize(10 << 30), "The largest layer that is fetched from elsewhere, as a size."
    )
    max_layer_unpacked_bytes: ByteSize = setting(
        ByteSize(64 << 30), "To how much a layer from elsewhere may unpack, as a size."
    )
    layer_patience: timedelta = setting(
        timedelta(minutes=10),
        "How long a layer from elsewhere may take to arrive, all tries together. Until then it keeps one of the eight "
        "places that each worker has for such layers; one caller gets half of them at the most.",
    )
    token_lifetime: timedelta = setting(
        timedelta(hours=36),
        "How long a container token is good (`POST /container-token`). What was derived for it goes some hours later.",
    )
    anonymous_tokens: bool | None = setting(
        None,
        "Whether those who haven't signed in may ask for container tokens, where policies let them pull and augment. "
        "By default where `server.listen` is loopback: elsewhere anybody could have this server fetch and keep images.",
    )
    provenance: bool = setting(
        True,
        "Whether each augmented image comes with word of where it comes from: a statement of in-toto (SLSA provenance) "
        "among its referrers. It is made with the image, at its first pull.",
    )
    builder: str = setting(
        "urn:roadstead:augment",
        "Who that statement says has made the image: a URI that means this installation to those who read it, such as "
        "`https://registry.example.org`.",
    )


class SignatureKind(StrEnum):
    """Whose form signatures have."""

    COSIGN = "cosign"
    NOTATION = "notation"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """One entry of a policy's ``keys``: a path, the PEM itself, or a table of either."""

    path: Path | None = setting(None, "The file that holds the key or the certificates, PEM.")
    pem: str | None = setting(None, "The PEM itself; a reference (`${secret:NAME#key}`) will do.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignaturePolicySettings:
    """``[[signatures.policies]]``: images that have to be signed; an image has to meet each policy that matches."""

    match: tuple[str, ...] = setting(
        (), "Which images, as patterns of repositories (`team/**`, `docker.io/library/*`), by the names they have here."
    )
    keys: tuple[KeySettings, ...] = setting(
        (),
        "Who may have signed: public keys for `cosign`, certificates that chains may end at for `notation`. Each is a "
        "file, or the PEM itself. One of them is enough.",
    )
    kind: SignatureKind = setting(
        SignatureKind.COSIGN,
        "Whose signatures: `cosign` (with keys; keyless ones don't count) or `notation` (JWS envelopes).",
    )
    require: bool = setting(
        True, "Whether an image without such a signature is refused (403); `false` only logs it, for a beginning."
    )
    as_pushed: bool = setting(
        False,
        "Whether names below `as-pushed/` come under it, too. By default they don't: who signs an image reads it there "
        "before.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSettings:
    """``[signatures]``: which images have to be signed, and the key that signs what is made here."""

    policies: tuple[SignaturePolicySettings, ...] = setting(
        (), "What has to be signed; see `[[signatures.policies]]`. Without any, nothing has to be."
    )
    key: Secret | None = setting(
        None,
        "The private key that augmented images and their provenance are signed with, as PEM: ECDSA on P-256, without a "
        "password, from a reference such as `${file:signing.key}`. Without it they aren't signed.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """``[[gc.retention]]``: which tags are kept; of each tag the first rule that matches decides, others stay."""

    match: str = setting("", "Which tags, as a pattern of `repository:tag` (`team/*:nightly-*`).")
    keep_newest: int | None = setting(None, "How many of each repository are kept, those made or moved last.")
    keep_younger: timedelta | None = setting(None, "Those made or moved less than this ago are kept.")
    keep_matching: tuple[str, ...] = setting((), "Tags that fit one of these patterns (`v*`) are kept.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GcSettings:
    """``[gc]``: collection of what nothing needs, while the registry serves."""

    enabled: bool = setting(
        True, "Whether the server collects by itself. `roadstead gc` does in any case, beside a running server or not."
    )
    interval: timedelta = setting(timedelta(hours=1), "How often a pass begins; one of the replicas does it.")
    sweep_interval: timedelta = setting(
        timedelta(hours=24),
        "How often storage is listed for bytes that a crash has left without a row. Listing a large bucket takes a "
        "while and costs requests.",
    )
    grace: timedelta = setting(
        timedelta(hours=24),
        "How long a blob stays after it was last pushed, mounted or asked for by HEAD, even if no manifest refers to "
        "it: a client may rely on it until it has pushed the manifest. It is begun anew when half of it is over, so "
        "that half is left at the least to who asked last. An hour at the least.",
    )
    untagged: UntaggedManifests = setting(
        UntaggedManifests.KEEP,
        "What becomes of manifests that no tag points at, no index lists and no subject keeps. They are kept by "
        "default, as in distribution: deployments pin digests.",
    )
    untagged_after: timedelta = setting(
        timedelta(hours=168),
        "`delete`: how long ago such a manifest was pushed, or lost its last tag, at the least: a week.",
    )
    retention: tuple[RetentionSettings, ...] = setting(
        (), "Rules by which tags are removed; see `[[gc.retention]]`. Without any, none is."
    )


class SignIn(StrEnum):
    """Where it is known who we are at another registry."""

    GIVEN = "given"
    DOCKER = "docker"
    ECR = "ecr"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """``[[upstreams]]``: another registry whose images are pulled through this one, and kept here."""

    host: str = setting(
        "",
        "What stands first in the names of its images here, a host without a port: with `docker.io` they are "
        "`docker.io/library/busybox`. Rules, policies and the catalog know them by that name.",
    )
    url: str | None = setting(
        None,
        "Where it is asked, `https://HOST[:PORT]`, or `http://…` for one without TLS; by default `https://` its host.",
    )
    default_for: tuple[str, ...] = setting(
        (),
        "Which names without a host are its, as patterns of repositories (`library/*`). Of these, what was once pushed "
        "here stays ours, also when it is deleted. Without any it is asked by its host alone.",
    )
    username: str | None = setting(None, "Who signs in there; by default nobody.")
    password: Secret | None = setting(None, "The password or access token of `username`.")
    sign_in: SignIn = setting(
        SignIn.GIVEN,
        "Who signs in: `given` is `username`, or nobody; `docker` is what `docker_config` says of the host, by its "
        "credential helpers too; `ecr` has AWS give a password for one of Amazon's registries, with `username` and "
        "`password` as access key and secret, or, without them, with the keys or the role that AWS's libraries find.",
    )
    docker_config: Path | None = setting(
        None,
        'A file as `docker login` writes it (`config.json`, podman\'s `auth.json`), for `sign_in = "docker"`. It is '
        "read again when it changes.",
    )
    ca: Path | None = setting(None, "Certificates in PEM that its TLS is trusted by, beside the system's.")
    trusted_hosts: tuple[str, ...] = setting(
        (),
        "Hosts, `HOST[:PORT]`, that it may send us to although their addresses aren't public (its storage), and that "
        "may have `username` and `password` although their domain is another one (its token service).",
    )
    revalidate: timedelta = setting(
        timedelta(minutes=5),
        "How long a tag is believed to be where it was, before it is asked for again (a HEAD, which Docker Hub doesn't "
        "count). `0s` asks at each pull.",
    )
    missing_for: timedelta = setting(
        timedelta(seconds=5),
        "How long what wasn't there is believed not to be there, by each worker: who waits for an image asks again and "
        "again. A new tag may be hidden for so long, and no longer. `0s` asks each time.",
    )
    downloads: int = setting(
        32,
        "How many of its blobs are downloaded at the same time, by all workers of a machine together; others wait for "
        "their turn. `0` is without limit.",
    )
    keep: timedelta | None = setting(
        timedelta(hours=720),
        "How long an image stays here after it was last pulled: 30 days. `0s` keeps all of them for ever.",
    )
    allow_push: bool = setting(
        False, "Whether names of `default_for` may be pushed to; what is pushed is ours from then on."
    )
    whole: bool = setting(
        False,
        "Whether names of `default_for` are its in any case, also those that were pushed here before. Only for a "
        "registry that is nothing but its cache, and takes no pushes.",
    )
    platforms: tuple[str, ...] = setting(
        ("linux/amd64", "linux/arm64"),
        "For which platforms rules add to its images: others are left out of what is made. All of them would have to "
        "be fetched first. An empty list is all. Images that no rule matches are served whole.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamsSettings:
    """``[upstreams]``: other registries, pulled through this one."""

    registries: tuple[UpstreamSettings, ...] = setting(
        (), "They; see `[[upstreams]]`, which is a shorter way to write `[[upstreams.registries]]`."
    )
    trace: bool = setting(
        False,
        "Log every request to an upstream, to find out why one fails: its address, with all that may be secret masked, "
        "its status and how long it took. `serve --trace-upstream`, for a while.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """``[limits]``: how much one client, or one user, may ask for; what is beyond is answered 429.

    A client is an address (of IPv6 a /64), as a proxy in `server.trusted_proxies` tells it; a user has signed in.
    Rates and uploads are counted by all workers of a machine together, pulls by all replicas.
    """

    client_rate: int | None = setting(
        None,
        "Requests a second from one address, in the long run. One pull of an image is some ten requests, and many "
        "people may stand behind one address. By default there is no limit.",
    )
    client_burst: int | None = setting(
        None, "Requests from one address that may come at once, by default ten seconds' worth of `client_rate`."
    )
    user_rate: int | None = setting(None, "The same for one user, from wherever.")
    user_burst: int | None = setting(None, "The same for one user: by default ten seconds' worth of `user_rate`.")
    client_uploads: int | None = setting(
        None,
        "Blobs that one address may send at the same time. Docker sends 5 at once, and takes a refusal for the end of "
        "the push: a smaller number stops it.",
    )
    user_uploads: int | None = setting(None, "The same for one user, from wherever.")
    max_blob_bytes: ByteSize = setting(
        ByteSize(0), "The largest blob that is taken in (413), however it is sent. `0` is without limit."
    )
    body_idle: timedelta = setting(
        timedelta(minutes=15),
        "How long a client may be silent in the middle of a body before it is taken to be gone. Proxies that gather "
        "a body first make long silences.",
    )
    anonymous_pulls: int | None = setting(
        None,
        "Manifests that one address may pull in `pull_window` without signing in, counted as Docker Hub does: GET is "
        "a pull, HEAD is none. Answers say what is left (`RateLimit-Remaining`). Each pull costs a transaction then.",
    )
    user_pulls: int | None = setting(None, "The same for one user, from wherever.")
    pull_window: timedelta = setting(timedelta(hours=6), "The time in which pulls are counted; it begins with a pull.")


class EventAction(StrEnum):
    """What a receiver may be told of."""

    PUSH = "push"
    PULL = "pull"
    MOUNT = "mount"
    DELETE = "delete"


class EventFormat(StrEnum):
    """How an event looks to its receiver."""

    DISTRIBUTION = "distribution"
    CLOUDEVENTS = "cloudevents"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """``[[events.endpoints]]``: a receiver of events, and how it is treated."""

    name: str = setting(
        "", "What logs and numbers call it. Events that wait for it wait under this name; another name is another one."
    )
    url: Secret = setting(
        Secret(""), "Where events are posted to, `http://…` or `https://…`. It isn't shown: it may hold a password."
    )
    headers: SentHeaders = setting(
        SentHeaders(),
        'Headers of each request, `{ Authorization = ["Basic ${env:AUTH}"] }`. They go to this host and no other, '
        "and are never shown.",
    )
    timeout: timedelta = setting(timedelta(seconds=1), "How long the receiver may take to answer.")
    threshold: int = setting(
        10, "After how many failures in a row the receiver is taken to be down, and tried only each `backoff`."
    )
    backoff: timedelta = setting(
        timedelta(seconds=1),
        "How long is waited between attempts once there were `threshold` failures. A single event that is refused "
        "while others are taken waits longer each time, up to a minute.",
    )
    format: EventFormat = setting(
        EventFormat.DISTRIBUTION,
        "The form of events: that of Docker's registry, or CloudEvents 1.0 in JSON with the former as its `data`.",
    )
    actions: tuple[EventAction, ...] = setting(
        (EventAction.PUSH, EventAction.MOUNT, EventAction.DELETE), "What is told: `push`, `pull`, `mount`, `delete`."
    )
    ignored_media_types: tuple[str, ...] = setting(
        (), "Media types of which nothing is told. Blobs are all told as `application/octet-stream`."
    )
    heads: bool = setting(
        False,
        "Whether HEAD is told as a pull, too, as Docker's registry does: clients that only look for news send many.",
    )
    signing_key: Secret | None = setting(
        None,
        "With a key each request carries `X-Roadstead-Signature-256: sha256=…`, the HMAC-SHA256 of its body in hex, so "
        "that the receiver knows who sent it.",
    )
    max_attempts: int | None = setting(
        None,
        "After how many failed attempts an event is given up, and the next of its repository is sent; `roadstead "
        "events list` shows it and `replay` sends it again. Without it events are tried for ever.",
    )
    parallel: int = setting(
        4, "Of how many repositories events are sent at the same time. Those of one repository come one after another."
    )
    pulls_at_once: int = setting(
        64,
        "Of how many pulls one request tells at the most, 1 to 64, where many came at once from one repository. 1 is "
        "for receivers that look at the first event of a request alone. Other events always come one by one.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """``[events]``: what happens here is told to others."""

    endpoints: tuple[EndpointSettings, ...] = setting(
        (), "Who is told; see `[[events.endpoints]]`. Without any, nothing is written down either."
    )
    include_references: bool = setting(
        False,
        "Whether events of manifests up to 128 KiB list what these refer to: config and layers, or an index's images.",
    )
    retention: timedelta = setting(
        timedelta(hours=168),
        "How long events stay that were delivered or given up, to be looked at and sent again: a week. Pulls go as "
        "soon as they are delivered.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """``[audit]``: the log of administrative acts and of refused access, in the database."""

    retention: timedelta = setting(
        timedelta(days=365), "How long its lines stay: a year. Those of refused access are summed up, and stay as long."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """``[log]``: what is written on standard error, one line an event."""

    format: LogFormat = setting(LogFormat.TEXT, "`text` (`key=value`, coloured on a terminal) or `json`.")
    level: LogLevel = setting(
        LogLevel.INFO, "The least important events that are written: `debug`, `info`, `warning` or `error`."
    )
    access: bool = setting(True, "Whether each request is written as a line when it ends.")
    fields: LogFields = setting(LogFields(), 'Fields that every line carries, `{ service = "registry" }`.')


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """``[metrics]``: numbers for Prometheus."""

    open_to_network: bool = setting(
        False,
        "Whether `/metrics` answers everybody. Otherwise it answers this machine alone (404), and where one has to "
        "sign in, those who may `admin`: the numbers tell what is in use.",
    )
    listen: ListenAddress | None = setting(
        None,
        "An address of their own, `HOST:PORT`, where the numbers and the answers to health checks (`/healthz`, "
        "`/readyz`, `/debug/health`) are given to whoever reaches it. It takes a process more.",
    )
    path: str = setting("/metrics", "The path of the numbers at `listen`; at the registry's port it is `/metrics`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    server: ServerSettings = ServerSettings()
    tls: TlsSettings = TlsSettings()
    storage: StorageSettings = StorageSettings()
    database: DatabaseSettings = DatabaseSettings()
    registry: RegistrySettings = RegistrySettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    augment: AugmentSettings = AugmentSettings()
    signatures: SignatureSettings = SignatureSettings()
    gc: GcSettings = GcSettings()
    upstreams: UpstreamsSettings = UpstreamsSettings()
    events: EventSettings = EventSettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()

    @property
    def issue(self) -> IssueSettings | None:
        """Return how we give out bearer tokens, None where we don't; `auth.accounts` has been decided.

        Without a word we do where Basic alone would leave somebody out: clients only send a password where they are
        asked for one, and where some need none nobody can be asked.
        """
        auth = self.auth
        if auth.issue is not None:
            return None if auth.issue.enabled is False else auth.issue
        return IssueSettings() if self.wants_tokens and self.has_master_key else None

    @property
    def wants_tokens(self) -> bool:
        """Say whether clients would be sent for tokens without a word in settings."""
        auth = self.auth
        return auth.token is None and (bool(auth.accounts) or (auth.htpasswd is not None and auth.is_open_to_some))

    @property
    def has_master_key(self) -> bool:
        """Say whether what signs tokens can be encrypted in the database: under a key that was given, or on one machine
        under one that is kept in the data directory. Replicas may each have a directory of their own.
        """
        is_alone = self.storage.driver is StorageDriver.FILESYSTEM and self.database_url.startswith("sqlite")
        return self.auth.master_key is not None or is_alone

    @property
    def is_rebuildable(self) -> bool:
        """Say whether the database can be built from storage at every start."""
        return self.database.mode is DatabaseMode.REBUILDABLE

    @property
    def links(self) -> LinksMode | None:
        """Return when links are written; None where that depends on what is in storage."""
        return LinksMode.SYNC if self.is_rebuildable else self.storage.links

    @property
    def database_url(self) -> str:
        """Return the database's URL: what was set, or SQLite in the data directory."""
        return self.database.url or f"sqlite:///{self.storage.path / 'roadstead.db'}"

    @property
    def gives_anonymous_tokens(self) -> bool:
        """Say whether those who haven't signed in may ask for container tokens."""
        said = self.augment.anonymous_tokens
        return self.server.listen.is_loopback if said is None else said

    @property
    def speaks_tls(self) -> bool:
        """Say whether the registry's port speaks TLS."""
        return self.tls.self_signed or self.tls.certificate is not None
