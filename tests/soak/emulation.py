"""Programs for arm64 on another machine: qemu's emulator, which the kernel starts by itself (binfmt_misc)."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roadstead.testing.components import ComponentMissingError, require

INSTALL = "apt-get install --no-install-recommends qemu-user-static binfmt-support"
QEMU = "qemu-aarch64-static"

_KERNELS = Path("/proc/sys/fs/binfmt_misc")
_OURS = "roadstead-aarch64"
_INTERPRETER = Path("/usr/libexec/qemu-binfmt/aarch64-binfmt-P")
# An ELF file for aarch64, program or shared: its class, order, version and machine (ELF, e_ident and e_machine).
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def emulator() -> Path:
    """Return the emulator, a static program; raises ComponentMissingError."""
    return require(QEMU, install=INSTALL)


@contextmanager
def arm64_programs() -> Iterator[None]:
    """Have the kernel run programs for arm64, in containers too, until the block is left; as root.

    What the machine knows of them already is used as it is. Raises ComponentMissingError.
    """
    emulator()
    if platform.machine() == "aarch64" or _is_known():
        yield
        return
    if os.geteuid() != 0 or not _INTERPRETER.exists():
        raise ComponentMissingError("binfmt_misc for aarch64", f"{INSTALL}, as root")
    mounted = not (_KERNELS / "register").exists()
    if mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_KERNELS)], check=True, timeout=10)
    try:
        # P: the program's own name stays; F: the emulator is opened now, as no container has it.
        (_KERNELS / "register").write_text(f":{_OURS}:M::{_MAGIC}:{_MASK}:{_INTERPRETER}:OPF")
        try:
            yield
        finally:
            (_KERNELS / _OURS).write_text("-1")
    finally:
        if mounted:
            subprocess.run(["umount", str(_KERNELS)], check=True, timeout=10)


def _is_known() -> bool:
    """Say whether some entry of the kernel's is for these programs, and lets containers run them."""
    entries = (path for path in _KERNELS.glob("*") if path.name not in ("register", "status"))
    texts = [path.read_text() for path in entries] if _KERNELS.is_dir() else []
    return any("aarch64" in text and text.startswith("enabled") and "F" in text for text in texts)
