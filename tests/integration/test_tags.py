"""Tag history and immutable tags, as they are used beside a running server."""

import json
import re
import subprocess
import sys
from pathlib import Path

from roadstead.testing.images import make_artifact
from roadstead.testing.server import RoadsteadServer

CONFIG = '[registry]\nimmutable = ["team/*:v*"]\n'


def test_tags_are_put_back_and_kept(tmp_path: Path) -> None:
    """A moved tag comes back by command and is served at once; an immutable one is answered 403 DENIED."""
    first, second = make_artifact(content=b"1"), make_artifact(content=b"2")
    with RoadsteadServer(tmp_path / "server", config=CONFIG) as server:
        client = server.client()
        for artifact in (first, second):
            for data in artifact.blobs.values():
                client.push_blob("team/app", data)
            client.push_manifest("team/app", "latest", artifact.raw, artifact.media_type)
        client.push_manifest("team/app", "v1", first.raw, first.media_type)
        where = [str(server.directory / "roadstead.toml"), "--data", str(server.data)]

        lines = run("tag", "history", "team/app:latest", "--json", *where).stdout.splitlines()
        restored = run("tag", "restore", "team/app:latest", *where)
        moved = client.put("/v2/team/app/manifests/v1", second.raw, {"Content-Type": second.media_type})
        removed = client.delete("/v2/team/app/manifests/v1")
        deleted = client.delete(f"/v2/team/app/manifests/{first.digest}")

        assert [json.loads(line)["digest"] for line in lines] == [str(second.digest), str(first.digest)]
        assert str(first.digest) in restored.stdout
        assert client.get("/v2/team/app/manifests/latest").body == first.raw
        assert [(answer.status, answer.code) for answer in (moved, removed, deleted)] == [(403, "DENIED")] * 3
        assert client.get("/v2/team/app/manifests/v1").body == first.raw
        assert run("tag", "restore", "team/app:v1", "--position", "1", *where).returncode == 1
        assert run("tag", "history", "team/app:never", *where).returncode == 1
        no_line = run("tag", "restore", "team/app:latest", "--position", "99999", *where)
        assert (no_line.returncode, "has no line 99999" in no_line.stderr) == (1, True)
        with_host = run("tag", "history", "registry.example/team/app:latest", *where)
        assert with_host.stderr.endswith("If registry.example is the registry, leave it out: team/app:latest\n")
        assert run("tag", "history", "team/app", *where).returncode == 2


def test_a_time_that_was_printed_means_that_change(tmp_path: Path) -> None:
    """Changes within one second are told apart, by the time in a line and by the one in the name to pull."""
    artifacts = [make_artifact(content=str(number).encode()) for number in range(3)]
    with RoadsteadServer(tmp_path / "server") as server:
        client = server.client()
        for artifact in artifacts:
            for data in artifact.blobs.values():
                client.push_blob("team/app", data)
            client.push_manifest("team/app", "latest", artifact.raw, artifact.media_type)
        where = [str(server.directory / "roadstead.toml"), "--data", str(server.data)]

        history = run("tag", "history", "team/app:latest", *where)
        printed = [" ".join(line.split()[1:3]) for line in history.stdout.splitlines()]
        named = re.search(r"as-of/([^/]+)/", history.stderr)
        assert named is not None

        for moment, artifact in [*zip(printed, reversed(artifacts), strict=True), (named[1], artifacts[1])]:
            done = run("tag", "restore", "team/app:latest", "--at", moment, *where)
            assert str(artifact.digest) in done.stdout, (moment, done.stdout, done.stderr)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it gave."""
    command = [sys.executable, "-m", "roadstead", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
