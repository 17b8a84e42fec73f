"""What can go wrong in a registry, as distribution-spec names it ("Error Codes", code-1 … code-14)."""

from collections.abc import Sequence

from roadstead.errors import ConflictError, DeniedError, InvalidError, NotFoundError, UnavailableError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag


class RepositoryUnknownError(NotFoundError):
    """No such repository (NAME_UNKNOWN)."""

    def __init__(self, repository: RepositoryName) -> None:
        super().__init__(f"repository {repository} is not known to this registry")
        self.repository = repository


class BlobUnknownError(NotFoundError):
    """The blob isn't in this repository (BLOB_UNKNOWN, code-1)."""

    def __init__(self, repository: RepositoryName, digest: Digest) -> None:
        super().__init__(f"blob {digest} is not in repository {repository}")
        self.repository = repository
        self.digest = digest


class ManifestUnknownError(NotFoundError):
    """The tag or digest isn't in this repository (MANIFEST_UNKNOWN, code-7)."""

    def __init__(self, repository: RepositoryName, reference: Tag | Digest) -> None:
        super().__init__(f"manifest {reference} is not in repository {repository}")
        self.repository = repository
        self.reference = reference


class UploadUnknownError(NotFoundError):
    """The session was never started here, is finished, cancelled or expired (BLOB_UPLOAD_UNKNOWN, code-3)."""

    def __init__(self, repository: RepositoryName) -> None:
        super().__init__(f"this upload session is not open in repository {repository}; start a new one with POST")
        self.repository = repository


class ManifestBlobUnknownError(InvalidError):
    """A manifest names blobs or children that its repository doesn't hold (MANIFEST_BLOB_UNKNOWN, code-5)."""

    def __init__(self, repository: RepositoryName, missing: Sequence[Digest]) -> None:
        names = ", ".join(str(digest) for digest in missing[:3]) + (" …" if len(missing) > 3 else "")
        super().__init__(f"the manifest names content that repository {repository} does not hold: {names}")
        self.repository = repository
        self.missing = tuple(missing)


class DescriptorSizeError(InvalidError):
    """A descriptor's size isn't the size of the content it names (MANIFEST_INVALID)."""

    def __init__(self, digest: Digest, declared: int, actual: int) -> None:
        super().__init__(f"the manifest says {digest} has {declared} bytes, but it has {actual}")
        self.digest = digest
        self.declared = declared
        self.actual = actual


class ContentTooLargeError(InvalidError):
    """More bytes than a limit allows (413)."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is larger than the {limit} bytes allowed here")
        self.limit = limit


class SizeMismatchError(InvalidError):
    """The bytes that came aren't as many as were announced (SIZE_INVALID, code-10)."""

    def __init__(self, announced: int, received: int) -> None:
        super().__init__(f"{announced} bytes were announced, but {received} came")
        self.announced = announced
        self.received = received


class UploadOffsetError(ConflictError):
    """A chunk doesn't start where the session stands (416 with the session's Range)."""

    def __init__(self, upload_id: str, repository: RepositoryName, received: int, start: int | None) -> None:
        began = "" if start is None else f" and this chunk starts at {start}"
        super().__init__(f"the upload has {received} bytes so far{began}; go on from byte {received}")
        self.upload_id = upload_id
        self.repository = repository
        self.received = received
        self.start = start


class UploadBusyError(ConflictError):
    """Another request is writing to the same session (409)."""

    def __init__(self, upload_id: str) -> None:
        super().__init__("another request is writing to this upload session; one writer at a time")
        self.upload_id = upload_id


class TagConditionError(ConflictError):
    """If-Match or If-None-Match on a tag wasn't met (412)."""

    def __init__(self, tag: Tag, current: Digest | None) -> None:
        state = "does not exist" if current is None else f"is at {current}"
        super().__init__(f"tag {tag} {state}, which the request's condition excludes")
        self.tag = tag
        self.current = current


class TagImmutableError(DeniedError):
    """A tag that stays where it is would be moved or removed (DENIED, 403)."""

    def __init__(self, repository: RepositoryName, tag: Tag, current: Digest) -> None:
        super().__init__(f"{repository}:{tag} is immutable and stays at {current}")
        self.repository = repository
        self.tag = tag
        self.current = current

    def advice(self) -> str:
        """Return what to do instead."""
        return "push another tag; which tags are immutable is set by registry.immutable"


class TagsTooManyError(InvalidError):
    """More `tag` parameters than are taken in one request (414)."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"{count} tag parameters in one request; {limit} at most")
        self.limit = limit


class PageSizeInvalidError(InvalidError):
    """`n` isn't a whole number within bounds (PAGINATION_NUMBER_INVALID)."""

    def __init__(self, text: str, maximum: int | None = None) -> None:
        bound = "" if maximum is None else f" and at most {maximum}"
        super().__init__(f"n={text!r} is not a page size: a whole number, zero or more{bound}")
        self.text = text


class DeleteDisabledError(DeniedError):
    """Deleting is switched off (UNSUPPORTED, 405)."""

    def __init__(self) -> None:
        super().__init__("this registry is set not to delete (storage.delete = false)")


class ReadOnlyError(DeniedError):
    """Nothing may change for now (UNSUPPORTED, 405)."""

    def __init__(self) -> None:
        super().__init__("this registry is set to be read only (registry.read_only = true)")


class ReadOnlyNameError(DeniedError):
    """A write to a name that only reads (`as-pushed/…`, `as-of/TIME/…`; UNSUPPORTED, 405)."""

    def __init__(self, name: str, *, instead: str | None = None) -> None:
        use = "" if instead is None else f"; push to {instead}"
        super().__init__(f"{name} is only read, and takes no writes{use}")
        self.name = name
        self.instead = instead
        """The name that takes them; None where there is none."""


class StoreBusyError(UnavailableError):
    """The database didn't take the write in time (UNAVAILABLE, 503)."""


class ContentMissingError(UnavailableError):
    """The database knows the content and the store doesn't have its bytes (503, and an alarm in the log)."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"the bytes of {digest} are missing from storage; see the server's log")
        self.digest = digest
