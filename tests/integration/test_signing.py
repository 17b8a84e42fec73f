"""Images that have to be signed, and images that are signed here: a real server, its API, and its commands."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.integration.container_api import ask, asked, path_of
from typer.testing import CliRunner

from roadstead.augment import provenance
from roadstead.cli.main import app
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import ImageManifest
from roadstead.oci.mediatypes import MANIFESTS
from roadstead.signatures import cosign, dsse, names
from roadstead.signatures.keys import PublicKey, SigningKey
from roadstead.testing.client import Answer, Client
from roadstead.testing.images import TestImage, TestIndex, make_attestation, make_image, make_index
from roadstead.testing.server import RoadsteadServer
from roadstead.upstream.errors import UpstreamDeniedError

ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS))}
CONFIG = """
[signatures]
key = "${file:ours.key}"

[[signatures.policies]]
match = ["signed/**"]
keys = ["trusted.pub"]

[[signatures.policies]]
match = ["looked-at/**"]
keys = ["${file:trusted.pub}"]
require = false

[[signatures.policies]]
match = ["strict/**"]
keys = ["trusted.pub"]
as_pushed = true

[[signatures.policies]]
match = ["**/all"]
keys = ["trusted.pub"]

[[augment.rules]]
match = "**:added"
env = ["ADDED=yes"]
entrypoint = ["/wrapped"]
"""


def new_key() -> SigningKey:
    """Make a key, as somebody who signs has one."""
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


def private_pem(key: SigningKey) -> str:
    """Return a key as its file has it."""
    return key.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_pem(key: SigningKey) -> str:
    """Return a key's public half as its file has it."""
    return key.public.key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


@pytest.fixture(scope="module")
def trusted() -> SigningKey:
    """The key that the policies of the server trust."""
    return new_key()


@pytest.fixture(scope="module")
def ours() -> SigningKey:
    """The key that the server signs with."""
    return new_key()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, trusted: SigningKey, ours: SigningKey) -> Iterator[RoadsteadServer]:
    """A server with policies, a rule and a key, one for each test process."""
    directory = tmp_path_factory.mktemp("signing")
    (directory / "ours.key").write_text(private_pem(ours))
    (directory / "trusted.pub").write_text(public_pem(trusted))
    with RoadsteadServer(directory, config=CONFIG, workers=2) as server:
        yield server


@pytest.fixture
def client(here: RoadsteadServer) -> Iterator[Client]:
    """A client of one's own."""
    with Client(here.host) as client:
        yield client


def name_in(space: str) -> str:
    """Return a repository of one's own below a name that a policy is for, or isn't."""
    return f"{space}/{uuid4().hex[:12]}"


def push(client: Client, name: str, image: TestImage | TestIndex, tag: str = "v1") -> Digest:
    """Push an image, or an index with its images."""
    if isinstance(image, TestIndex):
        for child in image.children:
            push(client, name, child, str(child.digest))
    else:
        for data in image.blobs.values():
            client.push_blob(name, data)
    return client.push_manifest(name, tag, image.raw, image.media_type)


def sign(client: Client, name: str, subject: Descriptor, key: SigningKey, form: str) -> ImageManifest:
    """Sign an image as cosign does, in one of its forms."""
    artifact = (
        cosign.signed_image(subject.digest, key) if form == "bundle" else cosign.simple(subject.digest, name, key)
    )
    manifest = artifact.about(subject)
    for content in artifact.contents():
        client.push_blob(name, content)
    reference = names.signature_tag(subject.digest) if form == "tag" else str(manifest.digest)
    if form == "tag":  # as cosign 2 has it: there is no subject
        document = json.loads(manifest.raw)
        del document["subject"], document["artifactType"]
        document["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
        client.push_manifest(name, reference, json.dumps(document).encode(), manifest.media_type)
    else:
        client.push_manifest(name, reference, manifest.raw, manifest.media_type)
    return manifest


def get(client: Client, name: str, reference: object) -> Answer:
    """Pull a manifest."""
    return client.get(f"/v2/{name}/manifests/{reference}", ACCEPT)


def referrers(client: Client, name: str, digest: Digest | str) -> list[dict[str, object]]:
    """Return what the referrers API lists."""
    listed: list[dict[str, object]] = client.get(f"/v2/{name}/referrers/{digest}").json()["manifests"]
    return listed


# What has to be signed


def test_an_unsigned_image_is_refused_by_name(client: Client) -> None:
    """By tag and by digest it is 403 DENIED, which names image, policy and what to do; HEAD by digest still answers."""
    name = name_in("signed")
    digest = push(client, name, make_image(seed=name))

    by_tag, by_digest = get(client, name, "v1"), get(client, name, digest)

    assert (by_tag.status, by_tag.code) == (403, "DENIED")
    assert (by_digest.status, by_digest.code) == (403, "DENIED")
    [error] = by_tag.json()["errors"]
    assert f"{name}@{digest}" in error["message"]
    assert "signed/**" in error["message"]
    assert "cosign sign" in error["detail"]
    assert client.head(f"/v2/{name}/manifests/{digest}", ACCEPT).status == 200
    assert get(client, f"as-pushed/{name}", "v1").status == 200


@pytest.mark.parametrize("form", ["tag", "referrer", "bundle"])
def test_a_signed_image_is_served(client: Client, trusted: SigningKey, form: str) -> None:
    """Each of cosign's forms counts from the moment it is there, and no more once it is deleted."""
    name = name_in("signed")
    image = make_image(seed=name)
    push(client, name, image)
    assert get(client, name, "v1").status == 403

    signature = sign(client, name, image.descriptor(), trusted, form)

    assert get(client, name, "v1").body == image.raw
    assert get(client, name, image.digest).body == image.raw
    reference = names.signature_tag(image.digest) if form == "tag" else str(signature.digest)
    assert get(client, name, reference).status == 200  # who pulls may check it
    assert client.delete(f"/v2/{name}/manifests/{reference}").status == 202
    assert get(client, name, "v1").status == 403


@pytest.mark.parametrize("form", ["tag", "referrer", "bundle"])
def test_a_signature_by_somebody_else_does_not_count(client: Client, form: str) -> None:
    """The answer says that none of the trusted keys has signed it."""
    name = name_in("signed")
    image = make_image(seed=name)
    push(client, name, image)
    sign(client, name, image.descriptor(), new_key(), form)

    answer = get(client, name, "v1")

    assert answer.status == 403
    assert "none of the trusted keys" in answer.json()["errors"][0]["message"]


def test_what_a_signed_index_lists_is_signed(client: Client, trusted: SigningKey) -> None:
    """Engines pull the images of an index by their digests, and those have no signature of their own."""
    name = name_in("signed")
    images = [make_image(platform=one, seed=f"{name}{one}") for one in ("linux/amd64", "linux/arm64")]
    index = make_index([*images, make_attestation(images[0])])
    push(client, name, index)
    assert get(client, name, images[1].digest).status == 403

    sign(client, name, index.descriptor(), trusted, "bundle")

    assert [get(client, name, child.digest).status for child in index.children] == [200, 200, 200]


def test_nothing_is_made_of_an_unsigned_image(client: Client, trusted: SigningKey) -> None:
    """An augmented image needs the signature of its source: then its parts are served, too, and it has ours."""
    name = name_in("signed")
    image = make_image(seed=name)
    push(client, name, image, "added")
    assert get(client, name, "added").status == 403

    sign(client, name, image.descriptor(), trusted, "tag")
    served = get(client, name, "added")

    assert served.status == 200
    assert b"io.roadstead.augmented" in served.body
    digest = Digest.of(served.body)
    assert get(client, name, digest).status == 200
    assert get(client, name, names.signature_tag(digest)).status == 200


def test_a_policy_may_only_look(here: RoadsteadServer, client: Client) -> None:
    """Without `require` an unsigned image is served, and logged."""
    name = name_in("looked-at")
    push(client, name, make_image(seed=name))

    assert get(client, name, "v1").status == 200
    assert f"repository={name}" in here.log
    assert "served though it isn't signed" in here.log


def below(client: Client, image: str, env: str = "BELOW=yes") -> str:
    """Return the name to pull below a token: the image's path with the token before it, without host and tag."""
    answer = asked(client, {"containerImage": image, "containerConfig": {"env": [env]}})
    return path_of(answer["targetImage"]).removeprefix("/v2/").partition("/manifests/")[0]


def test_what_tokens_derive_obeys_the_policies_of_the_image(client: Client, trusted: SigningKey) -> None:
    """A token needs a signed image, and stops with the signature: by tag, by the source's digest and by the derived's.

    A blob's path gives no manifest that may not be served, either.
    """
    name = name_in("signed")
    index = make_index([make_image(seed=f"{name}{one}") for one in range(2)])
    push(client, name, index)
    refused = ask(client, {"containerImage": f"{name}:v1", "containerConfig": {"env": ["BELOW=yes"]}})
    assert (refused.status, name in refused.json()["message"]) == (403, True)

    signature = sign(client, name, index.descriptor(), trusted, "bundle")
    there = below(client, f"{name}:v1")
    derived = get(client, there, "v1")
    children = [entry["digest"] for entry in derived.json()["manifests"]]
    ways = ["v1", index.digest, index.children[0].digest, Digest.of(derived.body), *children]
    assert [get(client, there, way).status for way in ways] == [200] * len(ways)

    assert client.request("DELETE", f"/v2/{name}/manifests/{signature.digest}").status == 202

    assert [get(client, there, way).status for way in ways] == [403] * len(ways)
    heads = [client.head(f"/v2/{there}/manifests/{way}").status for way in ways]
    assert heads == [403] * len(ways)
    assert [client.get(f"/v2/{there}/blobs/{way}").status for way in ways[1:]] == [403] * len(ways[1:])
    assert client.get(f"/v2/{name}/blobs/{index.digest}").status == 403
    assert client.get(f"/v2/{there}/referrers/{Digest.of(derived.body)}").status == 403


def test_an_unsigned_image_is_not_included(client: Client, here: RoadsteadServer, trusted: SigningKey) -> None:
    """Our own images are included as they are pulled: where their policy lets them."""
    name, other = name_in("signed"), name_in("team")
    image = make_image(seed=name)
    push(client, name, image)
    push(client, other, make_image(seed=other))
    body = {"containerImage": f"{other}:v1", "containerIncludes": [f"{here.host}/{name}:v1"]}
    assert ask(client, body).status == 403

    sign(client, name, image.descriptor(), trusted, "bundle")
    assert ask(client, body).status == 200


def test_a_policy_for_every_name_is_no_policy_for_spaces(client: Client, trusted: SigningKey) -> None:
    """Where a pattern covers every repository, what is derived for tokens still goes by the image's own signature."""
    name = f"{name_in('team')}/all"
    image = make_image(seed=name)
    push(client, name, image)
    sign(client, name, image.descriptor(), trusted, "tag")
    there = below(client, f"{name}:v1")
    for _ in range(2):
        assert get(client, there, "v1").status == 200


def test_what_is_said_of_what_a_token_derived(client: Client, ours: SigningKey) -> None:
    """Referrers below a token list its provenance and signatures, and give them; cosign's tag is answered, too."""
    name = name_in("team")
    push(client, name, make_image(seed=name))
    there = below(client, f"{name}:v1")
    digest = Digest.of(get(client, there, "v1").body)

    listed = referrers(client, there, digest)

    assert sorted(str(one["artifactType"]) for one in listed) == sorted(
        [provenance.IN_TOTO, names.BUNDLE, names.BUNDLE, names.SIGNATURE]
    )
    for one in listed:
        manifest = get(client, there, one["digest"])
        assert str(Digest.of(manifest.body)) == one["digest"]
        for layer in manifest.json()["layers"]:
            assert str(Digest.of(client.get(f"/v2/{there}/blobs/{layer['digest']}").body)) == layer["digest"]
    assert get(client, there, names.signature_tag(digest)).status == 200
    pages = list(client.pages(f"/v2/{there}/referrers/{digest}?n=1", "manifests"))
    assert len(pages) == len(listed)
    assert referrers(client, name, digest) == []


def test_a_strict_policy_is_about_originals_too(client: Client) -> None:
    """With `as_pushed` nothing unsigned is served by any name."""
    name = name_in("strict")
    push(client, name, make_image(seed=name))

    assert get(client, f"as-pushed/{name}", "v1").status == 403


# What is signed here


def test_an_augmented_image_comes_with_provenance(client: Client, here: RoadsteadServer, ours: SigningKey) -> None:
    """Its referrers are the statement, the same signed, and its signatures: all by our key, and about its digest."""
    name = name_in("team")
    image = make_image(seed=name)
    source = push(client, name, image, "added")
    digest = Digest.of(get(client, name, "added").body)

    listed = referrers(client, name, digest)

    assert sorted(str(one["artifactType"]) for one in listed) == sorted(
        [provenance.IN_TOTO, names.BUNDLE, names.BUNDLE, names.SIGNATURE]
    )
    by_type = {str(one["artifactType"]): one for one in listed}
    manifest = get(client, name, by_type[provenance.IN_TOTO]["digest"]).json()
    statement = client.get(f"/v2/{name}/blobs/{manifest['layers'][0]['digest']}").json()
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    dsse.check_subject(statement, digest)
    definition = statement["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": source.encoded}
    assert definition["externalParameters"]["plan"]["env"] == ["ADDED=yes"]
    keys = [PublicKey.parse(public_pem(ours), "ours")]
    simple = get(client, name, names.signature_tag(digest)).json()
    layer = Descriptor.parse(simple["layers"][0])
    cosign.check_simple(client.get(f"/v2/{name}/blobs/{layer.digest}").body, layer, digest, keys)
    bundles = [get(client, name, one["digest"]).json() for one in listed if one["artifactType"] == names.BUNDLE]
    contents = [client.get(f"/v2/{name}/blobs/{one['layers'][0]['digest']}").body for one in bundles]
    opened = [dsse.opened(json.loads(content)["dsseEnvelope"], keys) for content in contents]
    assert statement in opened
    assert {one["predicateType"] for one in opened} == {names.SIGN_PREDICATE, provenance.PREDICATE}
    assert client.get(f"/v2/{name}/tags/list").json()["tags"] == ["added"]


def test_provenance_goes_with_its_image(client: Client) -> None:
    """Deleting it removes it alone; deleting the image removes all that was made of it."""
    name = name_in("team")
    image = make_image(seed=name)
    push(client, name, image, "added")
    digest = Digest.of(get(client, name, "added").body)
    first, *rest = [str(one["digest"]) for one in referrers(client, name, digest)]

    assert client.delete(f"/v2/{name}/manifests/{first}").status == 202
    assert [one["digest"] for one in referrers(client, name, digest)] == rest
    assert get(client, name, "added").status == 200
    assert client.delete(f"/v2/{name}/manifests/{image.digest}").status == 202
    assert referrers(client, name, digest) == []
    assert get(client, name, rest[0]).status == 404


# Inspecting


def inspected(*arguments: str) -> dict[str, object]:
    """Run ``roadstead inspect --json``."""
    ran = CliRunner().invoke(app, ["inspect", *arguments, "--json"])
    assert ran.exit_code == 0, ran.output
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def inspected_by_api(client: Client, name: str, reference: object, status: int = 200) -> dict[str, object]:
    """Ask the API, and return what it says with the command's names."""
    answer = client.get(f"/api/v1/image?repository={name}&reference={reference}")
    assert answer.status == status, answer.body
    found: dict[str, object] = json.loads(answer.body, object_hook=lambda one: {camel(k): v for k, v in one.items()})
    return found


@pytest.mark.parametrize("where", ["registry", "data", "api"])
def test_inspecting_explains_what_was_added(client: Client, here: RoadsteadServer, where: str) -> None:
    """From the registry and from its data: source, plan, the difference, and what vouches for it."""
    name = name_in("team")
    push(client, name, make_image(seed=name), "added")
    digest = Digest.of(get(client, name, "added").body)
    image = f"{name}:added"
    arguments = [f"{here.host}/{image}"] if where == "registry" else [image, str(here.directory / "roadstead.toml")]
    arguments += [] if where == "registry" else ["--data", str(here.data)]

    found = inspected_by_api(client, name, "added") if where == "api" else inspected(*arguments)

    assert found["digest"] == str(digest)
    augmented = found["augmented"]
    assert isinstance(augmented, dict)
    assert augmented["source"] == str(make_image(seed=name).digest)
    assert augmented["plan"]["env"] == ["ADDED=yes"]
    assert list(augmented["difference"]["env"].values()) == [{"before": None, "after": "yes"}]
    assert augmented["difference"]["fields"]["entrypoint"]["after"] == ["/wrapped"]
    assert len(found["referrers"]) == 4  # type: ignore[arg-type]


def test_inspecting_what_is_not_served(client: Client, here: RoadsteadServer) -> None:
    """Which policy refuses it, and what is wrong with each signature; the API tells no more of it than its digest."""
    name = name_in("signed")
    image = make_image(seed=name)
    push(client, name, image)
    sign(client, name, image.descriptor(), new_key(), "bundle")
    arguments = [f"{name}:v1", str(here.directory / "roadstead.toml"), "--data", str(here.data)]

    by_data, by_api = inspected(*arguments), inspected_by_api(client, name, "v1")
    for people in (CliRunner().invoke(app, ["inspect", *arguments]),):
        assert "refused" in people.stdout
    refused = CliRunner().invoke(app, ["inspect", f"{here.host}/{name}:v1"])

    for found in (by_data, by_api):
        assert (found["served"], found["digest"]) == (False, str(image.digest))
        [verdict] = found["signatures"]  # type: ignore[misc]
        assert (verdict["policy"], verdict["kind"], verdict["required"], verdict["holds"]) == (
            "signed/**", "cosign", True, False,
        )  # fmt: skip
        assert len(verdict["reasons"]) == 1
    assert by_data["config"] is not None
    assert (by_api["config"], by_api["layers"], by_api["platforms"], by_api["referrers"]) == (None, [], [], [])
    assert isinstance(refused.exception, UpstreamDeniedError)
    assert verdict["reasons"][0] in str(refused.exception)
    assert f"cosign sign --key KEY --new-bundle-format=false HOST/as-pushed/{name}@{image.digest}" in (
        refused.exception.advice()
    )
    tagged = name_in("signed")
    push(client, tagged, image, "added")
    assert inspected_by_api(client, tagged, "added")["served"] is False  # nothing is made of it, and it is told of
    assert inspected_by_api(client, f"as-pushed/{name}", "v1")["served"] is True


@pytest.mark.parametrize("form", ["tag", "bundle"])
def test_inspecting_what_is_signed(client: Client, trusted: SigningKey, form: str) -> None:
    """The policy is said to hold, of an image and of what is made of it."""
    name = name_in("signed")
    image = make_image(seed=name)
    push(client, name, image, "added")
    sign(client, name, image.descriptor(), trusted, form)
    for reference in ("added", image.digest):
        found = inspected_by_api(client, name, reference)
        assert (found["served"], found["signatures"][0]["holds"]) == (True, True)  # type: ignore[index]
    assert found["config"] is not None


def test_inspecting_for_people(client: Client, here: RoadsteadServer) -> None:
    """What is printed names the digest, the platforms and the layers; what isn't there is an error."""
    name = name_in("team")
    images = [make_image(platform=one, seed=f"{name}{one}") for one in ("linux/amd64", "linux/arm64")]
    index = make_index(images)
    push(client, name, index)

    ran = CliRunner().invoke(app, ["inspect", f"{here.host}/{name}:v1", "--platform", "linux/arm64"])
    missing = CliRunner().invoke(app, ["inspect", f"{here.host}/{name}:v2"])

    assert ran.exit_code == 0, ran.output
    for text in (str(index.digest), "linux/amd64", "linux/arm64", str(images[1].digest), "layers"):
        assert text in ran.stdout
    assert missing.exit_code == 1
    assert (
        CliRunner().invoke(app, ["inspect", f"{here.host}/{name}:v1", "--platform", "what/ever/is/this"]).exit_code == 2
    )


def test_inspecting_an_image_alone_for_another_platform(client: Client, here: RoadsteadServer) -> None:
    """It isn't shown for what it isn't, and a variant that its config doesn't say is no other platform."""
    name = name_in("team")
    push(client, name, make_image(seed=name), "v1")

    other = CliRunner().invoke(app, ["inspect", f"{here.host}/{name}:v1", "--platform", "linux/arm64"])
    same = CliRunner().invoke(app, ["inspect", f"{here.host}/{name}:v1", "--platform", "linux/amd64/v2"])

    assert other.exit_code == 1
    assert "has no image for linux/arm64; it has linux/amd64" in str(other.exception)
    assert same.exit_code == 0, same.output


def test_a_key_that_cannot_be_used_is_named(tmp_path: Path, ours: SigningKey) -> None:
    """`config check` names the setting and what to do."""
    (tmp_path / "cosign.key").write_text(private_pem(ours))
    (tmp_path / "roadstead.toml").write_text('[[signatures.policies]]\nmatch = ["team/**"]\nkeys = ["cosign.key"]\n')

    ran = CliRunner().invoke(app, ["config", "check", str(tmp_path / "roadstead.toml")])

    assert ran.exit_code == 1
    assert "signatures.policies[0].keys[0]" in ran.output
    assert "it is a private key" in ran.output


def test_images_of_upstreams_are_checked_where_they_are(
    client: Client, here: RoadsteadServer, trusted: SigningKey, tmp_path: Path
) -> None:
    """Signatures are had like images: by tag and by referrer; what isn't signed there is refused here."""
    name = name_in("team")
    images = [make_image(seed=f"{name}{number}") for number in range(3)]
    for number, image in enumerate(images):
        push(client, name, image, f"v{number}")
    sign(client, name, images[1].descriptor(), trusted, "tag")
    sign(client, name, images[2].descriptor(), trusted, "bundle")
    (tmp_path / "trusted.pub").write_text(public_pem(trusted))
    config = (
        f'[[upstreams]]\nhost = "up.example"\nurl = "{here.url}"\nrevalidate = "0s"\n'
        '[[signatures.policies]]\nmatch = ["up.example/**"]\nkeys = ["trusted.pub"]\n'
    )

    with RoadsteadServer(tmp_path, config=config, workers=1) as server:
        mirror = server.client()
        statuses = [get(mirror, f"up.example/{name}", f"v{number}").status for number in range(3)]
        digests = [get(mirror, f"up.example/{name}", image.digest).status for image in images]

        assert (statuses, digests) == ([403, 200, 200], [403, 200, 200])
        sign(client, name, images[0].descriptor(), trusted, "bundle")
        assert get(mirror, f"up.example/{name}", "v0").body == images[0].raw


def test_a_new_key_signs_what_was_made_before(tmp_path: Path, ours: SigningKey) -> None:
    """Without a key there is provenance alone; with one, the next pull has the same image signed."""
    config = '[[augment.rules]]\nmatch = "**:added"\nenv = ["ADDED=yes"]\n'
    (tmp_path / "ours.key").write_text(private_pem(ours))
    with RoadsteadServer(tmp_path, config=config, workers=1) as server:
        push(server.client(), "team/app", make_image(), "added")
        before = get(server.client(), "team/app", "added").body
        assert len(referrers(server.client(), "team/app", Digest.of(before))) == 1
        assert get(server.client(), "team/app", names.signature_tag(Digest.of(before))).status == 404

    with RoadsteadServer(tmp_path, config=f'{config}[signatures]\nkey = "${{file:ours.key}}"\n', workers=1) as server:
        after = get(server.client(), "team/app", "added").body
        listed = referrers(server.client(), "team/app", Digest.of(after))

        assert after == before
        assert len(listed) == 4
        assert get(server.client(), "team/app", names.signature_tag(Digest.of(before))).status == 200
