"""Container tokens with the real engine: asked for by curl as documented, pulled and run by docker."""

import json
import subprocess
from base64 import b64encode
from pathlib import Path
from uuid import uuid4

from roadstead.testing.components import require
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.images import make_layer
from roadstead.testing.server import RoadsteadServer

BUSYBOX = "/bin/busybox"


def test_a_token_by_curl_and_a_run_by_docker(
    greeter: RoadsteadServer, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    """Push, ask, pull, run: the file of the layer is there; by the plain name it isn't."""
    curl = require("curl", install="apt-get install curl")
    name = f"{greeter.host}/tokens/{uuid4().hex[:12]}/busybox"
    docker_engine.import_busybox(f"{name}:1")
    docker_engine.docker("push", f"{name}:1")
    docker_engine.docker("rmi", f"{name}:1")
    layer = make_layer({"foo.txt": b"Hello from Roadstead\n"})
    (tmp_path / "container-request.json").write_text(
        json.dumps(
            {
                "containerImage": f"{name}:1",
                "containerConfig": {
                    "layers": [
                        {
                            "location": f"data:{b64encode(layer.raw).decode()}",
                            "gzipDigest": str(layer.digest),
                            "gzipSize": len(layer.raw),
                            "tarDigest": str(layer.diff_id),
                        }
                    ]
                },
            }
        )
    )

    done = subprocess.run(
        [curl, "--silent", "--fail", "-H", "Content-Type: application/json", "-X", "POST",
         f"{greeter.url}/container-token", "-d", "@container-request.json"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    target = json.loads(done.stdout)["targetImage"]
    docker_engine.docker("pull", target)
    run = docker_engine.docker("run", "--rm", "--network", "none", target, BUSYBOX, "cat", "foo.txt")
    assert run.stdout == "Hello from Roadstead\n"
    inspected = json.loads(docker_engine.docker("image", "inspect", target).stdout)[0]
    assert any(text.endswith(json.loads(done.stdout)["targetDigest"]) for text in inspected["RepoDigests"])
    docker_engine.docker("rmi", target)
