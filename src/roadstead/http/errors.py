"""From what went wrong to what the client is told: the one table (distribution-spec "Error Codes", registry spec §1.3).

Clients act on the code: docker retries what isn't DENIED, UNAUTHORIZED, UNSUPPORTED or NAME_UNKNOWN; podman converts
an image and pushes again after MANIFEST_INVALID. So each code is given where it means what they take it for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from roadstead.augment.container_token import (
    ContainerPathError,
    ContainerTokenEndedError,
    ContainerTokenStoppedError,
    ContainerTokenUnknownError,
)
from roadstead.augment.containers import NotDoneHereError
from roadstead.augment.service import LegacyImageError
from roadstead.augment.turns import TurnsTakenError
from roadstead.auth.errors import AttemptsTooManyError, SignInNeededError
from roadstead.errors import ConflictError, DeniedError, InvalidError, NotFoundError, RoadsteadError, UnavailableError
from roadstead.http.asgi import ParametersTooManyError, Response
from roadstead.http.bodies import BodyLengthError, ContentRangeInvalidError
from roadstead.http.conditions import ConditionUnmetError
from roadstead.http.headers import upload_headers
from roadstead.http.hosts import HostUnknownError
from roadstead.http.limits import spent_headers
from roadstead.http.names import ReferenceUnknownError
from roadstead.http.ranges import RangeUnsatisfiableError
from roadstead.http.routes import MethodUnknownError, PathTooLongError, PathUnknownError
from roadstead.limits.errors import PullsSpentError, TooMuchError
from roadstead.oci.digest import DigestInvalidError, DigestMismatchError
from roadstead.oci.manifest import ManifestInvalidError
from roadstead.oci.reference import NameInvalidError, TagInvalidError
from roadstead.proxy.errors import UpstreamReadOnlyError
from roadstead.registry import errors as registry
from roadstead.registry.history import MomentInvalidError, NotThenError
from roadstead.upstream.errors import RateLimitedError


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a code of the spec's list."""

    status: int
    code: str


ANSWERS: Mapping[type[BaseException], Answer] = {
    # By family first: whatever has no line of its own is answered by its nearest ancestor.
    RoadsteadError: Answer(500, "UNKNOWN"),
    NotFoundError: Answer(404, "NAME_UNKNOWN"),
    InvalidError: Answer(400, "UNSUPPORTED"),
    ConflictError: Answer(409, "DENIED"),
    DeniedError: Answer(403, "DENIED"),
    UnavailableError: Answer(503, "UNAVAILABLE"),
    # The way in.
    PathUnknownError: Answer(404, "UNSUPPORTED"),
    PathTooLongError: Answer(414, "NAME_INVALID"),
    ParametersTooManyError: Answer(414, "UNSUPPORTED"),
    ConditionUnmetError: Answer(412, "DENIED"),
    MethodUnknownError: Answer(405, "UNSUPPORTED"),
    HostUnknownError: Answer(421, "UNSUPPORTED"),
    BodyLengthError: Answer(400, "SIZE_INVALID"),
    ContentRangeInvalidError: Answer(416, "RANGE_INVALID"),
    RangeUnsatisfiableError: Answer(416, "RANGE_INVALID"),
    SignInNeededError: Answer(401, "UNAUTHORIZED"),
    AttemptsTooManyError: Answer(429, "TOOMANYREQUESTS"),
    TooMuchError: Answer(429, "TOOMANYREQUESTS"),
    # Values.
    NameInvalidError: Answer(400, "NAME_INVALID"),
    ReferenceUnknownError: Answer(404, "MANIFEST_UNKNOWN"),
    TagInvalidError: Answer(400, "TAG_INVALID"),
    DigestInvalidError: Answer(400, "DIGEST_INVALID"),
    DigestMismatchError: Answer(400, "DIGEST_INVALID"),
    ManifestInvalidError: Answer(400, "MANIFEST_INVALID"),
    # The registry.
    registry.RepositoryUnknownError: Answer(404, "NAME_UNKNOWN"),
    MomentInvalidError: Answer(400, "NAME_INVALID"),
    NotThenError: Answer(404, "MANIFEST_UNKNOWN"),
    registry.BlobUnknownError: Answer(404, "BLOB_UNKNOWN"),
    registry.ManifestUnknownError: Answer(404, "MANIFEST_UNKNOWN"),
    registry.UploadUnknownError: Answer(404, "BLOB_UPLOAD_UNKNOWN"),
    registry.ManifestBlobUnknownError: Answer(400, "MANIFEST_BLOB_UNKNOWN"),
    registry.DescriptorSizeError: Answer(400, "MANIFEST_INVALID"),
    registry.ContentTooLargeError: Answer(413, "MANIFEST_INVALID"),
    registry.BlobTooLargeError: Answer(413, "SIZE_INVALID"),
    registry.SizeMismatchError: Answer(400, "SIZE_INVALID"),
    registry.UploadOffsetError: Answer(416, "RANGE_INVALID"),
    registry.UploadBusyError: Answer(409, "BLOB_UPLOAD_INVALID"),
    registry.TagConditionError: Answer(412, "DENIED"),
    registry.TagsTooManyError: Answer(414, "TAG_INVALID"),
    registry.PageSizeInvalidError: Answer(400, "PAGINATION_NUMBER_INVALID"),
    registry.DeleteDisabledError: Answer(405, "UNSUPPORTED"),
    registry.ReadOnlyError: Answer(405, "UNSUPPORTED"),
    registry.ReadOnlyNameError: Answer(405, "UNSUPPORTED"),
    LegacyImageError: Answer(400, "MANIFEST_INVALID"),
    # Container tokens.
    NotDoneHereError: Answer(501, "UNSUPPORTED"),
    ContainerTokenUnknownError: Answer(404, "MANIFEST_UNKNOWN"),
    ContainerTokenEndedError: Answer(404, "MANIFEST_UNKNOWN"),
    ContainerTokenStoppedError: Answer(404, "MANIFEST_UNKNOWN"),
    ContainerPathError: Answer(400, "NAME_INVALID"),
    TurnsTakenError: Answer(429, "TOOMANYREQUESTS"),
    # Upstreams.
    UpstreamReadOnlyError: Answer(405, "UNSUPPORTED"),
    RateLimitedError: Answer(429, "TOOMANYREQUESTS"),
}

_READ_ONLY = ("GET", "HEAD")


def answer_for(error: BaseException) -> Answer:
    """Return the answer of the nearest class of the error's own line of descent."""
    for kind in type(error).__mro__:
        found = ANSWERS.get(kind)
        if found is not None:
            return found
    return Answer(500, "UNKNOWN")


def respond(error: BaseException) -> Response:
    """Return the response that tells a client of the error; what isn't ours is told as UNKNOWN, without detail."""
    answer = answer_for(error)
    headers = [(b"content-type", b"application/json"), *error_headers(error)]
    return Response(answer.status, headers, msgspec.json.encode({"errors": list(_entries(error, answer))}))


def _entries(error: BaseException, answer: Answer) -> Iterator[dict[str, Any]]:
    match error:
        case registry.ManifestBlobUnknownError(missing=missing):
            for digest in missing:  # one entry a digest: clients print them all
                yield _entry(answer, str(error), {"digest": str(digest)})
        case RoadsteadError():
            yield _entry(answer, error.told(), _detail(error))
        case _:
            yield _entry(answer, "something went wrong on the server's side; its log says what", None)


def _entry(answer: Answer, message: str, detail: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"code": answer.code, "message": message}
    return entry if detail is None else {**entry, "detail": detail}


def _detail(error: RoadsteadError) -> Any:
    match error:
        case SignInNeededError(wanted=wanted):
            # Capitalised as distribution has them (Docker token spec).
            named = [(grant, action) for grant in wanted for action in sorted(grant.actions)]
            return [{"Type": grant.kind, "Class": "", "Name": grant.name, "Action": action} for grant, action in named]
        case registry.RepositoryUnknownError(repository=repository):
            return {"name": str(repository)}
        case registry.BlobUnknownError(digest=digest):
            return {"digest": str(digest)}
        case registry.ManifestUnknownError(repository=repository, reference=reference):
            return {"name": str(repository), "reference": str(reference)}
        case _:
            return error.advice()


def error_headers(error: BaseException) -> list[tuple[bytes, bytes]]:
    """Return what an answer has to carry besides the body."""
    match error:
        case MethodUnknownError(allowed=allowed):
            return [(b"allow", ", ".join(allowed).encode())]
        case (
            UpstreamReadOnlyError()
            | registry.ReadOnlyNameError()
            | registry.ReadOnlyError()
            | registry.DeleteDisabledError()
        ):
            return [(b"allow", ", ".join(_READ_ONLY).encode())]
        case registry.UploadOffsetError(repository=repository, upload_id=upload_id, received=received):
            return upload_headers(str(repository), upload_id, received)
        case ContentRangeInvalidError(repository=repository, upload_id=upload_id, received=received):
            return upload_headers(str(repository), upload_id, received)
        case RangeUnsatisfiableError(total=total):
            return [(b"content-range", f"bytes */{total}".encode())]
        case SignInNeededError(challenges=challenges):
            return [(b"www-authenticate", value.encode("latin-1", "replace")) for value in challenges]
        case PullsSpentError():
            return spent_headers(error)
        case UnavailableError(retry_after_s=seconds):
            return [(b"retry-after", str(seconds).encode())]
        case _:
            return []
