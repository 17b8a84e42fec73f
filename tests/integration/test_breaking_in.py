"""Ways in that somebody tried who meant harm, on the real server: each of them was open once."""

import io
import json
import tarfile
from collections.abc import Iterator

import pytest
from tests.integration.container_api import asked, path_of, pulled
from tests.integration.test_signing import CONFIG as POLICIES
from tests.integration.test_signing import get, name_in, new_key, private_pem, public_pem, push, sign

from roadstead.oci.digest import Digest
from roadstead.signatures import names
from roadstead.signatures.keys import SigningKey
from roadstead.testing.images import make_image
from roadstead.testing.server import RoadsteadServer


@pytest.fixture(scope="module")
def trusted() -> SigningKey:
    """The key that the policies of the server trust."""
    return new_key()


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory, trusted: SigningKey) -> Iterator[RoadsteadServer]:
    """A server whose images have to be signed."""
    directory = tmp_path_factory.mktemp("signing")
    (directory / "ours.key").write_text(private_pem(new_key()))
    (directory / "trusted.pub").write_text(public_pem(trusted))
    with RoadsteadServer(directory, config=POLICIES, workers=1) as server:
        yield server


# Images that have to be signed


def test_an_unsigned_manifest_is_not_given_as_a_blob(signing: RoadsteadServer) -> None:
    """What a policy refuses among the manifests isn't to be had among the blobs; below as-pushed/ it is, as there."""
    name, image = name_in("signed"), make_image(seed="as a blob")
    with signing.client() as client:
        push(client, name, image)
        path = f"{name}/blobs/{image.digest}"
        answer = client.get(f"/v2/{path}")

        assert (answer.status, answer.code) == (403, "DENIED")
        assert client.get(f"/v2/as-pushed/{path}").status == 200
        strict = name_in("strict")
        push(client, strict, image)
        assert client.get(f"/v2/as-pushed/{strict}/blobs/{image.digest}").status == 403


def test_layers_that_are_only_called_signatures_free_no_image(signing: RoadsteadServer) -> None:
    """podman unpacks what is a tar, whatever its type says: an image isn't a signature by calling its layers so."""
    name = name_in("signed")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("{"))  # begins as JSON does
    image = make_image(seed="disguised")
    with signing.client() as client:
        for layer in (packed.getvalue(), *image.blobs.values()):
            client.push_blob(name, layer)
        for media_type in (names.SIMPLE_SIGNING, "application/cose", "application/vnd.dsse.envelope.v1+json"):
            for layer in (packed.getvalue(), image.layers[0].raw):
                document = json.loads(image.raw)
                document["layers"] = [{"mediaType": media_type, "digest": str(Digest.of(layer)), "size": len(layer)}]
                raw = json.dumps(document).encode()
                client.push_manifest(name, "v1", raw, image.media_type)

                assert get(client, name, "v1").status == 403, media_type


def test_a_signature_that_is_gone_counts_no_more_below_a_token(signing: RoadsteadServer, trusted: SigningKey) -> None:
    """By tag and by digest alike, as everywhere else; also where containerd asks for it among the blobs."""
    name, image = name_in("signed"), make_image(seed="below a token")
    with signing.client() as client:
        push(client, name, image)
        sign(client, name, image.descriptor(), trusted, "tag")
        wanted = {"containerImage": f"{name}:v1", "containerConfig": {"env": ["A=b"]}}
        told = asked(client, wanted)
        target, digest = told["targetImage"], told["targetDigest"]
        pulled(client, target)
        client.delete(f"/v2/{name}/manifests/{names.signature_tag(image.digest)}")
        by_digest = f"{target.removesuffix(':v1')}@{digest}"

        assert client.get(path_of(target)).status == 403
        assert client.get(path_of(by_digest)).status == 403
        assert client.get(path_of(by_digest, "blobs")).status == 403
