"""What can go wrong with a database, beyond ``registry.errors.StoreBusyError``.

DatabaseUrlError       InvalidError      the address names no database that we can use
DriverMissingError     InvalidError      the driver isn't installed
SchemaTooNewError      UnavailableError  a later release has changed the database
SchemaOutdatedError    UnavailableError  the database wants the migrations of this release
StoreFailedError       UnavailableError  the database answered with an error (a full disk, for one)
"""

from roadstead.errors import InvalidError, UnavailableError


class DatabaseUrlError(InvalidError):
    """An address names no database that we can use. The address isn't told: it may hold a password."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the database's address can't be used: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """Show what an address looks like."""
        return "Write it as sqlite:///path/to/file.db or postgresql://user:password@host/name."


class DriverMissingError(InvalidError):
    """The driver that an address needs isn't installed."""

    def __init__(self, driver: str, extra: str) -> None:
        super().__init__(f"the database needs {driver}, which isn't installed")
        self.driver = driver
        self.extra = extra

    def advice(self) -> str:
        """Give the command that installs it."""
        return f'Run: pip install "roadstead[{self.extra}]"'


class SchemaTooNewError(UnavailableError):
    """A later release of Roadstead has changed the database; this one could damage what it doesn't know."""

    retry_after_s = 30

    def __init__(self, found: str, known: str) -> None:
        super().__init__(f"the database is at revision {found}, and this release knows up to {known}")
        self.found = found
        self.known = known

    def advice(self) -> str:
        """Say how to go on."""
        return "Run the release that wrote it, or a later one; or restore a backup from before the upgrade."


class SchemaOutdatedError(UnavailableError):
    """The database hasn't had this release's migrations."""

    def __init__(self, found: str | None, wanted: str) -> None:
        state = "has no tables yet" if found is None else f"is at revision {found}"
        super().__init__(f"the database {state}, and this release works with revision {wanted}")
        self.found = found
        self.wanted = wanted

    def advice(self) -> str:
        """Say what applies them."""
        return "Start it with `roadstead serve`, which migrates first."


class StoreFailedError(UnavailableError):
    """The database answered with an error of its own: a full disk, a permission, a damaged file."""

    in_short = "the database failed"
