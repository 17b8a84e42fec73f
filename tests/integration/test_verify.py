"""`roadstead verify` beside a running server: damage is told, mended, and healed by a push."""

import json
import subprocess
import sys
from pathlib import Path

from roadstead.storage import keys
from roadstead.testing.images import make_image
from roadstead.testing.server import RoadsteadServer


def test_a_damaged_blob_is_healed_by_a_push(tmp_path: Path) -> None:
    """Found by its bytes, put aside on demand, asked for again by clients, and all is well after they pushed."""
    image = make_image(layers=2, size=200_000)
    damaged = image.layers[0]
    with RoadsteadServer(tmp_path / "server") as server:
        client = server.client()
        for data in image.blobs.values():
            client.push_blob("team/app", data)
        client.push_manifest("team/app", "1", image.raw, image.media_type)
        path = server.data / keys.blob(damaged.digest)
        fine = verify(server)

        path.chmod(0o600)
        path.write_bytes(b"x" + damaged.raw[1:])
        told = verify(server)
        mended = verify(server, "--repair")
        asked = client.head(f"/v2/team/app/blobs/{damaged.digest}")
        client.push_blob("team/app", damaged.raw)
        healed = verify(server)

        assert (fine.returncode, told.returncode, mended.returncode, healed.returncode) == (0, 1, 1, 0)
        assert "checked 3 blobs" in fine.stderr
        assert [json.loads(line)["problem"] for line in told.stdout.splitlines()] == ["blob-wrong"]
        assert [json.loads(line)["problem"] for line in mended.stdout.splitlines()] == [
            "blob-wrong",
            "reference-missing",
        ]
        assert (server.data / keys.quarantine(damaged.digest)).read_bytes()[:1] == b"x"
        assert asked.status == 404
        assert client.get(f"/v2/team/app/blobs/{damaged.digest}").body == damaged.raw


def verify(server: RoadsteadServer, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it gave."""
    command = [sys.executable, "-m", "roadstead", "verify", "--json", "--data", str(server.data), *flags]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
