"""Asking for a lock on an open file (flock(2)), which the kernel lets go of when the last process with it ends."""

import fcntl


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take the lock, ``LOCK_EX`` or ``LOCK_SH``, if nobody is in the way; return whether we have it. Never waits."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
