"""Descriptors and platforms: what is read, refused and written back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.descriptor import Descriptor, DescriptorInvalidError, Platform, PlatformInvalidError
from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import DOCKER_FOREIGN_LAYER_GZIP, OCI_LAYER_GZIP

LAYER = {"mediaType": OCI_LAYER_GZIP, "digest": "sha256:" + "a" * 64, "size": 5}

printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
descriptors = st.builds(
    Descriptor,
    st.sampled_from([OCI_LAYER_GZIP, "a/b; q=1"]),
    st.binary(max_size=3).map(Digest.of),
    st.integers(0, 2**63 - 1),
    urls=st.sampled_from([(), ("https://a.example/b?c=d",)]),
    annotations=st.dictionaries(printable, printable, max_size=2),
    data=st.none() | st.just("e30="),
    artifact_type=st.none() | st.just("a/b"),
    platform=st.none() | st.builds(Platform, st.just("windows"), st.just("amd64"), st.just(None), st.just("10.0")),
    extra=st.sampled_from([{}, {"x-new": [1, {"a": None}]}]),
)


@given(descriptors)
def test_a_descriptor_written_reads_back(descriptor: Descriptor) -> None:
    """``parse`` and ``as_json`` are each other's inverse, unknown members included."""
    assert Descriptor.parse(descriptor.as_json()) == descriptor


def test_a_descriptor_can_be_a_key() -> None:
    """It is a value, whatever mappings it holds."""
    assert len({Descriptor.parse(LAYER), Descriptor.parse(LAYER | {"urls": None, "annotations": None})}) == 1


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"mediaType": None}, "mediaType"),
        ({"mediaType": 1}, "mediaType"),
        ({"mediaType": ""}, "mediaType"),
        ({"mediaType": "a/b\r\nx: y"}, "mediaType"),
        ({"mediaType": "a" * 256}, "mediaType"),
        ({"digest": None}, "digest"),
        ({"digest": "sha256:baddigeststring"}, "digest"),
        ({"digest": ["sha256:" + "a" * 64]}, "digest"),
        ({"size": None}, "size"),
        ({"size": True}, "size"),
        ({"size": 5.0}, "size"),
        ({"size": "5"}, "size"),
        ({"size": -1}, "size"),
        ({"size": 2**63}, "size"),
        ({"urls": "https://a.example"}, "urls"),
        ({"urls": [1]}, "urls"),
        ({"urls": ["ftp://a.example/x"]}, "urls"),
        ({"urls": ["file:///etc/passwd"]}, "urls"),
        ({"urls": ["https:///x"]}, "urls"),
        ({"urls": ["https://a.example/#f"]}, "urls"),
        ({"urls": ["https://a.example/#"]}, "urls"),
        ({"urls": ["//a.example/"]}, "urls"),
        ({"urls": ["https://a.example\\@b.example/"]}, "urls"),
        ({"urls": ["https://a.example/\nx"]}, "urls"),
        ({"urls": ["https://[::1/x"]}, "urls"),
        ({"urls": ["https://a.example:99999/"]}, "urls"),
        ({"urls": ["https://ä.example/"]}, "urls"),
        ({"annotations": []}, "annotations"),
        ({"annotations": {"a": 1}}, "annotations"),
        ({"annotations": {"a": None}}, "annotations"),
        ({"data": 1}, "data"),
        ({"artifactType": 1}, "artifactType"),
        ({"artifactType": "a\nb"}, "artifactType"),
        ({"platform": "linux/amd64"}, "platform"),
        ({"platform": {"os": 1}}, "platform"),
        ({"platform": {"os.features": 1}}, "platform"),
        ({"platform": {"os.features": [1]}}, "platform"),
        ({"Digest": "sha256:" + "b" * 64}, "'Digest'"),
        ({"\N{LATIN SMALL LETTER LONG S}ize": 6}, "'\N{LATIN SMALL LETTER LONG S}ize'"),
    ],
)
def test_a_broken_descriptor_names_the_member(change: dict[str, Any], member: str) -> None:
    """Types are JSON's own, and a name that Go would take for a known one is refused."""
    with pytest.raises(DescriptorInvalidError) as caught:
        Descriptor.parse(LAYER | change)

    assert caught.value.member == member
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_a_descriptor_is_an_object(document: object) -> None:
    """Nothing else is."""
    with pytest.raises(DescriptorInvalidError):
        Descriptor.parse(document)


def test_what_a_descriptor_tells() -> None:
    """Attestations and layers that live elsewhere are known by their marks."""
    attestation = Descriptor.parse(LAYER | {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}})

    assert attestation.is_attestation
    assert not Descriptor.parse(LAYER).is_attestation
    assert Descriptor.parse(LAYER).is_distributable
    assert not Descriptor.parse(LAYER | {"mediaType": DOCKER_FOREIGN_LAYER_GZIP}).is_distributable


@pytest.mark.parametrize(
    ("text", "printed", "normalised"),
    [
        ("linux/amd64", "linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64", "linux/amd64"),
        ("x86_64", "linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/x86-64", "linux/amd64"),
        ("aarch64", "linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64/v8", "linux/arm64"),
        ("arm64/8", "linux/arm64/8", "linux/arm64"),
        ("arm64/v7", "linux/arm64/v7", "linux/arm64/v7"),
        ("linux/arm", "linux/arm", "linux/arm/v7"),
        ("arm/6", "linux/arm/6", "linux/arm/v6"),
        ("armhf", "linux/armhf", "linux/arm/v7"),
        ("Linux/AMD64", "Linux/AMD64", "linux/amd64"),
        ("macos/arm64", "macos/arm64", "darwin/arm64"),
        ("windows/amd64", "windows/amd64", "windows/amd64"),
        ("unknown/unknown", "unknown/unknown", "unknown/unknown"),
        ("amd64/v1", "linux/amd64/v1", "linux/amd64"),
        ("amd64/v3", "linux/amd64/v3", "linux/amd64/v3"),
    ],
)
def test_platforms_and_their_usual_spelling(text: str, printed: str, normalised: str) -> None:
    """``[os/]architecture[/variant]``; aliases and implied variants fall together."""
    platform = Platform.parse(text)

    assert str(platform) == printed
    assert Platform.parse(printed) == platform
    assert str(platform.normalised()) == normalised
    assert platform.matches(Platform.parse(normalised))
    assert platform.normalised().normalised() == platform.normalised()


@pytest.mark.parametrize(
    "text", ["", "/", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "linux/amd64\n", "a" * 99]
)
def test_texts_that_are_no_platforms(text: str) -> None:
    """A system alone doesn't say what to run."""
    with pytest.raises(PlatformInvalidError) as caught:
        Platform.parse(text)

    assert caught.value.advice()


@pytest.mark.parametrize(
    ("one", "two", "match"),
    [
        (Platform("linux", "arm64"), Platform("linux", "arm64", "v8"), True),
        (Platform("linux", "arm64"), Platform("linux", "arm64", "v7"), False),
        (Platform("linux", "arm", "v6"), Platform("linux", "arm"), False),
        (Platform("linux", "amd64"), Platform("windows", "amd64"), False),
        (Platform("windows", "amd64", os_version="10.1"), Platform("windows", "amd64"), True),
        (Platform("windows", "amd64", os_version="10.1"), Platform("windows", "amd64", os_version="10.2"), False),
    ],
)
def test_matching(one: Platform, two: Platform, *, match: bool) -> None:
    """Matching goes both ways."""
    assert one.matches(two) is match
    assert two.matches(one) is match


def test_an_empty_platform_is_read() -> None:
    """podman writes empty names beside artifacts."""
    assert Platform.from_json({"architecture": "", "os": ""}) == Platform("", "")
