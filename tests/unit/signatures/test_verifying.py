"""Which images may be served: policies over what a repository holds."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.signatures.making import NOW, holder, jws, pem

from roadstead.oci.artifact import Artifact, ArtifactBlob
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import ImageManifest
from roadstead.oci.mediatypes import OCI_LAYER_GZIP
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import BlobUnknownError, ContentTooLargeError
from roadstead.signatures import cosign, names, notation, verifying
from roadstead.signatures.errors import ImageUnsignedError, KeyInvalidError
from roadstead.signatures.keys import SigningKey
from roadstead.signatures.policy import Policy, SignatureKind, read_policy
from roadstead.signatures.verifying import Signatures
from roadstead.testing.images import make_image

KEY = SigningKey(ec.generate_private_key(ec.SECP256R1()))
APP, OTHER = RepositoryName.parse("team/app"), RepositoryName.parse("team/other")
IMAGE = make_image()
POLICY = Policy(name="team/*", patterns=(Pattern.parse("team/*"),), kind=SignatureKind.COSIGN, keys=(KEY.public,))
ROOT = holder("root", ca=True)
NOTATION = replace(POLICY, kind=SignatureKind.NOTATION, keys=(), certificates=(ROOT.certificate,))


class FixedClock:
    """The same moment always."""

    def now(self) -> datetime:
        return NOW


class Repositories:
    """What repositories hold, in memory, counting what is read of it."""

    def __init__(self) -> None:
        self.manifests: dict[tuple[RepositoryName, Tag | Digest], tuple[str, bytes]] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.said: dict[Digest, list[Descriptor]] = {}
        self.above: dict[Digest, list[Digest]] = {}
        self.read = 0

    def put(self, raw: bytes, media_type: str, *, tag: str | None = None) -> Digest:
        digest = Digest.of(raw)
        self.manifests[APP, digest] = (media_type, raw)
        if tag is not None:
            self.manifests[APP, Tag(tag)] = (media_type, raw)
        return digest

    def attach(self, artifact: Artifact, *, keep: bool = True) -> ImageManifest:
        manifest = artifact.about(IMAGE.descriptor())
        self.put(manifest.raw, manifest.media_type)
        self.said.setdefault(IMAGE.digest, []).append(manifest.referrer_descriptor())
        if keep:
            self.blobs |= {Digest.of(content): content for content in artifact.contents()}
        return manifest

    async def manifest(self, repository: RepositoryName, reference: Tag | Digest) -> tuple[str, bytes] | None:
        return self.manifests.get((repository, reference))

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        self.read += 1
        if digest not in self.blobs:
            raise BlobUnknownError(repository, digest)
        if len(self.blobs[digest]) > max_bytes:
            raise ContentTooLargeError("the blob", max_bytes)
        return self.blobs[digest]

    async def referrers(self, repository: RepositoryName, digest: Digest) -> Sequence[Descriptor]:
        return self.said.get(digest, []) if repository == APP else []

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        return self.above.get(digest, [])


@pytest.fixture
def here() -> Repositories:
    found = Repositories()
    found.put(IMAGE.raw, IMAGE.media_type)
    return found


def guard(here: Repositories, *policies: Policy) -> Signatures:
    """Return what checks, under these policies."""
    return Signatures(policies or (POLICY,), here, FixedClock())


async def refusal(signatures: Signatures, digest: Digest = IMAGE.digest) -> ImageUnsignedError:
    """Return how an image is refused."""
    with pytest.raises(ImageUnsignedError) as caught:
        await signatures.check(APP, digest)
    return caught.value


async def test_a_signature_is_read_once_and_looked_for_each_time(here: Repositories) -> None:
    """Its bytes don't change, so nothing is read again; when it is gone, the image is refused at once."""
    here.attach(cosign.signed_image(IMAGE.digest, KEY))
    signatures = guard(here)

    for _ in range(3):
        await signatures.check(APP, IMAGE.digest)
    assert here.read == 1
    here.said.clear()
    assert "has no signature" in str(await refusal(signatures))


async def test_a_signature_counts_in_its_repository_alone(here: Repositories) -> None:
    """What is remembered of one repository says nothing of another."""
    here.attach(cosign.signed_image(IMAGE.digest, KEY))
    signatures = guard(here)
    await signatures.check(APP, IMAGE.digest)

    with pytest.raises(ImageUnsignedError):
        await signatures.check(OTHER, IMAGE.digest)
    await signatures.check(RepositoryName.parse("elsewhere/app"), IMAGE.digest)


@pytest.mark.parametrize(
    ("artifact", "keep", "reason"),
    [
        (
            Artifact(names.SIGNATURE, (ArtifactBlob(names.SIMPLE_SIGNING, b"x" * (verifying.MAX_DOCUMENT + 1)),)),
            True,
            "are the most",
        ),
        (cosign.signed_image(IMAGE.digest, KEY), False, "can't be had"),
        (Artifact(names.SIGNATURE, (ArtifactBlob("text/plain", b"x"),)), True, "no signature in cosign's form"),
        (Artifact(names.SIGNATURE, ()), True, "no signature in cosign's form"),
    ],
    ids=["oversize", "missing", "another type", "empty"],
)
async def test_a_signature_that_cannot_be_read(here: Repositories, artifact: Artifact, keep: bool, reason: str) -> None:
    """The refusal says why; a good one beside it counts all the same."""
    here.attach(artifact, keep=keep)

    assert reason in str(await refusal(guard(here)))
    here.attach(cosign.simple(IMAGE.digest, "team/app", KEY))
    await guard(here).check(APP, IMAGE.digest)


async def test_a_signature_is_about_what_it_says(here: Repositories) -> None:
    """One of another image that was hung to this one doesn't count."""
    here.attach(cosign.simple(Digest.of(b"other"), "team/app", KEY))

    assert "another image" in str(await refusal(guard(here)))


async def test_an_image_cannot_pass_for_a_signature(here: Repositories) -> None:
    """What says something of images is served; a layer that an engine would unpack gives the others away."""
    signature = here.attach(cosign.signed_image(IMAGE.digest, KEY))
    layers = (ArtifactBlob(names.SIMPLE_SIGNING, b"{}"), ArtifactBlob(OCI_LAYER_GZIP, b"evil"))
    hidden = here.attach(Artifact(names.SIGNATURE, layers))
    empty = here.attach(Artifact(names.SIGNATURE, ()))
    here.said.clear()

    await guard(here).check(APP, signature.digest)
    for digest in (hidden.digest, empty.digest):
        assert (await refusal(guard(here), digest)).digest == digest


async def test_what_was_made_of_a_signed_image(here: Repositories) -> None:
    """However many steps lie between, also where they run in a circle."""
    steps = [Digest.of(str(step).encode()) for step in range(5)]
    here.above = {step: [above] for step, above in zip(steps, [*steps[1:], IMAGE.digest], strict=True)}
    here.above[IMAGE.digest] = [steps[0]]
    assert len((await refusal(guard(here), steps[0])).reasons) == 0

    here.attach(cosign.signed_image(IMAGE.digest, KEY))

    await guard(here).check(APP, steps[0])


async def test_every_policy_has_to_be_met(here: Repositories) -> None:
    """Two that match want a signature each."""
    here.attach(cosign.signed_image(IMAGE.digest, KEY))
    other = replace(POLICY, name="two", keys=(SigningKey(ec.generate_private_key(ec.SECP256R1())).public,))

    assert (await refusal(guard(here, POLICY, other))).policy == "two"
    await guard(here, POLICY, replace(other, require=False)).check(APP, IMAGE.digest)
    await guard(here, other).check(APP, IMAGE.digest, original=True)
    with pytest.raises(ImageUnsignedError):
        await guard(here, replace(other, originals=True)).check(APP, IMAGE.digest, original=True)


async def test_notation_has_its_own(here: Repositories) -> None:
    """An envelope among the referrers counts for its kind of policy alone; the advice names the right tool."""
    assert "notation sign" in (await refusal(guard(here, NOTATION))).advice()
    envelope = json.dumps(jws(holder("leaf", ROOT), ROOT, subject=IMAGE.digest)).encode()
    here.attach(Artifact(notation.SIGNATURE, (ArtifactBlob(notation.JWS, envelope),)))

    await guard(here, NOTATION).check(APP, IMAGE.digest)
    assert "cosign sign" in (await refusal(guard(here))).advice()


async def test_two_envelopes_in_one_are_none(here: Repositories) -> None:
    """The specification has exactly one."""
    here.attach(Artifact(notation.SIGNATURE, (ArtifactBlob(notation.JWS, b"a"), ArtifactBlob(notation.COSE, b"b"))))

    assert "2 blobs" in str(await refusal(guard(here, NOTATION)))


def test_keys_and_certificates_are_told_apart() -> None:
    """A policy of cosign's takes no certificate, one of notation's no key."""
    with pytest.raises(KeyInvalidError, match="it is a certificate"):
        read_policy(["team/*"], SignatureKind.COSIGN, [("k", ROOT.pem)], require=True, originals=False)
    with pytest.raises(KeyInvalidError, match="no certificate"):
        read_policy(
            ["team/*"], SignatureKind.NOTATION, [("k", pem(ROOT.key.public_key()))], require=True, originals=False
        )
