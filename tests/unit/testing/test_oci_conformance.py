"""What the specification's conformance program reports is read whole: nothing it didn't like is passed over."""

from pathlib import Path

import pytest

from roadstead.testing.oci_conformance import read_report

# As the program writes them: more checks than cases, for a case may have several, and no attribute for a count of none.
JUNIT = """\
<testsuites tests="9"><testsuite name="OCI Conformance Test" tests="9" failures="1" errors="1" skipped="2" disabled="1">
<properties><property name="Config" value="registry: 127.0.0.1"></property></properties>
<testcase name="OCI Conformance Test/ping" status="passed"></testcase>
<testcase name="OCI Conformance Test/image/delete/blob-delete" status="passed"></testcase>
<testcase name="OCI Conformance Test/image/delete/blob-delete" status="passed"></testcase>
<testcase name="OCI Conformance Test/image/delete/tag-delete" status="skipped"></testcase>
<testcase name="OCI Conformance Test/image/push/tag" status="failure"><system-out>received 500 </system-out></testcase>
<testcase name="OCI Conformance Test/index" status="error"></testcase>
</testsuite></testsuites>
"""
RESULTS = """\
config:
  cacheAuth: false
  apis:
    ping: true
    blobs:
      atomic: {switch}
  data:
    image: true
apis: {{}}
"""


@pytest.mark.parametrize(("switch", "switched_off"), [("true", set()), ("false", {"apis.blobs.atomic"})])
def test_failures_skips_and_switches_are_told_by_name(tmp_path: Path, switch: str, switched_off: set[str]) -> None:
    """The counts are the program's own; an error is a failure, and what was switched off is no pass."""
    (tmp_path / "junit.xml").write_text(JUNIT)
    (tmp_path / "results.yaml").write_text(RESULTS.format(switch=switch))

    report = read_report(tmp_path, status=1)

    assert report.failed == {"image/push/tag": "failure: received 500", "index": "error: "}
    assert report.skipped == {"image/delete/tag-delete"}
    assert report.switched_off == switched_off
    assert report.counts == {"pass": 4, "fail": 2, "skip": 3}
    assert str(report) == "4 pass, 2 fail, 3 skip"
    assert report.status == 1
