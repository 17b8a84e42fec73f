"""Image configs: read tolerantly where builders differ, strictly where it matters."""

import json
from typing import Any

import pytest

from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import History, ImageConfig, ImageConfigInvalidError


def test_everything_is_read() -> None:
    """Under the names that config.md gives it."""
    raw = json.dumps(
        {
            "architecture": "arm64",
            "os": "linux",
            "variant": "v8",
            "config": {
                "Env": ["A=1"],
                "Entrypoint": ["/e"],
                "Cmd": ["c"],
                "WorkingDir": "/w",
                "User": "1:1",
                "Labels": {"l": "v"},
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "a" * 64]},
            "history": [{"created": "t", "created_by": "x", "empty_layer": True}, {}],
        }
    ).encode()
    config = ImageConfig.parse(raw)

    assert (config.raw, config.digest, config.size) == (raw, Digest.of(raw), len(raw))
    assert config.platform == Platform("linux", "arm64", "v8")
    assert (config.env, config.entrypoint, config.cmd) == (("A=1",), ("/e",), ("c",))
    assert (config.workdir, config.user, config.labels) == ("/w", "1:1", {"l": "v"})
    assert config.diff_ids == (Digest.parse("sha256:" + "a" * 64),)
    assert config.history == (History(created="t", created_by="x", empty_layer=True), History())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": None, "rootfs": None, "history": None},
        {"config": {"Env": None, "Entrypoint": None, "Cmd": [], "WorkingDir": "", "User": "", "Labels": None}},
        {"config": {"Entrypoint": ""}, "rootfs": {"diff_ids": None}},
    ],
)
def test_absent_null_and_empty_are_alike(document: dict[str, Any]) -> None:
    """Builders write all three."""
    config = ImageConfig.parse(json.dumps(document).encode())

    assert (config.env, config.entrypoint, config.cmd, config.workdir, config.user) == ((), None, None, None, None)
    assert (config.labels, config.diff_ids, config.history) == ({}, (), ())


def test_a_plain_string_is_a_command_of_one() -> None:
    """Some old builders wrote one."""
    assert ImageConfig.parse(b'{"config":{"Entrypoint":"/bin/sh","Cmd":"x"}}').entrypoint == ("/bin/sh",)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[]", "expected an object"),
        (b'{"os":1}', "isn't a string"),
        (b'{"config":[]}', "config is an array"),
        (b'{"config":{"Env":"A=1"}}', "Env"),
        (b'{"config":{"Env":[1]}}', "Env"),
        (b'{"config":{"Cmd":[null]}}', "Cmd"),
        (b'{"config":{"WorkingDir":1}}', "WorkingDir is a number"),
        (b'{"config":{"Labels":{"a":1}}}', "Labels"),
        (b'{"rootfs":{"diff_ids":["x"]}}', "diff_ids"),
        (b'{"rootfs":{"diff_ids":{}}}', "diff_ids"),
        (b'{"history":{}}', "history"),
        (b'{"history":[1]}', "history"),
        (b'{"a":1,"a":2}', "twice"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, reason: str) -> None:
    """With the member's name."""
    with pytest.raises(ImageConfigInvalidError) as caught:
        ImageConfig.parse(raw)

    assert reason in str(caught.value)
