"""What facts mean: one pure function a kind of fact, each yielding verdicts (deployment spec §4.5, §6.2, §8)."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import SplitResult, urlsplit

from roadstead.doctor.facts import (
    Answer,
    Certificate,
    Clock,
    Database,
    Front,
    Localhost,
    Machine,
    Port,
    Space,
    Store,
)
from roadstead.doctor.verdict import Verdict, fail, ok, warn

EXPIRES_SOON = timedelta(days=30)
SKEW_WARNS_S, SKEW_FAILS_S = 5.0, 60.0
"""Tokens are taken up to a minute beside their time; S3 refuses requests that are a quarter of an hour off."""

SLOW_FLUSH_S, BAD_FLUSH_S = 0.02, 0.2
SLOW_QUESTION_S, SLOW_STORE_S = 0.02, 2.0
LARGE_WAL = 256 << 20
"""SQLite's log is cut at 64 MiB when nobody reads in it; this is what a reader leaves that never ends."""

LITTLE_SPACE, NO_SPACE = 1 << 30, 64 << 20
LITTLE_SHARE = 0.05
FEW_FILES, TOO_FEW_FILES = 4096, 512
BACKLOG = 1024

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_CLOCKS = "Compare the clocks of this machine and of the one that made it."


def front(facts: Front) -> Iterator[Verdict]:
    """Judge what clients meet at the public address: the proxy, mostly."""
    if facts.failure is not None:
        yield fail("proxy.reachable", f"{facts.url} doesn't answer: {facts.failure.message}", facts.failure.advice)
        return
    if facts.wants_certificate:
        yield warn(
            "proxy.reachable",
            f"{facts.url} lets in only who has a client's certificate, so what comes through isn't known",
            f"Ask with one: curl --cert client.cert --key client.key {facts.url}/v2/",
        )
        return
    if facts.base is None:
        return
    if facts.base.status not in (200, 401):
        yield _wrong_base(facts.url, facts.base)
        return
    yield ok("proxy.reachable", f"{facts.url}/v2/ answers {facts.base.status}")
    if "docker-distribution-api-version" not in facts.base.headers:
        yield warn(
            "proxy.api-version",
            "the header Docker-Distribution-Api-Version doesn't come through: older clients take this for no registry",
            "Have the proxy pass on all headers of answers, on 401 too.",
        )
    yield from _realm(facts.url, facts.base)
    yield from _location(facts)
    yield from _body(facts)
    yield from _offload(facts)


def _wrong_base(url: str, base: Answer) -> Verdict:
    if base.status in _REDIRECTS:
        return fail(
            "proxy.reachable",
            f"{url}/v2/ redirects to {base.headers.get('location', 'nowhere')}, and pushes get lost on the way",
            "Put the address that answers itself into server.public_url, and give clients that one.",
        )
    if base.status in (502, 504):
        advice = "The proxy doesn't reach the server: compare its upstream with server.listen."
    elif base.status == 404:
        advice = "Have the proxy hand on /v2/ as it is; where it keeps a part of the path, say that in server.prefix."
    else:
        advice = None
    return fail("proxy.reachable", f"{url}/v2/ answers {base.status}, where a registry answers 200 or 401", advice)


def _realm(url: str, base: Answer) -> Iterator[Verdict]:
    challenge = base.headers.get("www-authenticate")
    if base.status != 401:
        return
    if challenge is None:
        yield fail(
            "proxy.challenge",
            "401 comes without WWW-Authenticate: no client can sign in",
            "Have the proxy pass on that header, and not answer 401 by itself.",
        )
        return
    realm = _parameter(challenge, "realm")
    if not challenge.lower().startswith("bearer") or "://" not in realm:
        yield ok("proxy.challenge", f"sign-in is asked for: {challenge.partition(' ')[0]}")
        return
    problem = _differs(urlsplit(realm), urlsplit(url))
    if problem is None:
        yield ok("proxy.realm", f"tokens are to be had at {realm}")
    elif problem == "scheme":
        yield fail(
            "proxy.realm",
            f"clients are sent to {realm} for tokens, over another scheme than {url}",
            "Set server.public_url to what clients use, and have the proxy set X-Forwarded-Proto.",
        )
    else:
        yield warn(
            "proxy.realm",
            f"clients are sent to another host for tokens, {realm}; they have to reach that as well as {url}",
            "If that isn't meant, set server.public_url, and have the proxy pass on Host.",
        )


def _location(facts: Front) -> Iterator[Verdict]:
    if facts.session is None or facts.session.status != 202:
        return
    location = facts.session.headers.get("location", "")
    prefix = urlsplit(facts.url).path.rstrip("/")
    if location.startswith(f"{prefix}/v2/"):
        yield ok("proxy.location", "uploads go on at paths, which are right behind every proxy")
        return
    problem = _differs(urlsplit(location), urlsplit(facts.url)) if "://" in location else "path"
    if problem is None:
        yield ok("proxy.location", f"uploads go on at {facts.url}")
        return
    yield fail(
        "proxy.location",
        f"uploads go on at {location.partition('?')[0]}, which differs from {facts.url} in its {problem}: pushes fail",
        "Leave server.relative_urls at true, or set server.public_url to what clients use; and have the proxy neither "
        "rewrite Location nor cut off a part of the path that server.prefix doesn't name.",
    )


def _body(facts: Front) -> Iterator[Verdict]:
    if facts.announced is not None and facts.announced.status == 413:
        yield fail(
            "proxy.body-limit",
            "the proxy refuses large bodies (413): layers can't be pushed",
            'Take its limit away: nginx client_max_body_size 0, ingress-nginx proxy-body-size "0".',
        )
    elif facts.waited_for_body:
        yield warn(
            "proxy.buffering",
            "the proxy keeps the whole body of a push before it passes it on: pushes take twice as long and its disk",
            "Switch that off: nginx proxy_request_buffering off, ingress-nginx proxy-request-buffering "
            '"off"; in Traefik the middleware `buffering`, in Caddy request_buffers.',
        )
    elif facts.announced is not None:
        yield ok("proxy.body-limit", "a body of 1 GiB would be let through, as it comes")


def _offload(facts: Front) -> Iterator[Verdict]:
    if facts.internal is None:
        return
    if "docker-distribution-api-version" in facts.internal.headers:
        yield fail(
            "proxy.offload",
            "server.offload is on, and the proxy has no location of that name: what it should send is empty",
            "Give nginx the internal location of docs/how-to/run-behind-nginx.md.",
        )
    elif facts.internal.status == 404:
        yield ok("proxy.offload", "the proxy has the location for blobs, and keeps it to itself")
    else:
        yield fail(
            "proxy.offload",
            f"the location for blobs answers {facts.internal.status} to anybody: whoever knows a digest can read it",
            "Mark it `internal` in nginx's configuration.",
        )


def _parameter(challenge: str, name: str) -> str:
    _, found, rest = challenge.partition(f'{name}="')
    return rest.partition('"')[0] if found else ""


def _differs(one: SplitResult, other: SplitResult) -> str | None:
    """Return in which part two addresses differ, None where both lead to the same server."""
    if one.scheme != other.scheme:
        return "scheme"
    if (one.hostname or "") != (other.hostname or ""):
        return "host"
    ours, theirs = (part.port or _PORTS.get(part.scheme) for part in (one, other))
    return "port" if ours != theirs else None


def certificate(facts: Certificate, now: datetime) -> Iterator[Verdict]:
    """Judge what TLS shows at the public address."""
    if facts.problem is not None:
        yield fail("certificate", f"{facts.host}: {facts.problem}", _advice_on_tls(facts.problem))
    elif facts.begins is not None and facts.begins > now:
        yield fail("certificate", f"{facts.host}: it begins only on {facts.begins:%Y-%m-%d %H:%M} UTC", _CLOCKS)
    elif facts.expires is not None:
        left = facts.expires - now
        if left <= timedelta():
            yield fail("certificate", f"{facts.host}: it ended on {facts.expires:%Y-%m-%d}", "Renew it.")
            return
        told = f"{facts.host}: valid until {facts.expires:%Y-%m-%d}"
        if left < EXPIRES_SOON:
            yield warn("certificate", f"{told}, {max(left.days, 0)} days from now", "Renew it.")
        else:
            yield ok("certificate", told)


def _advice_on_tls(problem: str) -> str:
    if "expired" in problem:
        return "Renew it, and have the proxy read it again."
    if "not yet valid" in problem:
        return _CLOCKS
    if "mismatch" in problem or "match" in problem:
        return "Take a certificate for this name, or the name of the certificate in server.public_url."
    if "self-signed" in problem or "self signed" in problem or "issuer" in problem:
        return (
            "Serve the whole chain; if the authority is your own, every client has to be told of it (Docker: "
            "/etc/docker/certs.d/HOST/ca.crt; here: SSL_CERT_FILE)."
        )
    return "Look at what speaks TLS there: `openssl s_client -connect HOST:PORT -servername HOST`."


def clock(facts: Clock) -> Iterator[Verdict]:
    """Judge how far a clock is from another."""
    skew_s = (facts.ours - facts.theirs).total_seconds()
    off_s = max(0.0, abs(skew_s) - facts.exact_s)
    way = "ahead of" if skew_s > 0 else "behind"
    told = f"this clock is {abs(skew_s):.0f} s {way} that of {facts.whose}"
    advice = "Have both follow a time server (timedatectl, chronyc tracking)."
    if off_s > SKEW_FAILS_S:
        yield fail("clock", f"{told}: tokens and signed requests are refused", advice)
    elif off_s > SKEW_WARNS_S:
        yield warn("clock", told, advice)
    else:
        yield ok("clock", f"the same as that of {facts.whose}")


def space(facts: Space) -> Iterator[Verdict]:
    """Judge how much room is left, and what kind of file system it is."""
    free = f"{facts.free / 2**30:.1f} GiB of {facts.total / 2**30:.1f} are free"
    advice = "Free some (roadstead gc removes what nothing needs), or enlarge the volume."
    if facts.free < NO_SPACE:
        yield fail(f"{facts.purpose}.space", f"{facts.path}: {facts.free >> 20} MiB are free: pushes fail", advice)
    elif facts.free < LITTLE_SPACE or facts.free < facts.total * LITTLE_SHARE:
        yield warn(f"{facts.purpose}.space", f"{facts.path}: {free}", advice)
    else:
        yield ok(f"{facts.purpose}.space", f"{facts.path}: {free}")
    if facts.inodes and facts.inodes_free < facts.inodes * LITTLE_SHARE:
        yield warn(
            f"{facts.purpose}.inodes",
            f"{facts.path}: {facts.inodes_free} of {facts.inodes} inodes are free, and every blob takes two",
            "Free some files, or make the file system anew with more (mkfs -i).",
        )
    yield from _kind(facts)


def _kind(facts: Space) -> Iterator[Verdict]:
    if facts.kind in ("tmpfs", "ramfs"):
        yield warn(
            f"{facts.purpose}.filesystem",
            f"{facts.path} is memory ({facts.kind}): what is pushed is gone with the machine",
            "Take a folder on a disk.",
        )
    elif facts.kind in ("overlay", "aufs"):
        yield warn(
            f"{facts.purpose}.filesystem",
            f"{facts.path} is the container's own layer ({facts.kind}): what is pushed is gone with the container",
            "Mount a volume there.",
        )
    elif facts.is_network:
        yield warn(
            f"{facts.purpose}.filesystem",
            f"{facts.path} lies on another machine ({facts.kind}): every push waits for it",
            "A bucket is faster and safer; if it stays, only one machine may serve it.",
        )


def store(facts: Store) -> Iterator[Verdict]:
    """Judge what became of the probe."""
    if not facts.is_there:
        if facts.can_be_made:
            yield ok("storage", f"{facts.where} isn't there yet; the first start makes it")
        else:
            yield fail(
                "storage",
                f"{facts.where} isn't there, and this user may not make it",
                "Make it, and give it to this user.",
            )
        return
    if facts.failure is not None:
        yield fail("storage", f"{facts.where}: {facts.failure.message}", facts.failure.advice)
        return
    took = f"{facts.where}: an object was written, read and removed in {facts.took_s * 1000:.0f} ms"
    if facts.took_s > SLOW_STORE_S:
        yield warn("storage", took, "Each push waits for this several times: is the store near, and is it busy?")
    else:
        yield ok("storage", took)
    if len(set(facts.devices.values())) > 1:
        yield fail(
            "storage.mounts",
            f"nothing can be renamed between these, which are different file systems: {', '.join(facts.devices)}",
            "Mount the whole data directory, not folders in it.",
        )


def database(facts: Database) -> Iterator[Verdict]:
    """Judge what the database tells."""
    if facts.failure is not None:
        yield fail("database", f"{facts.where}: {facts.failure.message}", facts.failure.advice)
        return
    if not facts.is_there:
        yield ok("database", f"{facts.where} isn't there yet; the first start makes it")
        return
    yield from _revision(facts)
    if facts.took_s > SLOW_QUESTION_S:
        yield warn(
            "database.latency",
            f"a question takes {facts.took_s * 1000:.0f} ms, and a pull asks one or two",
            "Have the database near, and look at what else it does.",
        )
    yield from _flush(facts)
    if facts.unopened is not None:
        yield fail(
            "database.keys",
            f"the server won't start: {facts.unopened}",
            "Bring back the master key (auth.master_key, or master.key in the data directory). If it is lost, see "
            '"When the master key is lost" in docs/how-to/tokens.md.',
        )
    if facts.wal_bytes > LARGE_WAL:
        yield warn(
            "database.wal",
            f"its log has grown to {facts.wal_bytes >> 20} MiB: somebody reads in it without end",
            "Look for another program that has the file open (fuser), a backup that hangs, for one.",
        )
    if facts.mode & 0o077:
        yield warn(
            "database.permissions", f"{facts.where} can be read by others, and it holds secrets", "chmod 600 it."
        )
    yield from _postgresql(facts)


def _revision(facts: Database) -> Iterator[Verdict]:
    if facts.revision is not None and facts.revision not in facts.known:
        yield fail(
            "database",
            f"{facts.where} is at revision {facts.revision}, of a later release; known here is {facts.known[-1]}",
            "Run the release that wrote it, or a later one.",
        )
    elif not facts.known or facts.revision != facts.known[-1]:
        found = "has no tables yet" if facts.revision is None else f"is at revision {facts.revision}"
        yield ok("database", f"{facts.where} {found}; the next start brings it to {facts.known[-1]}")
    else:
        yield ok("database", f"{facts.where} answers in {facts.took_s * 1000:.1f} ms, revision {facts.revision}")


def _flush(facts: Database) -> Iterator[Verdict]:
    if facts.flush_s is None:
        return
    took = f"4 KiB are on disk within {facts.flush_s * 1000:.1f} ms"
    if facts.flush_s > BAD_FLUSH_S:
        yield fail("database.flush", f"{took}: every push waits for that several times", "Look at the disk.")
    elif facts.flush_s > SLOW_FLUSH_S:
        yield warn(
            "database.flush", took, "A local SSD takes less than one; the database may lie on a disk of its own."
        )
    else:
        yield ok("database.flush", took)


def _postgresql(facts: Database) -> Iterator[Verdict]:
    if facts.unsafe:
        yield fail(
            "database.durability",
            f"PostgreSQL runs with {', '.join(facts.unsafe)}: after a crash, pushes are gone that were acknowledged",
            "Switch it on again.",
        )
    allowed = facts.connections_allowed
    if allowed is not None and facts.connections > allowed:
        yield warn(
            "database.connections",
            f"one server of ours takes up to {facts.connections} connections, and PostgreSQL allows {allowed}",
            "Raise max_connections, or lower database.pool_size or server.workers.",
        )


def port(facts: Port) -> Iterator[Verdict]:
    """Judge who is at the address that the server listens at."""
    if facts.is_registry:
        if facts.ready is not None and facts.ready.status != 200:
            yield fail(
                "port",
                f"the server at {facts.address} isn't ready ({facts.ready.status})",
                f"`curl http://{facts.address}/readyz` says why, and its log.",
            )
        else:
            yield ok("port", f"a server answers at {facts.address}")
    elif facts.wants_certificate and facts.shows_ours:
        yield ok(
            "port",
            f"a server with the certificate of these settings is at {facts.address}; it wants one of clients, so "
            "whether it is ready isn't known",
        )
    elif facts.wants_certificate:
        yield warn(
            "port",
            f"what listens at {facts.address} lets in only who has a client's certificate: whether it is this "
            "registry isn't known",
            f"`openssl s_client -connect {facts.address}` shows its certificate: compare that with tls.certificate.",
        )
    elif facts.is_free:
        yield ok("port", f"{facts.address} is free; no server runs there")
    else:
        yield fail(
            "port",
            f"{facts.address} can't be listened at: {facts.reason}",
            "Stop what listens there, or take another address in server.listen.",
        )


def localhost(facts: Localhost) -> Iterator[Verdict]:
    """Judge whether `localhost` leads to a server at a loopback address."""
    named = f"localhost:{facts.port}"
    if facts.host not in facts.names:
        told = ", ".join(facts.names) or "nothing"
        yield warn(
            "localhost",
            f"localhost is {told} here, and the server listens at {facts.host}: {named} doesn't lead to it",
            f"Name images {facts.host}:{facts.port}/…, or put `127.0.0.1 localhost` into /etc/hosts.",
        )
    elif facts.other_taken:
        yield warn(
            "localhost",
            f"something else listens at port {facts.port} of the other localhost: some clients meet that one",
            f"Name images {facts.host}:{facts.port}/…, or take another port.",
        )
    else:
        yield ok("localhost", f"{named} leads to {facts.host}")


def machine(facts: Machine) -> Iterator[Verdict]:
    """Judge the limits of the process and the kernel."""
    advice = "Raise it: LimitNOFILE= in a unit, --ulimit nofile= for a container, `ulimit -n`."
    told = f"a process may open {facts.open_files} files and connections"
    if facts.open_files < TOO_FEW_FILES:
        yield fail("limits.files", f"{told}: requests fail when more than that come at once", advice)
    elif facts.open_files < FEW_FILES:
        yield warn("limits.files", told, advice)
    else:
        yield ok("limits.files", told)
    if facts.backlog is not None and facts.backlog < BACKLOG:
        yield warn(
            "limits.backlog",
            f"the kernel lets {facts.backlog} connections wait, and refuses others when many clients come at once",
            f"sysctl net.core.somaxconn={BACKLOG}",
        )
