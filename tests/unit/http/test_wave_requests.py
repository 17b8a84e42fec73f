"""Requests of Wave's API: from JSON to what is wanted, or the one reason why not; and what is shown of them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from roadstead.augment.containers import NotDoneHereError
from roadstead.augment.wanted_layers import LayerRefusedError
from roadstead.errors import InvalidError, NotFoundError, RoadsteadError, UnavailableError
from roadstead.http.wave.errors import RequestInvalidError, respond
from roadstead.http.wave.paths import shown
from roadstead.http.wave.requests import Wish, decode, redacted, wished
from roadstead.http.wave.wire import ConfigBody, ContainerBody, LayerBody
from roadstead.oci.descriptor import Platform

DIGEST = f"sha256:{'0' * 64}"
LAYER = {"location": "https://u:p@example.com/a.tar.gz?sig=secret", "gzipDigest": DIGEST, "gzipSize": 5,
         "tarDigest": DIGEST}  # fmt: skip


def wish(second: bool = False, **members: Any) -> Wish:
    body = {"containerImage": "team/app:1", **members}
    return wished(decode(ContainerBody, json.dumps(body).encode()), second=second)


def test_what_is_wanted() -> None:
    """Every member, in Wave's words; what nobody knows is passed over."""
    found = wish(
        containerConfig={
            "layers": [{**LAYER, "skipHashing": True}],
            "env": ["A=1", "B=", "A=2=3"],
            "entrypoint": ["/e"],
            "cmd": ["c"],
            "workingDir": "/w",
        },
        containerPlatform="x86_64,linux/arm64/v8",
        unheard="of",
    )
    assert (found.env, found.entrypoint, found.cmd, found.workdir) == ((("A", "2=3"), ("B", "")), ("/e",), ("c",), "/w")
    assert found.platforms == (Platform("linux", "amd64"), Platform("linux", "arm64"))
    assert [layer.location for layer in found.layers] == [LAYER["location"]]
    plan = found.plan(())
    assert plan is not None
    assert plan.platforms == found.platforms


@pytest.mark.parametrize(
    "config", [None, {}, {"layers": []}, {"env": [], "cmd": [], "entrypoint": [], "workingDir": ""}, {"cmd": None}]
)
def test_an_empty_config_is_none(config: Mapping[str, Any] | None) -> None:
    """No plan: the image is served as it is."""
    assert wish(containerConfig=config).plan(()) is None


@pytest.mark.parametrize(
    ("members", "second", "error"),
    [
        ({"containerImage": None}, False, RequestInvalidError),
        ({"containerImage": "a b"}, False, RequestInvalidError),
        ({"containerImage": "docker://a"}, False, RequestInvalidError),
        ({"containerFile": "x"}, False, RequestInvalidError),
        ({"packages": {}}, True, RequestInvalidError),
        ({"condaFile": "x"}, True, RequestInvalidError),
        ({"condaFile": "x"}, False, NotDoneHereError),
        ({"nameStrategy": "none"}, False, RequestInvalidError),
        ({"mirror": True}, False, RequestInvalidError),
        ({"mirror": True}, True, NotDoneHereError),
        ({"mirror": True, "freeze": True}, True, RequestInvalidError),
        ({"freeze": True}, True, NotDoneHereError),
        ({"format": "sif"}, True, NotDoneHereError),
        ({"containerPlatform": ""}, False, RequestInvalidError),
        ({"containerPlatform": "linux/amd64,"}, False, RequestInvalidError),
        ({"containerConfig": {"env": ["A"]}}, False, RequestInvalidError),
        ({"containerConfig": {"env": ["=1"]}}, False, RequestInvalidError),
        ({"containerConfig": {"workingDir": "w"}}, False, RequestInvalidError),
        ({"containerConfig": {"cmd": ["\0"]}}, False, RequestInvalidError),
        ({"containerConfig": {"cmd": "word"}}, False, RequestInvalidError),
        ({"containerConfig": {"layers": [LAYER] * 33}}, False, RequestInvalidError),
        ({"containerConfig": {"layers": [{**LAYER, "gzipSize": 0}]}}, False, LayerRefusedError),
        ({"containerConfig": {"layers": [{**LAYER, "gzipDigest": "sha256:1"}]}}, False, LayerRefusedError),
        ({"containerConfig": {"layers": [{**LAYER, "location": None}]}}, False, LayerRefusedError),
    ],
)
def test_what_can_not_be_wanted(members: Mapping[str, Any], second: bool, error: type[RoadsteadError]) -> None:
    """One reason, of the kind that has its status."""
    with pytest.raises(error):
        wish(second, **members)


def test_what_is_shown_again() -> None:
    """Neither a layer's bytes, nor what signs an address, nor who asks there."""
    locations = ("data:AAAA", str(LAYER["location"]))
    config = ConfigBody(layers=[LayerBody(location, DIGEST, 5, DIGEST) for location in locations])
    found = redacted(config)
    assert found is not None
    assert [layer.location for layer in found.layers or ()] == ["data:DATA+OMITTED", "https://example.com/a.tar.gz"]
    assert redacted(None) is None


def test_bytes_are_left_out_however_the_scheme_is_written() -> None:
    """A layer's bytes are not kept with a token, in capitals either."""
    found = redacted(ConfigBody(layers=[LayerBody("Data:AAAA", DIGEST, 5, DIGEST)]))
    assert found is not None
    assert [layer.location for layer in found.layers or ()] == ["data:DATA+OMITTED"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/wt/abc/team/app/manifests/1", "/v2/wt/***/team/app/manifests/1"),
        ("/prefix/v2/wt/abc/x", "/prefix/v2/wt/***/x"),
        ("/v2/as-pushed/wt/abc/x/manifests/1", "/v2/as-pushed/wt/***/x/manifests/1"),
        ("/container-token/abc", "/container-token/***"),
        ("/container-token", "/container-token"),
        ("/v1alpha2/container/abc/status", "/v1alpha2/container/***/status"),
        ("/v2/team/app/manifests/1", "/v2/team/app/manifests/1"),
    ],
)
def test_paths_in_logs(path: str, expected: str) -> None:
    """A token in a path is masked, and nothing else is."""
    assert shown(path) == expected


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RequestInvalidError("a", "is wrong", "Do b."), 400, "a: is wrong. Do b."),
        (NotDoneHereError("freeze", "Leave it out."), 501, "freeze: this service does not do that. Leave it out."),
        (NotFoundError("gone"), 404, "gone"),
        (InvalidError("bad"), 400, "bad"),
        (UnavailableError("later"), 503, "later"),
    ],
)
def test_how_errors_are_told(error: RoadsteadError, status: int, message: str) -> None:
    """One member, with what could be tried next behind what was wrong."""
    answer = respond(error)
    assert (answer.status, json.loads(answer.body)) == (status, {"message": message})


def test_what_nobody_expected() -> None:
    """A number that is in the log, and no word of what it was."""
    answer = respond(ValueError("secret detail"))
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"Error ID: " in answer.body
