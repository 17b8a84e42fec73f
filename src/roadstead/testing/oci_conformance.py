"""The OCI distribution specification's own conformance programs, run against a registry that tests started.

There are two, neither ours, and nothing of them is kept here. The *suite* of 1.1 is built from the newest version of
its Go module that the module proxy gives. The *program* that has replaced it since (more checks, 1.1 and dev) is in no
package registry: it is looked for on the path as ``oci-conformance``. Their switches are environment variables; all
are on.
"""

import os
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from roadstead.testing.components import require
from roadstead.testing.go_clients import GoClient, find_or_build

PROGRAM: Final = "oci-conformance"
INSTALL: Final = (
    f"the program in conformance/ of github.com/opencontainers/distribution-spec, put on the path as {PROGRAM}"
)
TIMEOUT: Final = timedelta(minutes=5)

_SUITE_VERSION: Final = "v0.0.0-20231101194043-f2182352d4cc"
_SUITE_MODULE: Final = "github.com/opencontainers/distribution-spec/conformance"
SUITE: Final = GoClient(
    "oci-suite",
    _SUITE_MODULE,
    "",
    _SUITE_VERSION,
    is_test=True,
    # Taken over files equal to those of the specification's repository at that commit.
    sums=(
        f"{_SUITE_MODULE} {_SUITE_VERSION} h1:jL+CgYEEZluGb08ZcLpEyhn389kNMlwrWOHaIqXazq0=",
        f"{_SUITE_MODULE} {_SUITE_VERSION}/go.mod h1:odnkI+gfnNSdq8NaG/nKvENDEWkXAjjbgp8GKMllVSI=",
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
_SUITE_ROOT: Final = "[It] OCI Distribution Conformance Tests "


@dataclass(frozen=True, slots=True)
class Report:
    """What one run found, by the names of its tests; one name may stand for several requests of its kind."""

    passed: Counter[str]
    skipped: Counter[str]  # the registry answered that it can't; switched off counts too
    failed: Mapping[str, str]  # with what was wrong
    status: int  # the program's exit status: 0 where nothing failed
    printed: str

    def __str__(self) -> str:
        return f"{self.passed.total()} pass, {len(self.failed)} fail, {self.skipped.total()} skip"


def run_conformance(host: str, *, version: str, results: Path, timeout: timedelta = TIMEOUT) -> Report:
    """Run the program against the registry at *host*, ``127.0.0.1:PORT``, without TLS; *version* is ``1.1`` or ``dev``.

    Its own reports stay in *results*. Raises ComponentMissingError.
    """
    results.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [require(PROGRAM, install=INSTALL)],
        cwd=results,  # it reads a configuration file where it runs
        env=_environment(host, version, results),
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout.total_seconds(),
    )
    return _read(results / "junit.xml", done)


def run_suite(url: str, *, results: Path, timeout: timedelta = TIMEOUT) -> Report:
    """Run the suite of 1.1 against the registry at *url*, every workflow on; ComponentMissingError.

    Its own reports stay in *results*.
    """
    results.mkdir(parents=True, exist_ok=True)
    workflows = ("PULL", "PUSH", "CONTENT_DISCOVERY", "CONTENT_MANAGEMENT")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OCI_")},
        **{f"OCI_TEST_{name}": "true" for name in workflows},
        "OCI_ROOT_URL": url,
        "OCI_NAMESPACE": "conformance/suite/one",
        "OCI_CROSSMOUNT_NAMESPACE": "conformance/suite/two",
        "OCI_AUTOMATIC_CROSSMOUNT": "true",
        "OCI_REPORT_DIR": str(results),
    }
    done = subprocess.run(
        [find_or_build(SUITE)],
        cwd=results,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout.total_seconds(),
    )
    return _read(results / "junit.xml", done, _SUITE_ROOT)


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


def _read(path: Path, done: subprocess.CompletedProcess[str], root: str = _ROOT) -> Report:
    """Read the report for JUnit, whose cases are the leaves of the program's tree."""
    if not path.exists():
        raise AssertionError(f"there is no report:\n{done.stdout}")
    named: dict[str, Counter[str]] = {"passed": Counter(), "skipped": Counter()}
    failed: dict[str, str] = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 -- written by the program that we ran
        name = case.get("name", "").removeprefix(root)
        status = case.get("status", "")
        if status in named:
            named[status][name] += 1
        else:
            failed[name] = f"{status}: {case.findtext('system-out', '').strip()}"
    return Report(named["passed"], named["skipped"], failed, done.returncode, done.stdout)
