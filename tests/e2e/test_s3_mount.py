"""S3 buckets as folders, in images that know nothing of S3, with the real engine, s3fs and an S3 server."""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO
from uuid import uuid4

import pytest
from botocore.client import BaseClient
from botocore.session import get_session
from tests.conftest import RUN_DIRECTORY
from tests.e2e.mounting import LAYER, device_for_all, import_files, shared_layer, shared_packages

from roadstead.layers import s3_mount
from roadstead.layers.deb import Package
from roadstead.layers.elf import MACHINES, Program
from roadstead.testing.containerd import open_containerd
from roadstead.testing.dockerd import DockerEngine, find
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

CONFIG = f"""
[[augment.rules]]
match = "mounted/*"
layers = ["{LAYER}"]
entrypoint = ["/opt/roadstead/entry"]
"""
MAY_MOUNT = ("--cap-add", "SYS_ADMIN", "--device", "/dev/fuse", "--security-opt", "apparmor=unconfined")


@pytest.fixture(scope="session")
def mounting(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[RoadsteadServer]:
    """A server that adds the layer to what is below `mounted/`."""
    directory = tmp_path_factory.mktemp("mounting")
    shutil.copy(shared_layer(pytestconfig.stash[RUN_DIRECTORY]), directory / LAYER)
    with RoadsteadServer(directory, config=CONFIG) as server:
        yield server


class Runner:
    """Runs one augmented image against one bucket."""

    def __init__(self, engine: DockerEngine, image: str, server: SeaweedFS, bucket: str) -> None:
        self.engine, self.image, self.bucket = engine, image, bucket
        self.variables = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_REGION": server.region,
            "AWS_ENDPOINT_URL": server.endpoint,
            "NXF_FUSION_BUCKETS": bucket,
        }
        self.client: BaseClient = get_session().create_client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )

    def arguments(self, flags: tuple[str, ...], variables: Mapping[str, str | None]) -> list[str]:
        """Return `docker run`'s flags and the image; a variable of None is left out."""
        values = {name: value for name, value in (self.variables | variables).items() if value is not None}
        words = [word for name, value in values.items() for word in ("--env", f"{name}={value}")]
        return ["--network", "host", *flags, *words, self.image]

    def __call__(
        self, *command: str, flags: tuple[str, ...] = MAY_MOUNT, **variables: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container, and return what it printed and its status."""
        arguments = self.arguments(flags, variables)
        return self.engine.docker("run", "--rm", *arguments, *command, check=False, timeout=timedelta(minutes=1))

    def read(self, key: str) -> bytes:
        """Return an object as the S3 server has it."""
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> str:
    """A new bucket."""
    return seaweedfs.create_bucket()


def _pass_through(engine: DockerEngine, image: str) -> None:
    """Push an image and pull it back, changed."""
    for step in (("push", image), ("rmi", image), ("pull", image)):
        engine.docker(*step)


@pytest.fixture(scope="session")
def image(mounting: RoadsteadServer, docker_engine: DockerEngine) -> Iterator[str]:
    """The name of an image with one static program and the layer, and nothing else, not even `/tmp`."""
    name = f"{mounting.host}/mounted/{uuid4().hex[:12]}:1"
    docker_engine.import_busybox(name)
    _pass_through(docker_engine, name)
    yield name
    docker_engine.docker("rmi", "--force", name)


@pytest.fixture
def run(image: str, docker_engine: DockerEngine, seaweedfs: SeaweedFS, bucket: str) -> Runner:
    """The image, and a bucket with two objects."""
    runner = Runner(docker_engine, image, seaweedfs, bucket)
    runner.client.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello from S3\n")
    runner.client.put_object(Bucket=bucket, Key="deep/er/in.txt", Body=b"deep\n")
    return runner


SHELL = ("/bin/busybox", "sh", "-c")


def test_objects_are_files(run: Runner) -> None:
    """What is in the bucket is read, what is written is in the bucket when the container has ended."""
    folder = f"/fusion/s3/{run.bucket}"
    script = (
        f"cd {folder} && cat hello.txt deep/er/in.txt && echo one >new.txt && echo two >>new.txt && cp new.txt deep/"
    )

    done = run(*SHELL, script)

    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from S3\ndeep\n", ""), done
    assert run.read("new.txt") == b"one\ntwo\n"
    assert run.read("deep/new.txt") == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("form", "folder"), [("s3://{}", ""), ("s3://{}/deep/er/", "/deep/er"), (" , {}/deep", "/deep")]
)
def test_buckets_are_written_in_several_ways(run: Runner, form: str, folder: str) -> None:
    """With s3://, with a prefix, with blanks."""
    done = run(
        *SHELL,
        f"cd /fusion/s3/{run.bucket}{folder} && /bin/busybox find . -name in.txt",
        NXF_FUSION_BUCKETS=None,
        ROADSTEAD_S3_BUCKETS=form.format(run.bucket),
    )

    assert (done.returncode, done.stdout.rpartition("/")[2]) == (0, "in.txt\n"), done


def test_several_buckets(run: Runner, seaweedfs: SeaweedFS) -> None:
    """Each has its folder; from one to the other files are copied."""
    other = seaweedfs.create_bucket()

    done = run(
        *SHELL,
        f"cp /fusion/s3/{run.bucket}/hello.txt /fusion/s3/{other}/",
        NXF_FUSION_BUCKETS=f"{run.bucket},s3://{other}",
    )

    assert done.returncode == 0, done
    assert run.client.get_object(Bucket=other, Key="hello.txt")["Body"].read() == b"hello from S3\n"


def test_a_read_only_root_is_enough(run: Runner) -> None:
    """Also where nothing at all can be written."""
    done = run(
        *SHELL,
        f"cat /fusion/s3/{run.bucket}/hello.txt; echo x >/fusion/s3/{run.bucket}/x",
        flags=(*MAY_MOUNT, "--read-only"),
    )

    assert (done.returncode, done.stdout) == (0, "hello from S3\n"), done
    assert run.read("x") == b"x\n"


@pytest.mark.parametrize("flags", [(), ("--read-only",)])
def test_other_users_than_root(run: Runner, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """In namespaces of their own, where the kernel lets them make some; the program gets none of the capabilities."""
    device = ("--device", device_for_all(tmp_path))
    folder = f"/fusion/s3/{run.bucket}"
    capabilities = "grep -c '^Cap.*0000000000000000$' /proc/self/status"  # all sets but the bounding one
    script = f"cat {folder}/hello.txt; echo x >{folder}/x; /bin/busybox id -u; {capabilities}"

    done = run(*SHELL, script, flags=(*MAY_MOUNT[:2], *MAY_MOUNT[4:], *device, "--user", "1000:1000", *flags))

    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from S3\n1000\n4\n", ""), done
    assert run.read("x") == b"x\n"


def test_what_another_user_may_not_do_is_said(run: Runner, tmp_path: Path) -> None:
    """Without the capability the engine forbids namespaces too."""
    done = run("/bin/busybox", "true", flags=("--device", device_for_all(tmp_path), "--user", "1000"))

    assert (done.returncode, done.stdout) == (1, ""), done
    assert "user 1000 may neither mount nor make a user namespace" in done.stderr


def test_what_is_left_running_is_sent(run: Runner) -> None:
    """A process that outlives the program ends with the container; what it has written by then is in the bucket."""
    script = f"(exec >/fusion/s3/{run.bucket}/left; echo begun; exec /bin/busybox sleep 60) & /bin/busybox sleep 0.5"

    done = run(*SHELL, script)

    assert done.returncode == 0, done
    assert run.read("left") == b"begun\n"


@pytest.mark.parametrize("status", [0, 3, 143])
def test_the_status_is_the_programs(run: Runner, status: int) -> None:
    """As it would have been without the layer."""
    assert run(*SHELL, f"exit {status}").returncode == status


def test_without_buckets_nothing_is_needed(run: Runner) -> None:
    """No device, no capability, no credentials; the program is the first process."""
    done = run(*SHELL, "echo $$; exit 4", flags=(), NXF_FUSION_BUCKETS=None)

    assert (done.returncode, done.stdout) == (4, "1\n"), done


@pytest.mark.parametrize(
    ("flags", "variables", "said"),
    [
        ((), {}, "/dev/fuse"),
        (("--device", "/dev/fuse"), {}, "SYS_ADMIN"),
        (MAY_MOUNT, {"AWS_ACCESS_KEY_ID": None}, "no credentials"),
        (MAY_MOUNT, {"AWS_SECRET_ACCESS_KEY": "wrong"}, "isn't mounted"),
        (MAY_MOUNT, {"NXF_FUSION_BUCKETS": "there-is-no-such-bucket"}, "there-is-no-such-bucket"),
        (MAY_MOUNT, {"NXF_FUSION_BUCKETS": "ok,../up"}, "no bucket: ../up"),
        (MAY_MOUNT, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "ROADSTEAD_S3_TIMEOUT_S": "3"}, "http://127.0.0.1:1"),
    ],
)
def test_what_is_missing_is_said(
    run: Runner, flags: tuple[str, ...], variables: Mapping[str, str | None], said: str
) -> None:
    """Status 1, a line that says what and one that says what to do; the program doesn't start on an empty folder."""
    done = run("/bin/busybox", "echo", "started", flags=flags, **variables)

    assert (done.returncode, done.stdout) == (1, ""), done
    lines = [line for line in done.stderr.splitlines() if line.startswith("roadstead: ")]
    assert len(lines) == 2, done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1", "HUP"])
def test_signals_reach_the_program(run: Runner, name: str) -> None:
    """The program gets it, once, may tidy up and decides on the status; what it then writes is in the bucket."""
    container = f"mount-{uuid4().hex[:12]}"
    folder = f"/fusion/s3/{run.bucket}"
    script = (
        f"trap 'echo {name} >>{folder}/got; exit 7' {name}; echo ready >{folder}/ready; while :; do sleep 0.1; done"
    )
    run.engine.docker("run", "--detach", "--name", container, *run.arguments(MAY_MOUNT, {}), *SHELL, script)
    try:
        _wait_for(run, "ready")
        run.engine.docker("kill", "--signal", name, container)
        status = run.engine.docker("wait", container).stdout.strip()
        assert status == "7", run.engine.docker("logs", container)
        assert run.read("got") == f"{name}\n".encode()
    finally:
        run.engine.docker("rm", "--force", container)


def test_a_terminal(run: Runner, tmp_path: Path) -> None:
    """Ctrl-C comes to the program, once; it decides what that means, and still reads what is typed."""
    script = "trap 'echo interrupted' INT; echo ready; read word || read word; echo got $word; exit 6"
    ours, theirs = os.openpty()
    command = [find("docker"), "run", "--rm", "-it", *run.arguments(MAY_MOUNT, {}), *SHELL, script]
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    with os.fdopen(ours, "r+b", buffering=0) as keyboard:
        process = subprocess.Popen(command, env=run.engine.environment(tmp_path), **terminal)
        os.close(theirs)
        seen = _read_until(keyboard, b"ready")
        keyboard.write(b"\x03")
        seen += _read_until(keyboard, b"interrupted")
        keyboard.write(b"word\n")
        seen += _read_until(keyboard, b"got word")
        status = process.wait(60)

    assert (status, seen.count(b"interrupted")) == (6, 1), seen


def test_orphans_are_reaped(run: Runner) -> None:
    """A process whose parent has gone doesn't stay as a zombie."""
    script = (
        "(/bin/busybox sh -c '/bin/busybox sleep 0.1 & exit' &); /bin/busybox sleep 1; /bin/busybox ps -o stat,args"
    )

    done = run(*SHELL, script)

    assert done.returncode == 0, done
    assert [line for line in done.stdout.splitlines() if line.startswith("Z")] == []


def test_a_kernel_without_subreapers(run: Runner, tmp_path: Path) -> None:
    """As emulators and sandboxes have: the program runs all the same, and nothing is said on its standard error."""
    refused = {"index": 0, "value": 36, "op": "SCMP_CMP_EQ"}  # PR_SET_CHILD_SUBREAPER
    rule = {"names": ["prctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [refused]}
    profile = tmp_path / "seccomp.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    script = f"cat /fusion/s3/{run.bucket}/hello.txt; (/bin/busybox sleep 0.1 &); exit 3"

    done = run(*SHELL, script, flags=(*MAY_MOUNT, "--security-opt", f"seccomp={profile}"))

    assert (done.returncode, done.stdout, done.stderr) == (3, "hello from S3\n", ""), done


def test_an_entrypoint_with_blanks_and_quotes(
    mounting: RoadsteadServer, docker_engine: DockerEngine, seaweedfs: SeaweedFS, bucket: str, tmp_path: Path
) -> None:
    """Word for word what the image has, with the command behind it; another user's files stay readable."""
    busybox = Path(shutil.which("busybox") or "").read_bytes()
    image = f"{mounting.host}/mounted/{uuid4().hex[:12]}:1"
    entrypoint = json.dumps(["/bin dir/busybox", "echo", "it's", 'a "b" \\ $HOME\n', "é😀"])
    import_files(docker_engine, image, {"bin dir/busybox": busybox}, tmp_path, f"ENTRYPOINT {entrypoint}")
    _pass_through(docker_engine, image)

    for variables in ({}, {"NXF_FUSION_BUCKETS": None}):
        done = Runner(docker_engine, image, seaweedfs, bucket)("*", "last", **variables)
        assert (done.returncode, done.stdout) == (0, 'it\'s a "b" \\ $HOME\n é😀 * last\n'), done

    docker_engine.docker("rmi", "--force", image)


def test_an_image_with_a_c_library_of_its_own(
    mounting: RoadsteadServer,
    docker_engine: DockerEngine,
    seaweedfs: SeaweedFS,
    bucket: str,
    tmp_path: Path,
) -> None:
    """Its programs get its own libraries, s3fs those of the layer; a name without a path is the image's program."""
    folder = shared_packages("amd64")
    library, core = (Package.read(next(folder.glob(f"{name}_*.deb"))) for name in ("libc6", "coreutils"))
    root = {
        "lib64/ld-linux-x86-64.so.2": library.find("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        "lib/x86_64-linux-gnu/libc.so.6": library.find("lib/x86_64-linux-gnu/libc.so.6"),
        "bin/cat": core.find("bin/cat"),
    }
    image = f"{mounting.host}/mounted/{uuid4().hex[:12]}:1"
    import_files(docker_engine, image, {path: content for path, content in root.items() if content}, tmp_path)
    _pass_through(docker_engine, image)
    runner = Runner(docker_engine, image, seaweedfs, bucket)
    runner.client.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello from S3\n")

    read = runner("cat", f"/fusion/s3/{bucket}/hello.txt")
    version = runner("cat", "--version", flags=(), NXF_FUSION_BUCKETS=None)

    assert (read.returncode, read.stdout) == (0, "hello from S3\n"), read
    assert "GNU coreutils" in version.stdout, version
    docker_engine.docker("rmi", "--force", image)


def test_containerd_runs_it(run: Runner) -> None:
    """Pulled and run by `ctr`, which takes a command for the whole of it, so that the entrypoint is named too."""
    values = [word for name, value in run.variables.items() for word in ("--env", f"{name}={value}")]
    may = ("--net-host", "--cap-add", "CAP_SYS_ADMIN", "--device", "/dev/fuse")
    with open_containerd() as daemon:
        daemon.ctr("images", "pull", "--plain-http", run.image)
        command = ("/opt/roadstead/entry", "/bin/busybox", "cat", f"/fusion/s3/{run.bucket}/hello.txt")
        done = daemon.ctr("run", "--rm", *may, *values, run.image, uuid4().hex, *command)

    assert done.stdout == "hello from S3\n"


def test_a_layer_for_other_processors(tmp_path: Path) -> None:
    """It is made here from that architecture's packages, and every program in it is for that one."""
    packages = [Package.read(path) for path in sorted(shared_packages("arm64").glob("*.deb"))]

    s3_mount.assemble(packages, "arm64", tmp_path)

    home = tmp_path / "opt/roadstead"
    programs = [*(home / "bin").iterdir(), *(home / "lib").iterdir()]
    assert {Program.parse(path.name, path.read_bytes()).machine for path in programs} == {MACHINES["arm64"]}
    assert {"bin/s3fs", "lib/ld.so", "lib/libfuse.so.2"} <= {str(path.relative_to(home)) for path in programs}


def _read_until(terminal: IO[bytes], text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, seen
        seen += terminal.read(1000)
    return seen


def _wait_for(run: Runner, key: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        listed = run.client.list_objects_v2(Bucket=run.bucket, Prefix=key)
        if listed.get("KeyCount"):
            return
        time.sleep(0.05)
    raise AssertionError(f"there is no {key} in the bucket after 30 s")
