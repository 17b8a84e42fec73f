"""Numbers for Prometheus, over all processes of one server.

The library's own way to count over several processes costs 10 µs and more a request; ours is in ``cells.py``. The
library still writes the exposition: we are one of its collectors.
"""

import json
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from roadstead.telemetry.cells import CellFile, ProcessCells, read_cells

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
"""Upper bounds in seconds: from a manifest out of memory to a layer over a slow line."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUESTS: Final = "roadstead_http_requests_total"
_DURATION: Final = "roadstead_http_request_duration_seconds"
_RECEIVED: Final = "roadstead_http_request_bytes_total"
_SENT: Final = "roadstead_http_response_bytes_total"
_EVENTS: Final = "registry_notifications_events_total"
_EVENTS_PENDING: Final = "registry_notifications_pending_total"
_EVENTS_STATUS: Final = "registry_notifications_status_total"
_IN_FLIGHT: Final = "roadstead_http_requests_in_flight"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: what it tells, in which form, and by which labels."""

    about: str
    kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    labels: tuple[str, ...] = ()


FAMILIES: Final[Mapping[str, Family]] = {
    _REQUESTS: Family("Requests answered.", CounterMetricFamily, ("method", "route", "status")),
    _DURATION: Family("From the request's head to the end of its answer.", HistogramMetricFamily, ("route",)),
    _RECEIVED: Family("Bytes of requests' bodies.", CounterMetricFamily, ("route",)),
    _SENT: Family("Bytes of answers' bodies.", CounterMetricFamily, ("route",)),
    _IN_FLIGHT: Family("Requests being answered now.", GaugeMetricFamily),
    "roadstead_uploads_cancelled_total": Family(
        "Uploads that ended without a blob: cancelled, broken off, or too old.", CounterMetricFamily
    ),
    "roadstead_blobs_total": Family("What happened to blobs.", CounterMetricFamily, ("event",)),
    "roadstead_blob_bytes_total": Family("Bytes of blobs that were stored.", CounterMetricFamily),
    "roadstead_manifests_total": Family("What happened to manifests.", CounterMetricFamily, ("event",)),
    "roadstead_upstream_asked_total": Family(
        "What was asked of upstreams: where a `tag` is, a `manifest`, the size of a `blob` that isn't here, a `list`.",
        CounterMetricFamily,
        ("host", "kind"),
    ),
    "roadstead_upstream_bytes_total": Family(
        "Bytes of blobs that came from upstreams.", CounterMetricFamily, ("host",)
    ),
    "roadstead_upstream_stale_total": Family(
        "Pulls of tags that were answered as they were known, since the upstream couldn't be asked.",
        CounterMetricFamily,
        ("host",),
    ),
    _EVENTS: Family(
        "Events by endpoint: `Events` taken up for delivery, `Successes`, `Failures` (refused), `Errors` (not "
        "answered), as Docker's registry counts them.",
        CounterMetricFamily,
        ("type", "endpoint"),
    ),
    _EVENTS_PENDING: Family(
        "Events that wait now; told by the replica that delivers.", GaugeMetricFamily, ("endpoint",)
    ),
    _EVENTS_STATUS: Family("Answers of receivers, `200 OK`.", CounterMetricFamily, ("code", "endpoint")),
    "roadstead_events_given_up_total": Family(
        "Events given up after `max_attempts`.", CounterMetricFamily, ("endpoint",)
    ),
    "roadstead_events_pulls_dropped_total": Family(
        "Pulls that an endpoint isn't told of: more came than could be noted.", CounterMetricFamily, ("endpoint",)
    ),
}
"""Every metric that can be counted; ``docs/reference/metrics.md`` is generated from it."""

PROCESS_FAMILIES: Final[Mapping[str, str]] = {
    "roadstead_process_cpu_seconds_total": "Processor time, user and system.",
    "roadstead_process_resident_memory_bytes": "Memory that is resident.",
    "roadstead_process_open_fds": "Open file descriptors.",
    "roadstead_process_start_time_seconds": "When the process started, seconds since 1970.",
}
"""What is read of each process, with the label ``process``."""


class Counter:
    """One number that goes up (or, of a gauge, also down); half a microsecond a call."""

    __slots__ = ("_cells", "_place")

    def __init__(self, cells: "memoryview[float]", place: int) -> None:
        self._cells = cells
        self._place = place

    def add(self, amount: float = 1.0) -> None:
        """Count `amount` more."""
        self._cells[self._place] += amount


class Metrics:
    """The numbers of this process, named ``worker-1`` or ``background``; ``directory`` is shared by the server's."""

    def __init__(self, directory: Path, process: str) -> None:
        self._directory = directory
        self._file = CellFile(directory, process)

    @property
    def cells(self) -> "memoryview[float]":
        """Return the cells to count in."""
        return self._file.cells

    def place(self, name: str, *labels: str, width: int = 1) -> int:
        """Return the position of the cells of a metric of FAMILIES with these label values, in their order."""
        if len(labels) != len(FAMILIES[name].labels):
            raise ValueError(f"{name} has the labels {FAMILIES[name].labels}, got {labels}")
        return self._file.place(json.dumps([name, *labels]), width)

    def counter(self, name: str, *labels: str) -> Counter:
        """Return the counter of a metric of FAMILIES with these label values."""
        return Counter(self.cells, self.place(name, *labels))

    def render(self) -> bytes:
        """Return the exposition (text format 0.0.4) of all processes, those that died included; some milliseconds."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_AllProcesses(self._directory))
        return generate_latest(registry)


class RequestMetrics:
    """Counts requests: one ``begin`` and one ``observe`` each."""

    CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._cells = metrics.cells
        self._routes: dict[str, int] = {}
        self._answers: dict[tuple[str, str, int], int] = {}
        self._in_flight = metrics.place(_IN_FLIGHT)
        self._cells[self._in_flight] = 0.0  # what a process that died was at is over

    def begin(self) -> None:
        """Count a request that has come in."""
        self._cells[self._in_flight] += 1.0

    def observe(self, route: str, method: str, status: int, duration_s: float, bytes_in: int, bytes_out: int) -> None:
        """Count a request that has ended. `route` is the endpoint's name in the table, never the path."""
        cells = self._cells
        cells[self._in_flight] -= 1.0
        answer = self._answers.get((route, method, status))
        if answer is None:
            answer = self._answer(route, method, status)
        cells[answer] += 1.0
        place = self._routes.get(route)
        if place is None:
            place = self._route(route)
        cells[place] += bytes_in
        cells[place + 1] += bytes_out
        cells[place + 2] += duration_s
        cells[place + 3 + bisect_left(BUCKETS, duration_s)] += 1.0

    def render(self) -> bytes:
        """Return the answer of ``/metrics``."""
        return self._metrics.render()

    def _answer(self, route: str, method: str, status: int) -> int:
        place = self._metrics.place(
            _REQUESTS, method if method in _METHODS else "other", route, f"{min(max(status // 100, 1), 5)}xx"
        )
        if method in _METHODS:  # others are the client's to invent, of any length and number
            self._answers[route, method, status] = place
        return place

    def _route(self, route: str) -> int:
        place = self._routes[route] = self._metrics.place(_DURATION, route, width=len(BUCKETS) + 4)
        return place


class RegistryMetrics:
    """Counts what happens in the registry."""

    def __init__(self, metrics: Metrics) -> None:
        self.uploads_cancelled = metrics.counter("roadstead_uploads_cancelled_total")
        self.blobs_stored = metrics.counter("roadstead_blobs_total", "stored")
        self.blobs_mounted = metrics.counter("roadstead_blobs_total", "mounted")
        self.blobs_deleted = metrics.counter("roadstead_blobs_total", "deleted")
        self.blob_bytes_stored = metrics.counter("roadstead_blob_bytes_total")
        self.manifests_stored = metrics.counter("roadstead_manifests_total", "stored")
        self.manifests_deleted = metrics.counter("roadstead_manifests_total", "deleted")
        self.manifests_derived = metrics.counter("roadstead_manifests_total", "derived")


class UpstreamMetrics:
    """Counts what becomes of pulls from upstreams; their hosts are as many as the settings name."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def asked(self, host: str, kind: str) -> None:
        """Count something that was asked of the upstream."""
        self._metrics.counter("roadstead_upstream_asked_total", host, kind).add()

    def stale(self, host: str) -> None:
        """Count a tag that was served as it was."""
        self._metrics.counter("roadstead_upstream_stale_total", host).add()

    def received(self, host: str, size: int) -> None:
        """Count bytes of blobs that came."""
        self._metrics.counter("roadstead_upstream_bytes_total", host).add(size)


class EventMetrics:
    """Counts what becomes of events; answers beyond those that HTTP names don't make numbers without end."""

    _MAX_ANSWERS: Final = 100

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._answers: set[tuple[str, str]] = set()

    def taken_up(self, endpoint: str, events: int) -> None:
        """Count events that are tried for the first time."""
        self._metrics.counter(_EVENTS, "Events", endpoint).add(events)

    def delivered(self, endpoint: str, answer: str, events: int) -> None:
        """Count events that were delivered with one request."""
        self._metrics.counter(_EVENTS, "Successes", endpoint).add(events)
        self._answered(endpoint, answer)

    def failed(self, endpoint: str, answer: str | None) -> None:
        """Count an attempt that failed: refused with that answer, or not answered at all."""
        self._metrics.counter(_EVENTS, "Errors" if answer is None else "Failures", endpoint).add()
        if answer is not None:
            self._answered(endpoint, answer)

    def buried(self, endpoint: str) -> None:
        """Count an event that was given up."""
        self._metrics.counter("roadstead_events_given_up_total", endpoint).add()

    def pending(self, endpoint: str, count: int) -> None:
        """Tell how many events wait now."""
        self._metrics.cells[self._metrics.place(_EVENTS_PENDING, endpoint)] = float(count)

    def dropped(self, endpoint: str) -> None:
        """Count a pull that the endpoint doesn't hear of."""
        self._metrics.counter("roadstead_events_pulls_dropped_total", endpoint).add()

    def _answered(self, endpoint: str, answer: str) -> None:
        status, _, reason = answer.partition(" ")
        code = f"{status} {reason[:40]}".strip()  # the receiver's own words: bounded in length and number
        if (code, endpoint) not in self._answers and len(self._answers) >= self._MAX_ANSWERS:
            code = status
        self._answers.add((code, endpoint))
        self._metrics.counter(_EVENTS_STATUS, code, endpoint).add()


class _AllProcesses(Collector):
    """Adds up the cells of all processes and reads what the kernel knows of those that live."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        processes = list(read_cells(self._directory))
        totals: defaultdict[str, dict[tuple[str, ...], list[float]]] = defaultdict(dict)
        for process in processes:
            for key, values in process.cells.items():
                name, *labels = json.loads(key)
                total = totals[name].setdefault(tuple(labels), [0.0] * len(values))
                totals[name][tuple(labels)] = [a + b for a, b in zip(total, values, strict=True)]
        yield from _families(totals)
        yield from _process_families(processes)


def _families(totals: Mapping[str, Mapping[tuple[str, ...], Sequence[float]]]) -> Iterator[Metric]:
    routes = totals.get(_DURATION, {})
    derived = {
        **totals,
        _RECEIVED: {labels: cells[:1] for labels, cells in routes.items()},
        _SENT: {labels: cells[1:2] for labels, cells in routes.items()},
        _DURATION: {labels: cells[2:] for labels, cells in routes.items()},
    }
    for name, family in FAMILIES.items():
        metric = family.kind(name, family.about, labels=family.labels)
        for labels, cells in sorted(derived.get(name, {}).items()):
            if isinstance(metric, HistogramMetricFamily):
                metric.add_metric(labels, _cumulative(cells[1:]), sum_value=cells[0])
            else:
                metric.add_metric(labels, cells[0])
        yield metric


def _cumulative(counts: Sequence[float]) -> list[tuple[str, float]]:
    total = 0.0
    buckets = []
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _process_families(processes: Iterable[ProcessCells]) -> Iterator[Metric]:
    facts = {process.name: fact for process in processes if (fact := _process_facts(process.pid)) is not None}
    for position, (name, about) in enumerate(PROCESS_FAMILIES.items()):
        kind: Callable[..., CounterMetricFamily | GaugeMetricFamily] = (
            CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        )
        metric = kind(name, about, labels=("process",))
        for process, fact in facts.items():
            metric.add_metric((process,), fact[position])
        yield metric


def _process_facts(pid: int) -> tuple[float, float, float, float] | None:
    """Return processor seconds, resident bytes, open descriptors and start time (proc(5)); None once it is gone."""
    root = Path("/proc") / str(pid)
    try:
        fields = (root / "stat").read_text().rpartition(")")[2].split()
        descriptors = len(os.listdir(root / "fd"))  # noqa: PTH208 - counted only
        boot = next(
            float(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime ")
        )
    except (OSError, StopIteration):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    # stat's fields 14, 15 (utime, stime), 22 (starttime), 24 (rss in pages); the list here begins with field 3.
    return (
        (int(fields[11]) + int(fields[12])) / ticks,
        float(int(fields[21]) * os.sysconf("SC_PAGE_SIZE")),
        float(descriptors),
        boot + int(fields[19]) / ticks,
    )
