"""Images changed and pulled on the way: for each promise, and for each misdeed of others, the tests that show it.

`ROWS` is the table. What it names lies here where no neighbour had it.
"""

import ast
import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from tests.integration.container_api import ACCEPT, ask, layer_object, pulled, push
from tests.integration.rebinding import GOOD, MANY, told
from tests.integration.test_proxy import serving

from roadstead.augment.turns import RETRY_AFTER_S, Shares
from roadstead.oci.digest import Digest
from roadstead.storage import keys
from roadstead.testing.client import Answer, Client
from roadstead.testing.images import TestIndex, make_attestation, make_image, make_index, make_layer
from roadstead.testing.scripted_upstream import Handler, Misdeed, ScriptedUpstream, answers, scripted_upstream, stalls
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import ServerNotReadyError, wait_until

HERE = "tests/integration/test_augment_rows.py"
AUGMENT = "tests/integration/test_augment.py"
LAYERS = "tests/integration/test_container_layers.py"
TOKENS = "tests/integration/test_container_tokens.py"
RIGHTS = "tests/integration/test_container_rights.py"
SOURCES = "tests/integration/test_layer_sources.py"
PROXY = "tests/integration/test_proxy.py"
MANNERS = "tests/integration/test_proxy_manners.py"
SIGNED_IN = "tests/integration/test_proxy_sign_in.py"
UPSTREAM = "tests/integration/test_upstream.py"
COPY = "tests/integration/test_copy.py"
SIGNING = "tests/integration/test_signing.py"
CLIENTS = "tests/e2e/test_pull_through.py"
REWRITE = "tests/unit/augment/test_rewrite.py"
SOAK = "tests/soak/test_pull_through.py"

ROWS: Mapping[str, tuple[str, ...]] = {
    # Indexes
    "docker, podman, crane, skopeo and ctr get their platform, augmented": (
        f"{CLIENTS}::test_docker_by_our_name",
        f"{CLIENTS}::test_podman_by_its_mirrors",
        f"{CLIENTS}::test_tools_get_each_platform",
        f"{CLIENTS}::test_containerd_by_its_mirrors",
        "tests/e2e/test_other_clients.py::test_skopeo_copies_every_platform_augmented_and_the_original_as_it_was",
    ),
    "a platform without a variant of a layer is absent": (
        f"{HERE}::test_machines_workers_and_restarts_agree",
        f"{REWRITE}::test_a_platform_without_layers_is_not_served",
        "tests/unit/augment/test_augmenter.py::test_a_platform_without_layers_is_left_out",
    ),
    "attestations are kept": (
        f"{HERE}::test_machines_workers_and_restarts_agree",
        f"{CLIENTS}::test_attestations_come_along",
        f"{MANNERS}::test_attestations_are_kept",
        f"{REWRITE}::test_an_index_keeps_everything_but_what_was_derived",
    ),
    "digests are the same after restarts, in all workers, on every machine": (
        f"{HERE}::test_machines_workers_and_restarts_agree",
        f"{TOKENS}::test_every_worker_knows_every_token",
        f"{REWRITE}::test_the_worked_example_comes_out_byte_for_byte",
        "tests/unit/augment/test_augmenter.py::test_workers_agree_without_talking",
        "tests/unit/augment/test_plan.py::test_the_text_of_a_plan_is_fixed",
    ),
    "a derived digest pulls again after its bytes were collected": (
        f"{AUGMENT}::test_a_pinned_digest_is_derived_again",
        "tests/unit/augment/test_augmenter.py::test_what_was_collected_is_derived_again",
    ),
    "augment.profile = wave makes Wave's bytes": (
        "tests/unit/augment/test_wave.py::test_the_worked_example_is_wave_s_to_the_byte",
        f"{AUGMENT}::test_wave_s_profile",
        f"{AUGMENT}::test_wave_s_profile_below_a_token",
    ),
    # An upstream that misbehaves
    "an upstream that cuts": (
        f"{PROXY}::test_a_cut_download_goes_on",
        f"{UPSTREAM}::test_a_cut_pull_is_resumed",
        f"{UPSTREAM}::test_a_registry_that_always_cuts_is_given_up",
    ),
    "an upstream that stalls": (
        f"{PROXY}::test_limits_stalls_and_denials",
        f"{UPSTREAM}::test_a_stalled_pull_is_resumed",
        f"{SOAK}::test_an_upstream_that_stalls_is_asked_for_the_rest",
    ),
    "an upstream that lies about a length": (
        f"{MANNERS}::test_a_size_that_is_a_lie",
        f"{PROXY}::test_nothing_unverified_is_served_as_whole",
        f"{UPSTREAM}::test_lies_are_found",
    ),
    "an upstream that serves wrong bytes": (
        f"{PROXY}::test_nothing_unverified_is_served_as_whole",
        f"{PROXY}::test_a_manifest_that_lies_is_refused",
        f"{UPSTREAM}::test_a_manifest_that_lies",
        "tests/unit/proxy/test_fills.py::test_no_end_is_given_before_all_is_right",
    ),
    "an upstream that limits": (
        f"{PROXY}::test_limits_stalls_and_denials",
        f"{MANNERS}::test_a_budget_near_its_end_is_kept",
        f"{UPSTREAM}::test_retry_after_is_kept_to",
        f"{UPSTREAM}::test_a_limit_for_hours_is_told",
    ),
    "an upstream whose tokens expire": (
        f"{MANNERS}::test_a_token_that_ends_in_the_middle",
        f"{UPSTREAM}::test_a_token_that_ended",
        f"{UPSTREAM}::test_short_lived_tokens_are_renewed_in_time",
    ),
    "an upstream that redirects elsewhere": (
        f"{PROXY}::test_an_upstream_sends_us_nowhere_else",
        f"{PROXY}::test_a_realm_elsewhere_gets_no_password",
        f"{UPSTREAM}::test_credentials_do_not_follow_to_another_host",
        f"{UPSTREAM}::test_redirects_in_a_circle",
    ),
    "an upstream that dies": (
        f"{MANNERS}::test_an_upstream_that_dies",
        f"{PROXY}::test_a_pull_brings_everything_once",
    ),
    "fifty clients cost the upstream one download": (f"{PROXY}::test_many_clients_cost_one_download",),
    # Names
    "a deleted private name never falls through": (
        f"{PROXY}::test_what_was_ever_hosted_stays_ours",
        "tests/unit/proxy/test_spaces.py::test_reads",
    ),
    "collisions at an import are listed": (
        "tests/integration/test_import.py::test_names_that_mean_something_else_here",
        "tests/integration/test_import_images.py::test_names_that_mean_something_else",
        f"{COPY}::test_names_that_mean_something_else_at_the_target",
        "tests/unit/proxy/test_collisions.py::test_names_that_collide",
    ),
    "policies hold for proxied names": (f"{PROXY}::test_policies_and_tokens_for_an_upstreams_images",),
    # kill -9
    "a kill in the middle leaves nothing half-made": (
        f"{PROXY}::test_a_killed_server_leaves_nothing_half_made",
        f"{PROXY}::test_a_worker_that_is_killed_breaks_off_what_others_read",
        f"{SOAK}::test_kills_while_images_arrive",
        f"{SOAK}::test_kills_before_each_step_of_a_rewrite",
    ),
    # What else there is
    "Amazon's registry": (
        f"{SIGNED_IN}::test_an_image_is_pulled_as_somebody",
        "tests/unit/upstream/test_ecr.py::test_a_password_is_read",
    ),
    "credential helpers": (
        f"{SIGNED_IN}::test_an_image_is_pulled_as_somebody",
        f"{SIGNED_IN}::test_a_helper_that_fails",
    ),
    "included images": (
        f"{LAYERS}::test_included_images",
        f"{LAYERS}::test_the_command_includes_images",
        f"{AUGMENT}::test_a_docker_registry_with_passwords_as_source",
        f"{SOURCES}::test_platforms_with_different_numbers_of_layers",
    ),
    "zstd": (
        f"{AUGMENT}::test_a_zstd_layer",
        f"{AUGMENT}::test_an_image_with_zstd_layers_keeps_them",
        f"{MANNERS}::test_zstd_and_foreign_layers_pass",
    ),
    "layers at docker://": (
        f"{LAYERS}::test_a_layer_that_lies_elsewhere",
        f"{AUGMENT}::test_a_docker_registry_with_tokens_as_source",
    ),
    "rules that read what lies here": (
        f"{HERE}::test_rules_read_what_lies_here",
        f"{LAYERS}::test_our_own_layers_and_images",
    ),
    "copies in and out": (
        f"{COPY}::test_all_of_an_image",
        f"{COPY}::test_layouts",
        f"{COPY}::test_tokens",
        f"{COPY}::test_a_whole_registry",
    ),
    "signatures verified and made": (
        f"{SIGNING}::test_a_signed_image_is_served",
        f"{SIGNING}::test_images_of_upstreams_are_checked_where_they_are",
        f"{SIGNING}::test_an_augmented_image_comes_with_provenance",
        "tests/soak/test_signing_tools.py::test_cosign_verifies_what_is_made_here",
    ),
    # Abuse
    "a layer at a private address": (
        f"{LAYERS}::test_layers_that_are_not_had",
        f"{SOURCES}::test_private_addresses",
        f"{SOURCES}::test_callers_reach_what_settings_name_and_no_more",
        f"{TOKENS}::test_credentials_for_what_is_not_asked",
    ),
    "a name that leads elsewhere the second time (DNS rebinding)": (
        f"{HERE}::test_names_that_lead_elsewhere",
        f"{SOURCES}::test_a_name_that_leads_elsewhere_the_second_time",
        f"{UPSTREAM}::test_the_socket_is_checked_too",
    ),
    "a redirect to a private address": (
        f"{HERE}::test_names_that_lead_elsewhere",
        f"{HERE}::test_layers_that_do_harm",
        f"{SOURCES}::test_redirects_are_checked_again",
    ),
    "a layer without an end": (
        f"{HERE}::test_layers_that_do_harm",
        f"{SOURCES}::test_an_endless_layer_is_cut_at_once",
    ),
    "a layer that is sent too slowly, or not to its end": (
        f"{HERE}::test_a_layer_server_that_stalls",
        f"{SOURCES}::test_a_layer_that_never_comes",
    ),
    "somebody who has slow servers asked until nobody else is served": (
        f"{HERE}::test_nobody_has_all_the_places",
        "tests/unit/augment/test_turns.py::test_one_who_asks_gets_half_of_the_places",
        "tests/unit/augment/test_turns.py::test_no_place_is_lost_and_none_made_up",
    ),
    "a few kilobytes that unpack to gigabytes": (
        f"{HERE}::test_layers_that_do_harm",
        f"{SOURCES}::test_a_bomb_ends_after_what_is_allowed",
        f"{SOURCES}::test_a_window_larger_than_engines_have_is_refused",
        "tests/unit/augment/test_wanted_layers.py::test_layers_of_one_request_unpack_to_little",
    ),
    "a layer of another digest": (
        f"{HERE}::test_layers_that_do_harm",
        f"{LAYERS}::test_layers_that_are_not_had",
        f"{TOKENS}::test_layers_that_are_not_what_they_say",
        f"{SOURCES}::test_every_number_is_checked",
    ),
    "a data: that is too large": (
        f"{TOKENS}::test_bodies_that_are_no_requests",
        f"{SOURCES}::test_what_is_no_location",
        "tests/unit/augment/test_wanted_layers.py::test_how_much_a_request_carries",
        "tests/unit/augment/test_wanted_layers.py::test_a_scheme_in_capitals_is_the_same_scheme",
    ),
    "a path on the server from somebody elsewhere": (
        f"{TOKENS}::test_layers_that_are_not_what_they_say",
        f"{SOURCES}::test_what_is_no_location",
    ),
    "container tokens that are guessed": (
        f"{TOKENS}::test_guesses_are_limited",
        f"{TOKENS}::test_unknown_tokens",
        "tests/unit/augment/test_wanted_layers.py::test_tokens_are_random",
    ),
    "a private layer by somebody else's token": (
        f"{TOKENS}::test_what_a_token_derives_is_seen_below_it_alone",
        f"{TOKENS}::test_the_space_of_a_token_has_no_name",
        f"{LAYERS}::test_our_own_layers_need_the_right_to_pull_them",
        f"{LAYERS}::test_an_upstreams_layer_needs_the_right_to_pull_it",
        f"{SOURCES}::test_bytes_that_are_here_are_no_proof",
        f"{RIGHTS}::test_a_creator_who_lost_the_right",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_tests(row: str) -> None:
    """Whatever the table names is there, and is a test."""
    for reference in ROWS[row]:
        path, _, name = reference.partition("::")
        assert name in functions_of(path), reference


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of a file's functions."""
    tree = ast.parse((Path(__file__).parents[2] / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


# Indexes

AMD64_LAYER = make_layer({"added.txt": b"for one processor\n"})
ARM64_LAYER = make_layer({"added.txt": b"for another\n"})


def inline(layer: Any, platform: str) -> str:
    return f'{{ location = "{layer_object(layer)["location"]}", platform = "{platform}" }}'


def served_by(server: RoadsteadServer) -> list[bytes]:
    """Return what each worker serves, with all that it lists, byte for byte."""
    found = []
    for worker in server.workers:
        client = server.client_of(worker)
        index = client.get("/v2/team/app/manifests/1", ACCEPT)
        assert index.status == 200, index.body
        parts = [index.body]
        for entry in index.json()["manifests"]:
            child = client.get(f"/v2/team/app/manifests/{entry['digest']}", ACCEPT)
            assert str(Digest.of(child.body)) == entry["digest"]
            parts += [child.body, client.get(f"/v2/team/app/blobs/{child.json()['config']['digest']}").body]
        found.append(b"".join(parts))
    return found


def index_of_three() -> TestIndex:
    images = [make_image(platform=f"linux/{name}", seed=name) for name in ("amd64", "arm64", "s390x")]
    return make_index([*images, *(make_attestation(image) for image in images)])


def test_machines_workers_and_restarts_agree(tmp_path: Path) -> None:
    """Two servers that know nothing of each other, and one that was started again, serve the same bytes from each of
    their workers: the platforms that the layer is for, and what attests them; the third platform isn't there.
    """
    layers = f"[{inline(AMD64_LAYER, 'linux/amd64')}, {inline(ARM64_LAYER, 'linux/arm64')}]"
    config = f'[[augment.rules]]\nmatch = "team/*"\nlayers = {layers}\nenv = ["ADDED=yes"]\n'
    first, second = (RoadsteadServer(tmp_path / f"{count}", config=config, workers=count) for count in (2, 1))
    served: list[bytes] = []
    for server in (first, second, first):
        with server:
            if not served or server is second:
                push(server.client(), "team/app", index_of_three(), "1")
            served += served_by(server)
            listed = server.client().get("/v2/team/app/manifests/1", ACCEPT).json()["manifests"]
            kinds = [entry["platform"]["architecture"] for entry in listed]
            missing = server.client().get(f"/v2/team/app/manifests/{index_of_three().children[2].digest}", ACCEPT)
            assert missing.status == 200, "by its own digest it is there"

    assert len(served) == 5
    assert len(set(served)) == 1
    assert [kind for kind in kinds if kind != "unknown"] == ["amd64", "arm64"]
    assert "unknown" in kinds


# What lies here


def test_rules_read_what_lies_here(tmp_path: Path) -> None:
    """A rule names a layer and an image by the host of `server.public_url`, which nobody listens at: they are read
    where they lie, as they were pushed. What isn't there stops the start with the rule's name.
    """
    tools = make_image(layers=2, seed="own tools")
    own = "registry.test:5000"
    with RoadsteadServer(tmp_path, workers=1) as server:
        client = server.client()
        client.push_blob("team/layers", AMD64_LAYER.raw)
        push(client, "team/tools", tools, "1")
        push(client, "team/app", make_image(seed="own app"), "1")
    rule = f"""
[server]
public_url = "http://{own}"

[[augment.rules]]
match = "team/app"
layers = ["docker://{own}/team/layers@{AMD64_LAYER.digest}"]
includes = ["{own}/team/tools:1"]
"""
    with RoadsteadServer(tmp_path, config=rule, workers=1) as server:
        config, layers = pulled(server.client(), f"{server.host}/team/app:1")
        added = (AMD64_LAYER, *tools.layers)
        assert config["rootfs"]["diff_ids"][-3:] == [str(one.diff_id) for one in added]
        assert all(layers[str(one.digest)] == one.raw for one in added)

    missing = RoadsteadServer(tmp_path, config=rule.replace("tools:1", "tools:none"), workers=1)
    with pytest.raises(ServerNotReadyError):
        missing.start()
    assert "team/app" in missing.log
    assert "team/tools" in missing.log
    assert "roadstead.invalid" not in missing.log


# Callers' layers, at a running server

LAYER = make_layer({"foo.txt": b"slowly\n" * 100})
HARM = """
[augment]
location_hosts = ["HOST"]
max_layer_unpacked_bytes = "1MiB"
layer_patience = "PATIENCE"

[auth]
accounts = true

[[auth.policies]]
subjects = ["anonymous"]
repositories = ["team/*"]
actions = ["pull", "push", "augment"]
"""


@asynccontextmanager
async def open_harbour(directory: Path, upstream: ScriptedUpstream, patience: str) -> AsyncIterator[RoadsteadServer]:
    """Run a server of one worker that has layers fetched from the upstream for everybody."""
    config = HARM.replace("HOST", upstream.host).replace("PATIENCE", patience)
    async with serving(directory, config, workers=1) as server:
        with Client(server.host) as client:
            await asyncio.to_thread(push, client, "team/app", make_image(seed="harm"), "1")
        yield server


@dataclass(frozen=True, slots=True)
class Harbour:
    """Such a server, and the upstream."""

    server: RoadsteadServer
    upstream: ScriptedUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def harbour(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Harbour]:
    """The server for what need not be waited for; each test takes addresses of its own."""
    async with (
        scripted_upstream() as upstream,
        open_harbour(tmp_path_factory.mktemp("harbour"), upstream, "10m") as server,
    ):
        yield Harbour(server, upstream)


def wanted(location: str, layer: Any = LAYER, **changed: object) -> Mapping[str, Any]:
    layers = [layer_object(layer, location=location, **changed)]
    return {"containerImage": "team/app:1", "containerConfig": {"layers": layers}}


def asks(host: str, body: Mapping[str, Any], source: str = "127.0.0.1") -> Answer:
    """Ask for a token on a connection of its own, from an address of this machine."""
    with Client(host, source=source) as client:
        return ask(client, body)


def answering(body: bytes) -> Misdeed:
    """Answer with a layer, or what is called one."""
    return answers(200, body=body)


@dataclass(frozen=True, slots=True)
class Endless:
    """Sends zeros until it is hung up on."""

    ended: asyncio.Event

    async def __call__(self, request: web.Request, _: Handler) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(64 << 10))
        finally:
            self.ended.set()


@pytest.mark.asyncio(loop_scope="module")
async def test_layers_that_do_harm(harbour: Harbour) -> None:
    """Without an end, of another digest, unpacking to more than is allowed, or behind a redirect to where nobody may
    go: each is refused in words, nothing of it is kept, and the next layer is had.
    """
    bomb = gzip.compress(bytes(64 << 20))
    said_of_bomb = {"gzipDigest": str(Digest.of(bomb)), "gzipSize": len(bomb)}
    layer = make_layer({"harm.txt": b"no harm\n"})
    server, upstream = harbour.server, harbour.upstream
    async with scripted_upstream() as stranger:
        endless = Endless(asyncio.Event())
        upstream.will("GET", "/endless", endless)
        upstream.will("GET", "/bomb", answering(bomb))
        upstream.will("GET", "/other", answering(layer.raw[:-1] + b"x"))
        upstream.will("GET", "/moved", answers(302, {"Location": f"{stranger.url}/layer"}))
        upstream.will("GET", "/good", answering(layer.raw))
        for path, changed, said in (
            ("endless", {}, f"more than the {len(layer.raw)} bytes"),
            ("bomb", said_of_bomb, "unpack"),
            ("other", {}, "its digest is"),
            ("moved", {}, "can't be asked from here"),
        ):
            answer = await asyncio.to_thread(asks, server.host, wanted(f"{upstream.url}/{path}", layer, **changed))
            assert answer.status == 400, (path, answer)
            assert said in answer.json()["message"], path
        async with asyncio.timeout(20):
            await endless.ended.wait()
        assert stranger.requests == []
        for digest in (Digest.of(bomb), layer.digest):
            assert not (server.data / keys.blob(digest)).exists()
        good = await asyncio.to_thread(asks, server.host, wanted(f"{upstream.url}/good", layer))
        assert good.status == 200, good.body


async def until_gone(request: web.Request) -> None:
    """Return when whoever asked has hung up, of which a server is told by nothing else."""
    while True:
        if request.transport is None or request.transport.is_closing():
            return
        await asyncio.sleep(0.05)


async def test_a_layer_server_that_stalls(tmp_path: Path) -> None:
    """In the middle of a layer, of a registry's blob, or before a word: after `augment.layer_patience` whoever asked is
    told so, and to come back; the server is hung up on, and its place is free.
    """
    hung_up: list[int] = []

    def stalling(begun: int) -> Misdeed:
        async def stall(request: web.Request, _: Handler) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": str(len(LAYER.raw))})
            if begun:
                await response.prepare(request)
                await response.write(LAYER.raw[:begun])
            await until_gone(request)
            hung_up.append(begun)
            return response

        return stall

    async with scripted_upstream() as upstream:
        upstream.blobs["org/tools", str(LAYER.digest)] = LAYER.raw
        upstream.will("GET", "/slow", stalling(100), stalling(0))
        upstream.will("GET", "/blobs/", stalls(100, 600))
        async with open_harbour(tmp_path, upstream, "1s") as server:
            locations = [*[f"{upstream.url}/slow"] * 2, f"docker://{upstream.host}/org/tools@{LAYER.digest}"]
            for location in locations:
                answer = await asyncio.to_thread(asks, server.host, wanted(location))
                assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True), (location, answer)
                assert "didn't arrive within 1 s" in answer.json()["message"]
            assert await asyncio.to_thread(wait_until, lambda: hung_up == [100, 0], timeout=timedelta(seconds=20))


@pytest.mark.asyncio(loop_scope="module")
async def test_nobody_has_all_the_places(harbour: Harbour) -> None:
    """One caller asks for far more layers than a worker fetches at once, of a server that sends nothing: half of the
    places are theirs, as many requests as may wait do so, and one beyond is told to come back (429). Others don't
    notice. When the server wakes up all of theirs are had.
    """
    waiting = Shares().waiting
    held = Shares().places // 2
    wakes = asyncio.Event()

    async def hold(request: web.Request, _: Handler) -> web.StreamResponse:
        await wakes.wait()
        return web.Response(body=LAYER.raw)

    server, upstream = harbour.server, harbour.upstream
    upstream.will("GET", "/slow", *[hold] * (held + waiting))
    upstream.will("GET", "/quick", *[answering(LAYER.raw)] * 3)
    slow = wanted(f"{upstream.url}/slow")
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(held + waiting + 1) as threads:
        greedy = [loop.run_in_executor(threads, asks, server.host, slow) for _ in range(held + waiting + 1)]
        done, pending = await asyncio.wait(greedy, return_when=asyncio.FIRST_COMPLETED)
        refused = [one.result() for one in done]
        assert [(one.status, one.headers["retry-after"]) for one in refused] == [(429, str(RETRY_AFTER_S))]
        assert f"{held} of your layers are being fetched" in refused[0].json()["message"]

        for _ in range(3):
            other = await asyncio.to_thread(asks, server.host, wanted(f"{upstream.url}/quick"), "127.0.0.2")
            assert other.status == 200, other.body
        assert len(upstream.seen("GET", "/slow")) == held
        assert not any(one.done() for one in pending)

        wakes.set()
        assert {one.status for one in await asyncio.gather(*pending)} == {200}
    assert len(upstream.seen("GET", "/slow")) == held + waiting


def test_names_that_lead_elsewhere(tmp_path: Path) -> None:
    """A server whose names an attacker answers for, in a network with a public address and private ones (DNS
    rebinding): layers are had from the public one, and at the private ones nobody is ever connected to; neither when a
    name has moved there between two looks, nor when it is at both, nor by a redirect, a registry, an image that is
    included or looked at, or a password that is tried. Callers hear the same of all of them.
    """
    found = told(tmp_path)

    assert found["met"] == []
    cases = found["cases"]
    assert cases.pop(GOOD)[0] == 200
    assert cases.pop("flips.test") == [200, 400] * MANY
    for case, (status, message) in cases.items():
        assert (status, "can't be asked from here" in message) == (400, True), (case, message)
    assert found["asked"]["moves.test"] == 2, "its first address was public, and asked"
    assert found["asked"]["flips.test"] == 2 * MANY
    assert found["public"] == MANY + 4
