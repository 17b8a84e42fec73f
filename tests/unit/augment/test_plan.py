"""Plans are values: one text, one digest, and every mistake has a sentence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.augment.plan import (
    MARK,
    Plan,
    PlanEmptyError,
    PlanInvalidError,
    PlannedLayer,
    Profile,
    parse_variable,
    slots,
)
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.layer import Compression

UNHURRIED = settings(deadline=None)  # a busy machine isn't a mistake of ours


AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def layer(name: str, platform: Platform | None = None) -> PlannedLayer:
    return PlannedLayer(Digest.of(name.encode()), 10, Digest.of(f"tar of {name}".encode()), platform)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = texts.filter(lambda name: name and "=" not in name)
platforms = st.builds(
    Platform,
    st.sampled_from(["linux", "windows", "freebsd"]),
    st.sampled_from(["amd64", "x86_64", "arm64", "aarch64", "arm", "s390x"]),
    st.sampled_from([None, "v6", "v7", "v8", "8"]),
)
layers = st.builds(
    PlannedLayer,
    st.binary(max_size=4).map(Digest.of),
    st.integers(1, 2**40),
    st.binary(max_size=4).map(Digest.of),
    st.none() | platforms,
    st.sampled_from(Compression),
)
words = st.none() | st.lists(texts, max_size=3).map(tuple)
members = st.fixed_dictionaries(
    {
        "layers": st.lists(layers, max_size=4).map(tuple),
        "env": st.dictionaries(names, texts, max_size=4).map(lambda env: tuple(env.items())),
        "entrypoint": words,
        "cmd": words,
        "workdir": st.none() | texts.map(lambda text: "/" + text),
        "labels": st.dictionaries(names, texts, max_size=3).map(lambda labels: tuple(labels.items())),
    }
)
plans = members.filter(lambda given: any(value not in ((), None) for value in given.values())).map(
    lambda given: Plan(**given)
)


@UNHURRIED
@given(plans)
def test_a_plan_survives_its_text(plan: Plan) -> None:
    """`parse` is the inverse of `canonical`; the digest is the text's."""
    again = Plan.parse(plan.canonical())

    assert again == plan
    assert again.canonical() == plan.canonical()
    assert again.digest == plan.digest == Digest.of(plan.canonical().encode())


@UNHURRIED
@given(plans, plans)
def test_plans_differ_where_their_texts_differ(one: Plan, other: Plan) -> None:
    """Two plans have one digest exactly if they are equal."""
    assert (one == other) == (one.digest == other.digest)


@UNHURRIED
@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)).map(json.dumps))
def test_no_text_makes_parsing_fail_otherwise_than_by_name(text: str) -> None:
    """Whatever text is given, the answer is a plan or a PlanInvalidError."""
    with pytest.raises(PlanInvalidError):
        Plan.parse(text)


def test_the_text_of_a_plan_is_fixed() -> None:
    """Marks and derivations on disk hang on this text: a release that changes it must change the version."""
    plan = Plan(
        layers=(layer("a", Platform("linux", "aarch64", "v8")),),
        env=(("B", "2"), ("A", "ü=1")),
        entrypoint=("/x", "y z"),
        cmd=(),
        workdir="/w",
    )

    assert plan.canonical() == (
        '{"cmd":[],"entrypoint":["/x","y z"],"env":["B=2","A=ü=1"],'
        '"layers":[{"gzipDigest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","gzipSize":10,'
        '"platform":"linux/arm64","tarDigest":"sha256:2b4ce31ec64dcbce980bdaa793bb0df6926d6291dfb121d4b0569e0f7404226f"}],'
        '"version":1,"workdir":"/w"}'
    )


def test_members_that_came_later_change_no_text_of_before() -> None:
    """Labels, a profile and a compression are written where they say something, and read back."""
    plan = Plan(
        layers=(PlannedLayer(Digest.of(b"a"), 10, Digest.of(b"b"), compression=Compression.ZSTD),),
        labels=(("b", "2"), ("a", "ü")),
        profile=Profile.WAVE,
    )

    assert plan.canonical() == (
        '{"labels":{"a":"ü","b":"2"},"layers":[{"compression":"zstd",'
        '"gzipDigest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","gzipSize":10,'
        '"tarDigest":"sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"}],'
        '"profile":"wave","version":1}'
    )
    assert Plan.parse(plan.canonical()) == plan
    assert "compression" not in Plan(layers=(layer("a"),), profile=Profile.NATIVE).canonical()


def test_an_empty_plan_is_refused_by_name() -> None:
    """A rule that adds nothing is a forgotten line, not a wish."""
    with pytest.raises(PlanEmptyError) as caught:
        Plan()
    assert "empty" in str(caught.value)
    assert caught.value.advice()


def test_clearing_the_command_is_a_plan() -> None:
    """An empty list says something: the image's own command goes."""
    assert Plan(cmd=()) != Plan(entrypoint=())
    assert Plan.parse(Plan(cmd=()).canonical()).cmd == ()
    assert Plan.parse(Plan(cmd=()).canonical()).entrypoint is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"env": (("A", "1"), ("A", "2"))}, "twice"),
        ({"env": (("", "1"),)}, "name"),
        ({"env": (("A=B", "1"),)}, "name"),
        ({"env": (("A", "1\0"),)}, "NUL"),
        ({"labels": (("A", "1"), ("A", "2"))}, "twice"),
        ({"labels": (("", "1"),)}, "name"),
        ({"labels": ((MARK, "1"),)}, "by itself"),
        ({"labels": (("A", "\ud800"),)}, "Unicode"),
        ({"entrypoint": ("/x\0",)}, "NUL"),
        ({"cmd": ("\ud800",)}, "Unicode"),
        ({"workdir": "relative"}, "absolute"),
        ({"workdir": ""}, "absolute"),
    ],
)
def test_a_plan_that_no_image_could_carry_is_refused(wrong: dict[str, object], said: str) -> None:
    """The value can't be built wrong."""
    with pytest.raises(PlanInvalidError, match=said):
        Plan(**wrong)  # type: ignore[arg-type]


ZERO = "sha256:" + "0" * 64
NO_BYTES = json.dumps({"version": 1, "layers": [{"gzipSize": 0, "gzipDigest": ZERO, "tarDigest": ZERO}]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "JSON"),
        ("[]", "object"),
        ('{"env":["A=1"]}', "version"),
        ('{"version":2,"env":["A=1"]}', "version"),
        ('{"version":1}', "empty"),
        ('{"version":1,"envs":["A=1"]}', "envs"),
        ('{"version":1,"env":"A=1"}', "list"),
        ('{"version":1,"env":["A"]}', "="),
        ('{"version":1,"cmd":[1]}', "text"),
        ('{"version":1,"workdir":[]}', "text"),
        ('{"version":1,"layers":[1]}', "object"),
        ('{"version":1,"layers":[{"gzipSize":true}]}', "gzipSize"),
        ('{"version":1,"layers":[{"gzipSize":1}]}', "gzipDigest"),
        ('{"version":1,"layers":[{"gzipSize":1,"gzipDigest":"sha256:12","tarDigest":""}]}', "digest"),
        (NO_BYTES, "size"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_text_that_is_no_plan_says_why(text: str, said: str) -> None:
    """Each mistake is named."""
    with pytest.raises(PlanInvalidError, match=said):
        Plan.parse(text)


@pytest.mark.parametrize("platform", [Platform("amd64", "linux"), Platform("", ""), Platform("linux", "a/b")])
def test_a_layer_for_a_platform_without_a_text_is_refused(platform: Platform) -> None:
    """A platform that its own text doesn't give back would change the plan on its way to a worker."""
    with pytest.raises(PlanInvalidError, match="platform"):
        layer("a", platform)


@pytest.mark.parametrize(("text", "pair"), [("A=1", ("A", "1")), ("A=", ("A", "")), ("A=b=c", ("A", "b=c"))])
def test_a_variable_is_read(text: str, pair: tuple[str, str]) -> None:
    """The first `=` parts name and value."""
    assert parse_variable(text) == pair


A, B = "a", "b"


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ([], {"linux/amd64": [], "windows/amd64": []}),
        ([(A, None)], {"linux/amd64": [A], "linux/s390x": [A], "windows/amd64": None, "": None}),
        ([(A, AMD64)], {"linux/amd64": [A], "linux/x86_64": [A], "linux/arm64": None}),
        ([(A, AMD64), (B, None)], {"linux/amd64": [A, B], "linux/arm64": None}),
        ([(A, AMD64), (A, ARM64)], {"linux/amd64": [A], "linux/arm64/v8": [A], "linux/arm/v7": None}),
        (
            [(A, AMD64), (A, ARM64), (B, AMD64), (B, ARM64)],
            {"linux/amd64": [A, B], "linux/arm64": [A, B], "linux/arm": None},
        ),
        (
            [(A, AMD64), (B, AMD64), (A, ARM64), (B, ARM64)],
            {"linux/amd64": [A, B], "linux/arm64": [A, B]},
        ),
        ([(A, AMD64), (A, ARM64), (B, AMD64)], {"linux/amd64": [A, B], "linux/arm64": None}),
        ([(A, AMD64), (B, None), (A, ARM64)], {"linux/amd64": None, "linux/arm64": None}),
        ([(A, Platform("windows", "amd64"))], {"windows/amd64": [A], "linux/amd64": None}),
    ],
)
def test_a_platform_gets_all_layers_or_is_not_served(
    given: list[tuple[str, Platform | None]], served: dict[str, list[str] | None]
) -> None:
    """Each slot must have a variant that fits; without layers every platform is served."""
    plan = Plan(layers=tuple(layer(name, platform) for name, platform in given), env=(("K", "V"),))

    for platform, wanted in served.items():
        chosen = plan.variant_for(Platform.parse(platform) if platform else Platform("", ""))
        names = None if chosen is None else [part.gzip_digest for part in chosen]
        assert names == (None if wanted is None else [Digest.of(name.encode()) for name in wanted]), platform


@UNHURRIED
@given(st.lists(layers, max_size=6))
def test_slots_keep_every_layer_once(given: list[PlannedLayer]) -> None:
    """Grouping loses nothing, and no slot has two layers for one platform."""
    found = slots(given)

    assert sorted(map(repr, (layer for slot in found for layer in slot))) == sorted(map(repr, given))
    assert all(len({layer.platform for layer in slot}) == len(slot) for slot in found)
