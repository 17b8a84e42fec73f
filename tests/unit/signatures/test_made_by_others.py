"""Signatures that cosign 2.6.1 and notation 1.3.2 have made (tests/data/signatures.json) hold here.

The programs themselves are asked in tests/soak/test_signing_tools.py; building them takes half an hour. The file has
what they wrote to a registry for one image, and their public halves. The COSE envelope was made another day, for an
image of its own.
"""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roadstead.oci.digest import Digest
from roadstead.oci.manifest import ImageManifest, parse_image
from roadstead.signatures import cosign, names, notation
from roadstead.signatures.errors import SignatureInvalidError
from roadstead.signatures.keys import PublicKey
from roadstead.signatures.policy import SignatureKind
from roadstead.signatures.verifying import is_about_images, is_signature

DATA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "signatures.json").read_text())
OTHER = Digest.of(b"another image")
KEYS = [PublicKey.parse(DATA["cosign.pub"], "cosign.pub")]
CERTIFICATES = notation.TrustedCertificates.parse(DATA["notation.crt"], "notation.crt").certificates
MADE_AT = datetime(2026, 11, 22, 18, tzinfo=UTC)  # the certificate lasts a day
FORMS = sorted(DATA["signatures"])


def read(form: str) -> tuple[ImageManifest, bytes]:
    """Return a signature's manifest, and the content of its blob."""
    made = DATA["signatures"][form]
    content = base64.b64decode(made["content_base64"]) if "content_base64" in made else made["content"].encode()
    return parse_image(made["manifest"].encode(), None), content


def subject_of(form: str) -> Digest:
    """Return the image that a signature is of."""
    return Digest.parse(DATA["signatures"][form].get("subject", DATA["subject"]))


def check(form: str, content: bytes, subject: Digest | None = None) -> None:
    """Check a signature as a policy of its kind does."""
    [layer] = read(form)[0].layers
    subject = subject or subject_of(form)
    if form.startswith("notation"):
        made = DATA["signatures"][form]
        certificates, moment = CERTIFICATES, MADE_AT
        if "certificate" in made:
            certificates = notation.TrustedCertificates.parse(made["certificate"], "certificate").certificates
            moment = datetime.fromisoformat(made["made_at"])
        notation.check_envelope(content, layer.media_type, subject, certificates, moment)
    elif layer.media_type == names.SIMPLE_SIGNING:
        cosign.check_simple(content, layer, subject, KEYS)
    else:
        cosign.check_bundle(content, subject, KEYS)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_found_and_holds(form: str) -> None:
    """The referrers list gives it away as what it is, nothing takes it for an image, and it holds."""
    manifest, content = read(form)
    kind = SignatureKind.NOTATION if form.startswith("notation") else SignatureKind.COSIGN

    assert is_about_images(manifest)
    assert form == "cosign-tag" or is_signature(manifest.referrer_descriptor(), kind)
    assert not is_signature(manifest.referrer_descriptor(), next(one for one in SignatureKind if one is not kind))
    check(form, content)


def about_another(content: bytes, subject: Digest) -> bytes:
    """Return a payload or an envelope that names another image, with the signature as it was."""
    if not content.lstrip().startswith(b"{"):
        assert subject.encoded.encode() in content
        return content.replace(subject.encoded.encode(), OTHER.encoded.encode())
    document = json.loads(content)
    holder = document.get("dsseEnvelope", document)
    if "payload" not in holder:
        return content.replace(subject.encoded.encode(), OTHER.encoded.encode())
    text = holder["payload"]
    payload = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    changed = base64.b64encode(payload.replace(subject.encoded.encode(), OTHER.encoded.encode())).decode()
    holder["payload"] = changed if "dsseEnvelope" in document else changed.rstrip("=")
    return json.dumps(document).encode()


@pytest.mark.parametrize("form", FORMS)
def test_it_holds_for_its_image_alone(form: str) -> None:
    """It doesn't for another image, nor does it when it is made to name another."""
    _, content = read(form)

    with pytest.raises(SignatureInvalidError, match="another image"):
        check(form, content, OTHER)
    for subject in (subject_of(form), OTHER):
        with pytest.raises(SignatureInvalidError, match=r"trusted keys|isn't that of its certificate"):
            check(form, about_another(content, subject_of(form)), subject)
