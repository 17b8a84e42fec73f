"""How Granian runs under a supervisor: graceful stop, kill -9, memory, the backlog of connections.

``python benchmarks/decisions/supervision.py`` prints what happened for each way.
"""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
CASES = (
    ("serve", "0", "fork"),
    ("serve", "0", "spawn"),
    ("serve", "2", "spawn"),
    ("serve", "10", "spawn"),
    ("embed", "0", "spawn"),
)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def get(port: int, path: str, timeout: float = 15) -> str:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def until_up(port: int) -> float:
    started = time.perf_counter()
    while time.perf_counter() - started < 15:
        with contextlib.suppress(OSError, http.client.HTTPException):
            get(port, "/")
            return time.perf_counter() - started
        time.sleep(0.01)
    raise TimeoutError


def workers_of(port: int, tries: int = 40) -> set[int]:
    pids = set()
    for _ in range(tries):
        with contextlib.suppress(OSError, http.client.HTTPException):
            pids.add(int(get(port, "/").split()[0]))
    return pids


def memory(pid: int, field: str = "Pss") -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)[1]) / 1024


def note(results: list[str], what: str, work) -> threading.Thread:
    """Run work in a thread and write down when it ended and how."""

    def run() -> None:
        started = time.perf_counter()
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 (whatever the client saw is the result)
            answer = f"{type(error).__name__}: {error}"
        results.append(f"{what}: {time.perf_counter() - started:.1f} s, {answer!r}")

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def slow_upload(port: int) -> str:
    """Send 3 s of body, then read the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as link:
        link.sendall(b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 30000\r\n\r\n")
        for _ in range(30):
            link.sendall(bytes(1000))
            time.sleep(0.1)
        return link.recv(100)[:15].decode()


def run(way: str, kill_timeout: str, method: str) -> None:
    port = free_port()
    command = [sys.executable, str(HERE / "supervision_app.py"), way, str(port), "2", kill_timeout, method]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log: list[str] = []
    threading.Thread(target=lambda: log.extend(process.stdout), daemon=True).start()
    print(f"\n## {way}, workers_kill_timeout {kill_timeout}, {method}")
    print(f"first answer after {until_up(port):.2f} s; answer {get(port, '/')!r}, supervisor {process.pid}")
    time.sleep(0.5)
    pids = workers_of(port)
    print(
        f"workers {len(pids)}; MiB each (proportional): {[round(memory(pid)) for pid in pids]}, "
        f"own: {[round(memory(pid, 'Private_Dirty')) for pid in pids]}, supervisor {memory(process.pid):.0f}"
    )
    time.sleep(6)  # Granian takes two deaths within 5.5 s for a crash loop
    victim = pids.pop()
    os.kill(victim, signal.SIGKILL)
    started = time.perf_counter()
    lost = 0
    while victim in (now := workers_of(port, 12)) or len(now) < 2:
        lost += 1
        if time.perf_counter() - started > 8:
            break
    print(f"kill -9 of a worker: two again after {time.perf_counter() - started:.2f} s ({now})")
    results: list[str] = []
    threads = [
        note(results, "slow answer (5 s)", lambda: get(port, "/sleep/5")),
        note(results, "upload (3 s)", lambda: slow_upload(port)),
    ]
    idle = socket.create_connection(("127.0.0.1", port))
    idle.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    idle.recv(1000)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    started = time.perf_counter()
    time.sleep(0.3)
    threads.append(note(results, "new request 0.3 s after SIGTERM", lambda: get(port, "/")))
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        print("did not stop in 20 s: killed")
        process.kill()
    print(f"stopped {time.perf_counter() - started:.1f} s after SIGTERM, status {process.returncode}")
    idle.close()
    for thread in threads:
        thread.join()
    for line in results:
        print(" ", line)
    time.sleep(0.3)
    left = [pid for pid in now if Path(f"/proc/{pid}").exists()]
    print(f"workers left behind: {left}")
    print(
        "  log:",
        " | ".join(line.strip()[:90] for line in log if "lifespan" in line or "background" in line or "orker" in line),
    )
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    for case in CASES:
        if len(sys.argv) < 2 or sys.argv[1] == case[0]:
            run(*case)


if __name__ == "__main__":
    main()
