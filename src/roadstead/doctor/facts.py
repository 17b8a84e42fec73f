"""What is gathered about an installation, as plain values: what it means is in ``rules``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that was tried and didn't work, as the error tells it."""

    message: str
    advice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer: lower-case header names."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What the address that clients use says, asked from here; None for what wasn't asked or didn't come."""

    url: str  # without a slash at its end
    failure: Failure | None = None  # nothing answers, or TLS fails: then nothing else was asked
    wants_certificate: bool = False  # of clients, and then nothing else was asked
    base: Answer | None = None  # GET /v2/
    session: Answer | None = None  # POST of an upload
    announced: Answer | None = None  # PATCH that announces a large body and sends its beginning
    waited_for_body: bool = False  # nobody answered that: somebody wants the rest first
    internal: Answer | None = None  # GET in the location that only the proxy itself may use


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What TLS at an address shows, to a client that trusts what this machine trusts."""

    host: str
    problem: str | None = None  # in OpenSSL's words
    begins: datetime | None = None
    expires: datetime | None = None  # told where nothing is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Another clock, read at about the same time as ours."""

    whose: str
    theirs: datetime
    ours: datetime
    exact_s: float = 1.0  # how far the reading may be off by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A file system's room, for a user without privileges; inodes 0 of 0 where it doesn't count them."""

    path: str
    purpose: str
    total: int  # bytes
    free: int
    inodes: int
    inodes_free: int
    kind: str | None  # of file system
    is_network: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What became of a small object that was written, read and removed."""

    where: str
    is_there: bool = True  # False: a data directory that the first start makes
    can_be_made: bool = True
    failure: Failure | None = None
    took_s: float = 0.0
    devices: Mapping[str, int] = field(default_factory=dict)  # of the folders that bytes move between


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What the database tells. `failure` where it can't be used."""

    where: str  # without a password
    failure: Failure | None = None
    is_there: bool = True  # False: a file that the first start makes
    revision: str | None = None
    known: Sequence[str] = ()  # revisions of this release, oldest first
    took_s: float = 0.0  # one question, the median of several
    flush_s: float | None = None  # SQLite: 4 KiB and an fsync beside it, the median of several
    wal_bytes: int = 0  # SQLite
    mode: int = 0o600  # SQLite: permissions
    unopened: str | None = None  # why the keys that sign tokens can't be used
    unsafe: Sequence[str] = ()  # PostgreSQL: settings by which acknowledged writes may be lost
    connections: int = 0  # PostgreSQL: what our processes take at the most
    connections_allowed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Who is at the address that the server listens at."""

    address: str
    is_registry: bool = False
    ready: Answer | None = None  # /readyz of the registry there
    wants_certificate: bool = False  # of clients, so that whoever is there couldn't be asked
    shows_ours: bool = False  # and the certificate that it shows is that of the settings
    is_free: bool = True
    reason: str = ""  # why it can't be listened at


@dataclass(frozen=True, slots=True, kw_only=True)
class Localhost:
    """What `localhost` means to clients on this machine, for a server at a loopback address."""

    host: str  # that the server listens at
    port: int
    names: Sequence[str]  # what localhost resolves to, in order
    other_taken: bool = False  # something else listens at the other family's loopback address


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Limits of the process and the kernel; None where they can't be told."""

    open_files: int
    backlog: int | None = None
