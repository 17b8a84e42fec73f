"""What can go wrong while a layer is made from a distribution's packages."""

from roadstead.errors import InvalidError, NotFoundError, UnavailableError


class PackageInvalidError(InvalidError):
    """A file isn't a Debian package that can be read, or a program in one isn't what it has to be."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class PackageMissingError(NotFoundError):
    """A layer needs something that none of the packages has; ``missing`` names it."""

    def __init__(self, missing: str, architecture: str) -> None:
        super().__init__(f"no package for {architecture} has {missing}")
        self.missing = missing
        self.architecture = architecture

    def advice(self) -> str:
        """Say how to have all of them."""
        return "leave --packages out to have apt fetch them, or put the missing package into its folder"


class DownloadFailedError(UnavailableError):
    """Packages couldn't be fetched; ``reason`` is what apt said."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"apt couldn't fetch the packages: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """Say what else works."""
        return "on a machine without Debian's apt, fetch the packages elsewhere and name their folder: --packages DIR"
