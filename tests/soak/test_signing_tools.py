"""What cosign and notation themselves make is accepted, and what is made here they accept."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roadstead.cli.main import app
from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import MANIFESTS
from roadstead.testing.client import Client
from roadstead.testing.go_clients import COSIGN, NOTATION, find_or_build
from roadstead.testing.images import TestImage, make_image
from roadstead.testing.server import RoadsteadServer

ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS))}
CONFIG = """
[signatures]
key = "${file:ours.key}"
[[signatures.policies]]
match = ["signed/**"]
keys = ["cosign.pub"]
[[signatures.policies]]
match = ["notation/**"]
kind = "notation"
keys = ["notation.crt"]
[[augment.rules]]
match = "team/*:added"
env = ["ADDED=yes"]
"""


class Tools:
    """Both programs, at home in a directory of the test's own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cosign, self.notation = find_or_build(COSIGN), find_or_build(NOTATION)

    def run(self, program: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one of them; its answer is the caller's to judge."""
        own = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home), "COSIGN_PASSWORD": ""}
        return subprocess.run(
            [program, *arguments],
            cwd=self.home,
            env={**os.environ, **own, **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def done(self, program: Path, *arguments: str, **environment: str) -> str:
        """Run one of them, which does it."""
        ran = self.run(program, *arguments, **environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """The programs with a key pair each, and a key of the server's."""
    tools = Tools(tmp_path_factory.mktemp("signing"))
    tools.done(tools.cosign, "generate-key-pair")
    tools.done(tools.notation, "cert", "generate-test", "--default", "tests")
    certificate = next(tools.home.rglob("localkeys/tests.crt"))
    (tools.home / "notation.crt").write_bytes(certificate.read_bytes())
    for command in (
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ours.key"],
        ["pkey", "-in", "ours.key", "-pubout", "-out", "ours.pub"],
    ):
        subprocess.run(["openssl", *command], cwd=tools.home, check=True, capture_output=True, timeout=60)
    return tools


@pytest.fixture(scope="module")
def here(tools: Tools) -> Iterator[RoadsteadServer]:
    """A server that trusts them, and signs itself."""
    with RoadsteadServer(tools.home, config=CONFIG, workers=1) as server:
        yield server


def push(here: RoadsteadServer, name: str, image: TestImage, tag: str) -> None:
    """Push an image."""
    with Client(here.host) as client:
        for data in image.blobs.values():
            client.push_blob(name, data)
        client.push_manifest(name, tag, image.raw, image.media_type)


def status(here: RoadsteadServer, name: str, reference: object) -> int:
    """Return what a pull is answered with."""
    with Client(here.host) as client:
        return client.get(f"/v2/{name}/manifests/{reference}", ACCEPT).status


@pytest.mark.soak
def test_cosign_signs_what_is_not_served_yet(here: RoadsteadServer, tools: Tools) -> None:
    """As the page says it: read below as-pushed/, with the signature sent to the repository."""
    image = make_image(seed="tag")
    push(here, "signed/tag", image, "v1")
    assert status(here, "signed/tag", "v1") == 403

    tools.done(
        tools.cosign,
        *("sign", "--yes", "--key", "cosign.key", "--tlog-upload=false", "--new-bundle-format=false"),
        f"{here.host}/as-pushed/signed/tag@{image.digest}",
        COSIGN_REPOSITORY=f"{here.host}/signed/tag",
    )

    assert status(here, "signed/tag", "v1") == 200
    assert status(here, "signed/tag", image.digest) == 200


@pytest.mark.soak
@pytest.mark.parametrize(
    ("form", "name"), [("--registry-referrers-mode=oci-1-1", "referrer"), ("--new-bundle-format", "bundle")]
)
def test_what_is_signed_elsewhere_comes_with_its_signatures(
    here: RoadsteadServer, tools: Tools, form: str, name: str
) -> None:
    """cosign's other forms are made where no policy is; a copy of the image brings them, and is served."""
    image = make_image(seed=name)
    push(here, f"staging/{name}", image, "v1")
    tools.done(
        tools.cosign,
        *("sign", "--yes", "--key", "cosign.key", "--tlog-upload=false", form),
        f"{here.host}/staging/{name}@{image.digest}",
        COSIGN_EXPERIMENTAL="1",
    )

    for _ in range(2):
        ran = CliRunner().invoke(app, ["copy", f"{here.host}/staging/{name}:v1", f"{here.host}/signed/{name}:v1"])
        assert ran.exit_code == 0, f"{ran.output}{ran.exception}"

    assert status(here, f"signed/{name}", "v1") == 200


@pytest.mark.soak
def test_cosign_verifies_what_is_made_here(here: RoadsteadServer, tools: Tools) -> None:
    """By its tag, among the referrers and as a bundle; the provenance, too; and by no other key."""
    push(here, "team/app", make_image(), "added")
    image = f"{here.host}/team/app:added"
    with Client(here.host) as client:
        digest = Digest.of(client.get("/v2/team/app/manifests/added", ACCEPT).body)
    tools.done(tools.cosign, "trusted-root", "create", "--out", "root.json")  # bundles want one, be it empty
    verify = ("--insecure-ignore-tlog", "--key", "ours.pub")
    bundles = (*verify, "--trusted-root", "root.json", "--new-bundle-format")

    by_tag = tools.done(tools.cosign, "verify", *verify, image)
    by_referrer = tools.done(tools.cosign, "verify", *verify, "--experimental-oci11", image, COSIGN_EXPERIMENTAL="1")
    attested = tools.done(
        tools.cosign,
        *("verify-attestation", *bundles, "--type", "slsaprovenance1"),
        image,
    )

    assert str(digest) in by_tag
    assert str(digest) in by_referrer
    assert '"payload"' in attested
    assert str(digest) in tools.done(tools.cosign, "verify", *bundles, image)
    other = tools.run(tools.cosign, "verify", "--insecure-ignore-tlog", "--key", "cosign.pub", image)
    assert other.returncode != 0


@pytest.mark.soak
@pytest.mark.parametrize("form", ["jws", "cose"])
def test_notation_signs_what_is_not_served_yet(here: RoadsteadServer, tools: Tools, form: str) -> None:
    """Both of its envelopes are accepted; a HEAD by digest is all that it reads before."""
    name, image = f"notation/{form}", make_image(seed=f"notation {form}")
    push(here, name, image, "v1")
    assert status(here, name, "v1") == 403

    tools.done(
        tools.notation,
        *("sign", "--insecure-registry", "--signature-format", form, "--expiry", "1h"),
        f"{here.host}/{name}@{image.digest}",
    )

    assert status(here, name, "v1") == 200
