"""Numbers over all processes."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from roadstead.telemetry.cells import CellFile, read_cells
from roadstead.telemetry.metrics import Metrics, RegistryMetrics, RequestMetrics

_ELSEWHERE = """
import sys
from pathlib import Path
from roadstead.telemetry.metrics import Metrics, RequestMetrics
requests = RequestMetrics(Metrics(Path(sys.argv[1]), "worker-2"))
requests.begin()
requests.observe("/v2/", "GET", 200, 0.002, 0, 2)
requests.begin()
"""


def samples(exposition: bytes) -> dict[str, float]:
    """Read an exposition as Prometheus does: `name{label=value,…}` to number."""
    found = {}
    for family in text_string_to_metric_families(exposition.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_requests_are_counted(tmp_path: Path) -> None:
    """By method, route and class of status; with bytes and a histogram by route."""
    requests = RequestMetrics(Metrics(tmp_path, "worker-1"))

    for status, duration_s in ((200, 0.0005), (206, 0.003), (404, 700.0)):
        requests.begin()
        requests.observe("/v2/{name}/blobs/{digest}", "GET", status, duration_s, 10, 1000)
    requests.begin()

    found = samples(requests.render())
    route = "route=/v2/{name}/blobs/{digest}"
    assert found[f"roadstead_http_requests_total{{method=GET,{route},status=2xx}}"] == 2
    assert found[f"roadstead_http_requests_total{{method=GET,{route},status=4xx}}"] == 1
    assert found[f"roadstead_http_request_bytes_total{{{route}}}"] == 30
    assert found[f"roadstead_http_response_bytes_total{{{route}}}"] == 3000
    duration = "roadstead_http_request_duration_seconds"
    assert found[f"{duration}_bucket{{le=0.0005,{route}}}"] == 1
    assert found[f"{duration}_bucket{{le=0.005,{route}}}"] == 2
    assert found[f"{duration}_bucket{{le=600.0,{route}}}"] == 2
    assert found[f"{duration}_bucket{{le=+Inf,{route}}}"] == 3
    assert found[f"{duration}_count{{{route}}}"] == 3
    assert found[f"{duration}_sum{{{route}}}"] == pytest.approx(700.0035)
    assert found["roadstead_http_requests_in_flight{}"] == 1


def test_all_processes_are_added_up(tmp_path: Path) -> None:
    """Whoever is asked tells the numbers of all, those that have died included; nobody's file is asked for a total."""
    requests = RequestMetrics(Metrics(tmp_path, "worker-1"))
    requests.begin()
    requests.observe("/v2/", "GET", 200, 0.002, 0, 2)

    subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    found = samples(requests.render())
    assert found["roadstead_http_requests_total{method=GET,route=/v2/,status=2xx}"] == 2
    assert found["roadstead_http_request_duration_seconds_count{route=/v2/}"] == 2


def test_the_next_process_goes_on_counting(tmp_path: Path) -> None:
    """No total goes back when a worker is replaced; what the dead one was at isn't in flight any more."""
    before = RequestMetrics(Metrics(tmp_path, "worker-1"))
    before.begin()
    before.observe("/v2/", "GET", 200, 0.002, 0, 2)
    before.begin()

    after = RequestMetrics(Metrics(tmp_path, "worker-1"))
    after.begin()
    after.observe("/v2/", "GET", 200, 0.002, 0, 2)

    found = samples(after.render())
    assert found["roadstead_http_requests_total{method=GET,route=/v2/,status=2xx}"] == 2
    assert found["roadstead_http_requests_in_flight{}"] == 0


def test_processes_are_told_apart(tmp_path: Path) -> None:
    """Memory, processor time and descriptors are told of each process that lives."""
    metrics = Metrics(tmp_path, "background")

    found = samples(metrics.render())

    assert found["roadstead_process_resident_memory_bytes{process=background}"] > 1 << 20
    assert found["roadstead_process_open_fds{process=background}"] > 2
    assert found["roadstead_process_cpu_seconds_total{process=background}"] > 0
    assert found["roadstead_process_start_time_seconds{process=background}"] > 1_600_000_000


def test_what_happens_in_the_registry_is_counted(tmp_path: Path) -> None:
    """Counters are there from the start, at nought."""
    metrics = Metrics(tmp_path, "worker-1")
    registry = RegistryMetrics(metrics)

    registry.blobs_stored.add()
    registry.blob_bytes_stored.add(1 << 33)

    found = samples(metrics.render())
    assert found["roadstead_blobs_total{event=stored}"] == 1
    assert found["roadstead_blobs_total{event=deleted}"] == 0
    assert found["roadstead_blob_bytes_total{}"] == 1 << 33


def test_invented_methods_make_no_series(tmp_path: Path) -> None:
    """A client can't fill the memory of Prometheus with methods of its own."""
    requests = RequestMetrics(Metrics(tmp_path, "worker-1"))
    for number in range(50):
        requests.begin()
        requests.observe("unknown", f"X{number}", 405, 0.001, 0, 0)

    found = samples(requests.render())

    assert found["roadstead_http_requests_total{method=other,route=unknown,status=4xx}"] == 50


def test_invented_methods_take_no_memory(tmp_path: Path) -> None:
    """They may be as long as headers, and none comes twice."""
    requests = RequestMetrics(Metrics(tmp_path, "worker-1"))
    requests.observe("unknown", "X", 405, 0.001, 0, 0)
    tracemalloc.start()
    for number in range(50):
        requests.observe("unknown", f"{number}{'X' * 100_000}", 405, 0.001, 0, 0)
    took, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert took < 1_000_000


def test_labels_are_checked(tmp_path: Path) -> None:
    """A counter with the wrong number of labels is a mistake that shows at the start."""
    with pytest.raises(ValueError, match="has the labels"):
        Metrics(tmp_path, "worker-1").counter("roadstead_blobs_total")


def test_a_full_file_ends_nothing(tmp_path: Path) -> None:
    """When there is no room for more cells, counting goes on into cells that nobody reads."""
    file = CellFile(tmp_path, "worker-1")
    places = [file.place(f"key {number}", 60) for number in range(3000)]
    for place in places:
        file.cells[place] += 1

    [process] = read_cells(tmp_path)

    assert 1000 < len(process.cells) < 3000
    assert {cells[0] for cells in process.cells.values()} == {1.0}
    assert process.pid == os.getpid()
