"""The profile that gives Wave's bytes: wave.md §2.10's example, and the rules of §2.3.2 beside it."""

import json
from typing import Any

import pytest

from roadstead.augment.plan import Plan, PlannedLayer, Profile
from roadstead.augment.rewrite import NotServed, Unchanged, becomes_of_others, derive_image, derive_index
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.layer import Compression
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mutate import Image
from roadstead.testing.images import TestImage, make_image, make_index

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")
LAYER = PlannedLayer(Digest.parse("sha256:" + "b" * 64), 345, Digest.parse("sha256:" + "a" * 64))
C0 = (
    b'{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/bin"],"Entrypoint":["/bin/tool","--flag"],'
    b'"Cmd":["run"]},"rootfs":{"type":"layers","diff_ids":["sha256:' + b"1" * 64 + b'"]}}'
)
M0 = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":'
    b'"application/vnd.oci.image.config.v1+json","digest":'
    b'"sha256:afd08913' + Digest.of(C0).encoded[8:].encode() + b'","size":236},"layers":[{"mediaType":'
    b'"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:' + b"2" * 64 + b'","size":1000}]}'
)
I0 = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":'
    b'"application/vnd.oci.image.manifest.v1+json","digest":"' + str(Digest.of(M0)).encode() + b'","size":402,'
    b'"platform":{"architecture":"amd64","os":"linux"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json",'
    b'"digest":"sha256:'
    + b"3" * 64
    + b'","size":700,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}'
)
PLAN = Plan(layers=(LAYER,), env=(("FOO", "bar"),), entrypoint=("/opt/fusion/entry.sh",), profile=Profile.WAVE)


def test_the_worked_example_is_wave_s_to_the_byte() -> None:
    """Config, manifest and index of wave.md §2.10, with the sizes and digests that stand there."""
    manifest, index = parse_manifest(M0, None), parse_manifest(I0, None)
    assert isinstance(manifest, ImageManifest)
    assert isinstance(index, ImageIndex)
    assert (len(C0), len(M0), len(I0)) == (236, 402, 506)

    image = derive_image(manifest, ImageConfig.parse(C0), PLAN, AMD64)

    assert isinstance(image, Image)
    assert (image.config.size, str(image.config.digest)) == (
        368,
        "sha256:788954f87c6510a6b9360fe49b07e8d5e446cd59f70df93f48f56b3398a1db78",
    )
    assert (image.manifest.size, str(image.manifest.digest)) == (
        562,
        "sha256:9c327af5cb9db1fcb8da246aa324663dbb8d7d201cdf672711bf0d44df28d7c9",
    )
    other = becomes_of_others(PLAN, ARM64)
    assert other is Unchanged.OTHER_PLATFORM
    result = derive_index(index, [image.manifest, other], PLAN)
    assert isinstance(result, ImageIndex)
    assert (result.size, str(result.digest)) == (
        506,
        "sha256:6b5fa51f8dc72b1231de181f31e9d15cf5f4dbbd7a6732b4751f546e3e21dd4d",
    )
    assert str(Digest.of(I0)).startswith("sha256:10f5ca88")
    assert str(Digest.of(M0)).startswith("sha256:84564c9d")


def settings_of(image: TestImage, plan: Plan) -> dict[str, Any]:
    derived = derive_image(image.manifest, ImageConfig.parse(image.config), plan)
    assert isinstance(derived, Image)
    settings: dict[str, Any] = json.loads(derived.config.raw)["config"]
    return settings


@pytest.mark.parametrize(
    ("given", "members", "wanted"),
    [
        ({"Env": ["A=0"]}, {"env": (("A", "1"),)}, {"Env": ["A=0", "A=1"]}),
        ({"Entrypoint": ["/a"]}, {"env": (("A", "1"),)}, {"Env": ["A=1", "WAVE_ENTRY_CHAIN=/a"], "Entrypoint": ["/a"]}),
        (
            {"Entrypoint": ["/a", "b c"]},
            {"entrypoint": ("/x",)},
            {"Env": ['WAVE_ENTRY_CHAIN=["/a","b c"]'], "Entrypoint": ["/x"]},
        ),
        (
            {"Entrypoint": "/a b"},
            {"cmd": ("c",)},
            {"Entrypoint": "/a b", "Cmd": ["c"], "Env": ["WAVE_ENTRY_CHAIN=/a b"]},
        ),
        ({}, {"entrypoint": ("/x",)}, {"Entrypoint": ["/x"]}),
        ({"Cmd": ["c"]}, {"entrypoint": (), "cmd": (), "workdir": "/w"}, {"Cmd": ["c"], "WorkingDir": "/w"}),
        ({}, {"labels": (("b", "2"), ("a", "1"))}, {"Labels": {"a": "1", "b": "2"}}),
    ],
)
def test_settings_are_merged_as_wave_does(
    given: dict[str, Any], members: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """Appended and never replaced by name; the chain is last, is set always, and is bare for one word."""
    image = make_image(config={"Env": None, "Cmd": None, **given})

    settings = settings_of(image, Plan(profile=Profile.WAVE, **members))

    assert {name: value for name, value in settings.items() if value} == wanted


def test_layers_have_docker_s_type_and_no_mark() -> None:
    """In OCI manifests too; history and annotations stay, and a zstd layer is called one."""
    image = make_image()
    zstd = PlannedLayer(LAYER.gzip_digest, 345, LAYER.tar_digest, compression=Compression.ZSTD)
    plan = Plan(layers=(LAYER, zstd), profile=Profile.WAVE)

    derived = derive_image(image.manifest, ImageConfig.parse(image.config), plan)

    assert isinstance(derived, Image)
    assert [layer.media_type for layer in derived.manifest.layers[-2:]] == [
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ]
    assert derived.manifest.annotations == {}
    assert derived.config.labels == {}
    assert len(derived.config.history) == len(ImageConfig.parse(image.config).history)


def test_what_lies_there_is_not_put_on_again() -> None:
    """An image that was augmented and pushed elsewhere keeps its layers; one made here is known anyway."""
    image = make_image()
    config = ImageConfig.parse(image.config)
    once = derive_image(image.manifest, config, PLAN)
    assert isinstance(once, Image)

    assert derive_image(once.manifest, once.config, PLAN) is Unchanged.PRESENT
    assert derive_image(image.manifest, config, PLAN, made_here=True) is Unchanged.DERIVED


def test_an_index_without_what_was_asked_for_is_not_served() -> None:
    """Wave says which platform it misses; so does this."""
    index = make_index([make_image(platform="linux/arm64/v8")]).index

    assert derive_index(index, [Unchanged.OTHER_PLATFORM], PLAN) == NotServed((ARM64,))
    asked = Plan(env=(("A", "1"),), platforms=(Platform("linux", "arm64"),), profile=Profile.WAVE)
    assert becomes_of_others(asked, ARM64) is None
    assert becomes_of_others(asked, AMD64) is Unchanged.OTHER_PLATFORM
