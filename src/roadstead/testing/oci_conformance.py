"""The OCI distribution specification's own conformance program, run against a registry that tests started.

It is built from its Go module, and nothing of it is kept here. Its switches are environment variables; all are on. The
version that it is asked about, 1.1 or dev, is its default for switches that nobody sets.
"""

import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from roadstead.testing.go_clients import GoClient, find_or_build

TIMEOUT: Final = timedelta(minutes=5)

_MODULE: Final = "github.com/opencontainers/distribution-spec/conformance"
_VERSION: Final = "v0.0.0-20260831232431-97274622c111"
PROGRAM: Final = GoClient(
    "oci-conformance",
    _MODULE,
    "",
    _VERSION,
    # What judges us stays what was read when it was pinned.
    sums=(
        f"{_MODULE} {_VERSION} h1:ppZPU0CrEPzyJhVggYwUIZrqh0w2lIT0esw+9ABNPA4=",
        f"{_MODULE} {_VERSION}/go.mod h1:3VJqdDrgz3dFdGbErNWoChcfbGpHDllEHdwJ4yi6rJk=",
    ),
)

_API: Final = (
    "PING",
    "PULL",
    "PUSH",
    "BLOBS_ATOMIC",
    "BLOBS_DELETE",
    "BLOBS_DIGEST_HEADER",
    "BLOBS_MOUNT_ANONYMOUS",
    "BLOBS_UPLOAD_CANCEL",
    "MANIFESTS_ATOMIC",
    "MANIFESTS_DELETE",
    "MANIFESTS_DIGEST_HEADER",
    "MANIFESTS_TAG_PARAM",
    "TAGS_ATOMIC",
    "TAGS_DELETE",
    "TAGS_LIST",
    "REFERRER",
)
_DATA: Final = (
    "IMAGE",
    "INDEX",
    "INDEX_LIST",
    "SPARSE",
    "ARTIFACT",
    "SUBJECT",
    "SUBJECT_MISSING",
    "ARTIFACT_LIST",
    "SUBJECT_LIST",
    "DATA_FIELD",
    "NONDISTRIBUTABLE",
    "CUSTOM_FIELDS",
    "NO_LAYERS",
    "EMPTY_BLOB",
    "SHA512",
)
_ROOT: Final = "OCI Conformance Test/"


@dataclass(frozen=True, slots=True)
class Report:
    """What one run found, by the names of its tests; one name may stand for several requests of its kind."""

    counts: Mapping[str, int]  # ``pass``, ``fail``, ``skip``: the program's own, more than one for some tests
    failed: Mapping[str, str]  # with what was wrong
    skipped: frozenset[str]  # the registry answered that it can't
    switched_off: frozenset[str]  # as the program's report names its switches: ``apis.blobs.delete``
    status: int  # the program's exit status: 0 where nothing failed

    def __str__(self) -> str:
        return ", ".join(f"{number} {outcome}" for outcome, number in self.counts.items())


def run_conformance(host: str, *, version: str, results: Path, timeout: timedelta = TIMEOUT) -> Report:
    """Run the program against the registry at *host*, ``127.0.0.1:PORT``, without TLS; *version* is ``1.1`` or ``dev``.

    Its own reports stay in *results*. Raises ComponentMissingError.
    """
    results.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [find_or_build(PROGRAM)],
        cwd=results,  # it reads a configuration file where it runs
        env=_environment(host, version, results),
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout.total_seconds(),
    )
    # It ends with status 0, and no report, where it couldn't even begin.
    if not (results / "junit.xml").exists():
        raise AssertionError(f"there is no report:\n{done.stdout}")
    return read_report(results, status=done.returncode)


def read_report(results: Path, *, status: int) -> Report:
    """Read ``junit.xml``, whose cases are the leaves of the program's tree, and the switches in ``results.yaml``."""
    suite = ET.parse(results / "junit.xml").getroot()[0]  # noqa: S314 -- written by the program that we ran
    config = yaml.safe_load((results / "results.yaml").read_text())["config"]
    ended: dict[str, dict[str, str]] = {"passed": {}, "skipped": {}, "failed": {}}
    for case in suite.iter("testcase"):
        name = case.get("name", "").removeprefix(_ROOT)
        outcome = case.get("status", "")  # failures and errors have words of their own
        ended.get(outcome, ended["failed"])[name] = f"{outcome}: {case.findtext('system-out', '').strip()}"
    counted = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped", "disabled")}
    failures = counted["failures"] + counted["errors"]
    skips = counted["skipped"] + counted["disabled"]
    return Report(
        counts={"pass": counted["tests"] - failures - skips, "fail": failures, "skip": skips},
        failed=ended["failed"],
        skipped=frozenset(ended["skipped"]),
        switched_off=frozenset(_switched_off({"apis": config["apis"], "data": config["data"]})),
        status=status,
    )


def _environment(host: str, version: str, results: Path) -> Mapping[str, str]:
    switches = [f"API_{name}" for name in _API] + [f"DATA_{name}" for name in _DATA]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OCI_")},
        **{f"OCI_{name}": "true" for name in switches},
        "OCI_REGISTRY": host,
        "OCI_TLS": "disabled",
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(results),
        "OCI_REPO1": f"conformance/{version}/one",
        "OCI_REPO2": f"conformance/{version}/two",
    }


def _switched_off(switches: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in switches.items():
        if isinstance(value, Mapping):
            yield from _switched_off(value, f"{above}{name}.")
        elif value is not True:
            yield f"{above}{name}"
