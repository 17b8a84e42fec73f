"""Every row that is measured: who is asked what, and what we hold ourselves to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contents import Road
from benchmarks.fill import SUBJECT
from benchmarks.measures import (
    Measure,
    Way,
    collected_images,
    first_pull,
    large_blob,
    large_push,
    listing,
    manifest_by_rule,
    manifests,
    manifests_signed_in,
    manifests_told,
    patience,
    pull,
    pulled_through,
    sha256,
    small_blobs,
    small_images,
    start,
    worker_memory,
)

REGISTRIES = ("Roadstead", "D2", "D3")

_OF_LITTLE = 9
"""Rounds of rows that tell a tenth of a request: pairs of rounds differ by as much."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the first column's figure has to be, in units of another's (the worst of several); absolute without one.

    `most`: a ratio to stay below, for what is better when it is less; otherwise one to reach.
    """

    hold: float
    want: float
    against: tuple[str, ...] = ()
    most: bool = False
    of_cpu: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the first column is ours, the others are measured beside it, by turns."""

    name: str
    about: str
    columns: Mapping[str, Measure]
    goals: Sequence[Goal] = ()
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one unit, in one table. `cpu` is the unit of processor time, and what a second of it is in that."""

    title: str
    unit: str
    rows: Sequence[Row]
    cpu: tuple[str, float] | None = None


def _times(hold: float, want: float, *against: str) -> Goal:
    return Goal(hold, want, against)


def _at_most(hold: float, want: float, *against: str, of_cpu: bool = False) -> Goal:
    return Goal(hold, want, against, most=True, of_cpu=of_cpu)


def _manifests(name: str, about: str, by: str, method: str = "GET") -> Row:
    columns = {server: manifests(server, by=by, method=method) for server in (*REGISTRIES, "bare")}
    return Row(name, about, columns, (_times(8, 12, "D2"), _times(1.5, 3, "D3")))


def _page(name: str, about: str, target: str) -> Row:
    columns = {"many": listing("many", target), "a hundred": listing("few", target)}
    return Row(name, about, columns, (_at_most(2, 1.2, "a hundred"),))


def _images(name: str, about: str, road: Road, *, all_there: bool = False) -> Row:
    columns = {server: small_images(server, road=road, all_there=all_there) for server in REGISTRIES}
    return Row(name, about, columns, (_times(2, 4, "D3"),), rounds=3)


def _proxied(name: str, about: str, goal: Goal, *, warm: bool, clients: int = 1) -> Row:
    columns = {server: pulled_through(f"{server}-proxy", warm=warm, clients=clients) for server in REGISTRIES}
    return Row(name, about, columns, (goal,), rounds=5)


def _push(name: str, about: str, layers: int, road: Road) -> Row:
    columns: dict[str, Measure] = {
        server: large_push(server, layers=layers, road=road) for server in (*REGISTRIES, "bare")
    }
    columns["SHA-256"] = sha256
    return Row(name, about, columns, (_times(1, 1.5, "D3"), _times(0.8, 0.8, "bare", "SHA-256")), rounds=3)


GROUPS: Sequence[Group] = (
    Group(
        "Small answers, 16 clients",
        "requests/s",
        (
            _manifests("manifest-get-tag", "manifest GET by tag", "tag"),
            _manifests("manifest-get-digest", "manifest GET by digest", "digest"),
            _manifests("manifest-head-tag", "manifest HEAD by tag", "tag", "HEAD"),
            _manifests("manifest-head-digest", "manifest HEAD by digest", "digest", "HEAD"),
            Row(
                "manifest-postgresql",
                "manifest GET by tag, facts in PostgreSQL",
                {"Roadstead": manifests("PostgreSQL", by="tag"), "D2": manifests("D2", by="tag")},
                (_times(4, 8, "D2"),),
            ),
            Row(
                "blob-get-small",
                "64 KiB blob GET",
                {server: small_blobs(server) for server in (*REGISTRIES, "bare", "nginx")},
                (_times(15, 20, "D2"), _times(5, 8, "D3")),
            ),
        ),
        ("µs", 1e6),
    ),
    Group(
        "Large blobs",
        "MiB/s",
        (
            Row(
                "blob-get-large",
                "256 MiB blob GET, one stream",
                {server: large_blob(server, streams=1) for server in (*REGISTRIES, "bare", "nginx")},
                (_times(0.7, 1, "D3"), _at_most(1.5, 1.5, "D3", of_cpu=True)),
            ),
            Row(
                "blob-get-large-16",
                "256 MiB blob GET, sixteen streams",
                {server: large_blob(server, streams=16) for server in (*REGISTRIES, "bare", "nginx")},
                (_times(0.8, 1, "D3"), _at_most(1.5, 1.5, "D3", of_cpu=True)),
                rounds=3,
            ),
            *(
                Row(
                    f"blob-get-offloaded-{streams}",
                    f"256 MiB blob GET by nginx, {about}",
                    {
                        server: large_blob(server, streams=streams, times=16 // streams)
                        for server in ("nginx-offload", "nginx")
                    },
                    (_times(0.9, 1, "nginx"),),
                    rounds=5,
                )
                for streams, about in ((1, "one stream"), (16, "sixteen streams"))
            ),
            _push("push-large", "256 MiB push, one stream, PATCH and PUT (docker)", 1, Road.PATCH),
            _push("push-large-put", "256 MiB push, one stream, one PUT (containerd)", 1, Road.PUT),
            _push("push-layers", "five layers of 64 MiB at once, PATCH and PUT", 5, Road.PATCH),
        ),
        ("s/GiB", 1.0),
    ),
    Group(
        "Small images, 8 at a time",
        "images/s",
        (
            _images("push-images", "200 images of a config and 2 layers of 8 KiB, PATCH and PUT", Road.PATCH),
            _images("push-images-put", "the same, one PUT a blob (containerd)", Road.PUT),
            _images("push-images-again", "the same images when all blobs are there", Road.PATCH, all_there=True),
        ),
        ("ms", 1e3),
    ),
    Group(
        "Listings, one client, among many against among 100",
        "ms",
        (
            _page("tags", "`tags/list?n=100`, 100,000 tags", "/v2/listed/tags/tags/list?n=100"),
            _page("catalog", "`_catalog?n=100`, 100,000 repositories", "/v2/_catalog?n=100"),
            _page("referrers", "100 of 10,000 referrers", f"/v2/listed/subject/referrers/{SUBJECT}?n=100"),
        ),
    ),
    Group(
        "Images of another registry, pulled through",
        "MiB/s",
        (
            # What arrives is written and hashed twice before anybody has the end of it (docs/decisions/0027).
            _proxied(
                "proxy-cold", "64 MiB in four layers, new to the cache, one client", _times(0.5, 1, "D2"), warm=False
            ),
            _proxied("proxy-cold-8", "the same, eight clients at once", _times(1, 3, "D2"), warm=False, clients=8),
            _proxied("proxy-warm", "the same once it is there, one client", _times(1, 1.5, "D2"), warm=True),
        ),
        ("s/GiB", 1.0),
    ),
    Group(
        "Augmented pulls against plain ones",
        "ms",
        (
            Row(
                "first-augmentation",
                "first manifest GET of an image of three layers",
                {"augmented": first_pull("augmented/first"), "plain": first_pull("plain/first")},
            ),
            Row(
                "augmented-pull",
                "image of three layers of 1 MiB, one client",
                {"augmented": pull("augmented/app"), "plain": pull("plain/app")},
                (_at_most(1.1, 1, "plain"),),
            ),
        ),
    ),
    Group(
        "Manifests that a rule matches, 16 clients",
        "requests/s",
        (
            Row(
                "augmented-manifest",
                "manifest GET by tag",
                {"augmented": manifest_by_rule("augmented/app"), "plain": manifest_by_rule("plain/app")},
                (_times(1 / 1.1, 1, "plain"),),
            ),
        ),
        ("µs", 1e6),
    ),
    Group(
        "Manifest GET by tag with more to see to, 16 clients",
        "requests/s",
        (
            *(
                Row(
                    f"access-{way.name.lower()}",
                    f"signed in with {way.value}, against nobody in particular",
                    {"with": manifests_signed_in(way), "without": manifests_signed_in(None)},
                    (_at_most(1.25, 1.1, "without", of_cpu=True),),
                    rounds=_OF_LITTLE,
                )
                for way in Way
            ),
            Row(
                "limits",
                "limits that aren't reached",
                {"with": manifests("limited", by="tag"), "without": manifests("Roadstead", by="tag")},
                (_at_most(1.25, 1.1, "without", of_cpu=True),),
                rounds=_OF_LITTLE,
            ),
            Row(
                "pull-events",
                "each pull is told of; processor time of the workers",
                {"with": manifests_told("telling"), "without": manifests_told("Roadstead")},
                (_at_most(1.05, 1, "without", of_cpu=True),),
                rounds=_OF_LITTLE,
            ),
        ),
        ("µs", 1e6),
    ),
    Group(
        "Manifest GET while 4 pushes run, 16 clients",
        "ms",
        tuple(
            Row(
                f"patience-{server.lower()}",
                server,
                {"p99 while pushing": patience(server, pushes=4), "p50 idle": patience(server, pushes=0)},
                (_at_most(5, 3, "p50 idle"),) if server == "Roadstead" else (),
            )
            for server in REGISTRIES
        ),
    ),
    Group(
        "Small images while a million blobs are collected, 8 at a time",
        "images/s",
        (
            Row(
                "collected-images",
                "200 images of a config and 2 layers of 8 KiB, one PUT a blob",
                {"collecting": collected_images(collecting=True), "at rest": collected_images(collecting=False)},
                (_times(0.5, 0.8, "at rest"),),
                rounds=5,
            ),
        ),
    ),
    Group(
        "Start to first answer",
        "s",
        (Row("start", "over an empty directory", {s: start(s) for s in REGISTRIES}, (_at_most(1.5, 0.7),)),),
    ),
    Group(
        "Memory of a worker",
        "MiB",
        (
            Row(
                "memory",
                "resident, after 20 small pushes and 1 s of manifests",
                {server: worker_memory(server) for server in REGISTRIES},
                (_at_most(100, 60),),
                rounds=2,
            ),
        ),
    ),
)
