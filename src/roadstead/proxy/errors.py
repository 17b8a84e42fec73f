"""What can go wrong while images are pulled through."""

from roadstead.errors import DeniedError, UnavailableError
from roadstead.oci.digest import Digest
from roadstead.registry.collision import Collision


class UpstreamReadOnlyError(DeniedError):
    """A push to a name that is another registry's (UNSUPPORTED, 405)."""

    def __init__(self, name: str, host: str) -> None:
        super().__init__(f"{name} is pulled from {host} and takes no pushes here")
        self.name = name
        self.host = host

    def advice(self) -> str:
        """Return what to do instead."""
        return f"push to {self.host} itself, or under another name; allow_push of [[upstreams]] opens default names"


class NameTakenError(DeniedError):
    """An image can't be brought under a name that means something else here."""

    def __init__(self, collision: Collision) -> None:
        super().__init__(f"nobody could pull {collision}")
        self.collision = collision

    def advice(self) -> str:
        """Return what to do instead."""
        return "Bring it under another name (--repository NAME), or take that upstream out of the settings."


class FillBrokenError(UnavailableError):
    """A download of a blob ended before its end: by another process, whose reason isn't known here."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"the download of {digest} broke off; see the log, and try again")
        self.digest = digest


class SpoolFailedError(UnavailableError):
    """What is downloaded can't be written where it waits to be stored."""

    retry_after_s = 30

    def __init__(self, error: OSError) -> None:
        super().__init__(f"a download can't be kept: {error.strerror or error}")

    def advice(self) -> str:
        """Return what to look at."""
        return "Look at the space that is left on the data directory's volume, and who may write there."
