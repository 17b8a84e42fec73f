"""Names, tags and references, by the grammar of distribution-spec and Docker's rules for short names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Algorithm, Digest, DigestInvalidError
from roadstead.oci.reference import (
    ImageReference,
    NameInvalidError,
    ReferenceInvalidError,
    RepositoryName,
    Tag,
    TagInvalidError,
    parse_reference,
)

A = "sha256:" + "a" * 64

components = st.lists(st.sampled_from(["a", "0", "busybox", "x9"]), min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from([".", "_", "__", "-", "---"]).map(lambda separator: separator.join(words))
)
names = st.lists(components, min_size=1, max_size=4).map(lambda parts: RepositoryName("/".join(parts)))
tags = st.builds(
    lambda first, rest: Tag(first + rest),
    st.sampled_from("aZ0_"),
    st.text("aZ0_.-", max_size=127),
)
hosts = st.sampled_from(["docker.io", "localhost", "localhost:5000", "Reg", "ghcr.io", "a-b.c:65535", "[::1]:5000"])
references = st.builds(
    ImageReference,
    hosts,
    names,
    st.none() | tags,
    st.none() | st.just(Digest(Algorithm.SHA256, "a" * 64)),
).filter(lambda reference: reference.host != "docker.io" or len(reference.repository.components) > 1)


@pytest.mark.parametrize(
    "text",
    ["a", "0", "library/busybox", "a/blobs/uploads/b", "a.b", "a_b", "a__b", "a-b", "a-----b/c", "1.2/3", "a" * 255],
)
def test_names_that_are_names(text: str) -> None:
    """Words of the API may be components; 255 characters is the longest."""
    assert str(RepositoryName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "A",
        "a/B",
        ".a",
        "a.",
        "a..b",
        "a/../b",
        "..",
        "_catalog",
        "a/_uploads",
        "a___b",
        "a_-b",
        "a.-b",
        "-a",
        "a-",
        "a b",
        "a\n",
        "a\r\nX: y",
        "a\x00",
        "a\\b",
        "a:b",
        "a@b",
        "ä",
        "а",  # noqa: RUF001  (Cyrillic, which looks like ours)
        "１",  # noqa: RUF001
        "\N{KELVIN SIGN}",
        "a" * 256,
        "a" + "-" * 1_000_000,
        "a/" * 1_000_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_names_that_are_not(text: str) -> None:
    """Nothing that could leave a directory, a header or the route gets to be a name, however long it is."""
    with pytest.raises(NameInvalidError) as caught:
        RepositoryName.parse(text)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert caught.value.advice()


@given(names)
def test_a_printed_name_reads_back(name: RepositoryName) -> None:
    """``parse`` and ``str`` are each other's inverse."""
    assert RepositoryName.parse(str(name)) == name
    assert "/".join(name.components) == name.value


@pytest.mark.parametrize("text", ["a", "latest", "_", "1.0-rc.1_x", "A" * 128])
def test_tags_that_are_tags(text: str) -> None:
    """1 to 128 characters; case counts."""
    assert str(Tag.parse(text)) == text


@pytest.mark.parametrize("text", ["", ".", "..", ".a", "-a", "a/b", "a:b", "a b", "a\n", "é", "a" * 129, "a\r\nb"])
def test_tags_that_are_not(text: str) -> None:
    """A tag can't begin with a dot or a dash, nor hold anything that matters elsewhere."""
    with pytest.raises(TagInvalidError) as caught:
        Tag.parse(text)

    assert "\n" not in str(caught.value)
    assert caught.value.advice()


def test_names_and_tags_sort_by_their_text() -> None:
    """Lists are in lexical order (end-8)."""
    assert sorted(map(Tag, ["b", "a", "B"])) == [Tag("B"), Tag("a"), Tag("b")]
    assert sorted(map(RepositoryName, ["b", "a/b", "a"])) == [RepositoryName(text) for text in ("a", "a/b", "b")]


def test_the_colon_makes_a_digest() -> None:
    """A broken digest is reported as a broken digest, not looked up as a tag."""
    assert parse_reference("v1") == Tag("v1")
    assert parse_reference(A) == Digest.parse(A)
    with pytest.raises(DigestInvalidError):
        parse_reference("sha256:bad")
    with pytest.raises(TagInvalidError):
        parse_reference(".bad")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("org/app", "docker.io/org/app:latest"),
        ("localhost", "docker.io/library/localhost:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("registry:5000/a/b:v1", "registry:5000/a/b:v1"),
        ("Registry/x", "Registry/x:latest"),
        ("ghcr.io/org/a/b:1", "ghcr.io/org/a/b:1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        (f"busybox@{A}", f"docker.io/library/busybox@{A}"),
        (f"reg.local:5000/x:1@{A}", f"reg.local:5000/x:1@{A}"),
    ],
)
def test_short_names_are_completed_as_docker_does(text: str, printed: str) -> None:
    """Host, ``library/`` and ``latest`` are filled in."""
    assert str(ImageReference.parse(text)) == printed


def test_defaults_can_be_ones_own() -> None:
    """A registry completes names towards itself, and may leave the tag open."""
    reference = ImageReference.parse("team/app", default_host="reg.example:5000", default_tag=None)

    assert str(reference) == "reg.example:5000/team/app"
    assert reference.reference is None
    assert ImageReference.parse(f"a:1@{A}").reference == Digest.parse(A)
    assert ImageReference.parse("a:1").reference == Tag("1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        ":",
        "@",
        "a:",
        "a@",
        "a@sha256:bad",
        "a:b:c",
        "a b",
        " busybox",
        "https://host/x",
        "host:99999/x",
        "host:/x",
        "-h.io/x",
        "h_.io/x",
        "Busybox",
        "host.io/",
        "host.io//x",
        f"a@{A}@{A}",
        "h.io\n/x",
        "x" * 100_000,
        "h.io" * 100_000 + "/x",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_broken_references_say_which_part(text: str) -> None:
    """Every failure is a ReferenceInvalidError on one line."""
    with pytest.raises(ReferenceInvalidError) as caught:
        ImageReference.parse(text)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert caught.value.advice()


def test_a_host_that_would_not_read_back_is_refused() -> None:
    """``registry/x`` would be Docker Hub's."""
    with pytest.raises(ReferenceInvalidError):
        ImageReference("registry", RepositoryName("x"))


@given(references)
def test_a_printed_reference_reads_back(reference: ImageReference) -> None:
    """``parse`` and ``str`` are each other's inverse, once nothing is left to guess."""
    assert ImageReference.parse(str(reference), default_tag=None) == reference
