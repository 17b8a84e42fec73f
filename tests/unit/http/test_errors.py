"""Every error that the rooms can raise has an answer (distribution-spec "Error Codes")."""

import importlib
import json
import pkgutil
from collections.abc import Callable

import pytest

import roadstead
from roadstead.db.errors import StoreFailedError
from roadstead.errors import RoadsteadError
from roadstead.http.api import errors as api
from roadstead.http.asgi import Response
from roadstead.http.errors import ANSWERS, answer_for, respond
from roadstead.http.names import parse_name
from roadstead.http.wave import errors as wave
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import ManifestBlobUnknownError, ReadOnlyNameError, UploadOffsetError
from roadstead.storage.ports import StorageDeniedError, StorageFailedError, StorageFullError, StorageUnavailableError

FAMILIES = 6  # the root and its five families


def _descendants(kind: type[RoadsteadError]) -> set[type[RoadsteadError]]:
    return {kind}.union(*(_descendants(child) for child in kind.__subclasses__()))


def _request_rooms() -> list[str]:
    rooms = ("roadstead.oci", "roadstead.storage", "roadstead.registry", "roadstead.augment", "roadstead.http")
    return [
        module.name
        for module in pkgutil.walk_packages(roadstead.__path__, "roadstead.")
        if module.name.startswith(rooms) and "drivers" not in module.name
    ]


def test_every_error_of_the_rooms_has_an_answer_of_its_family_or_its_own() -> None:
    """No error a request can meet ends as 500 UNKNOWN: each has a line in the table, or its family's."""
    for name in _request_rooms():
        importlib.import_module(name)
    kinds = _descendants(RoadsteadError) - {RoadsteadError}
    unanswered = [kind.__name__ for kind in kinds if answer_for(kind.__new__(kind)).status == 500]

    assert unanswered == []
    assert len(ANSWERS) > FAMILIES


def test_each_missing_blob_has_an_entry_of_its_own() -> None:
    """Clients print one line for each digest that is missing (distribution does the same)."""
    missing = [Digest.of(b"1"), Digest.of(b"2")]

    response = respond(ManifestBlobUnknownError(RepositoryName.parse("a/b"), missing))

    errors = json.loads(response.body)["errors"]
    assert response.status == 400
    assert [entry["detail"]["digest"] for entry in errors] == [str(digest) for digest in missing]
    assert {entry["code"] for entry in errors} == {"MANIFEST_BLOB_UNKNOWN"}


def test_an_offset_error_tells_where_to_go_on() -> None:
    """416 carries Location and Range, so that a client can go on without asking (registry spec §1.7)."""
    response = respond(UploadOffsetError("id", RepositoryName.parse("a/b"), received=10, start=5))

    assert response.status == 416
    assert dict(response.headers)[b"location"] == b"/v2/a/b/blobs/uploads/id"
    assert dict(response.headers)[b"range"] == b"0-9"


def test_what_is_not_ours_is_told_without_its_text() -> None:
    """A foreign exception is answered 500 UNKNOWN; its text may hold paths and secrets and stays here."""
    response = respond(ValueError("/secret/path"))

    assert response.status == 500
    assert b"secret" not in response.body


@pytest.mark.parametrize(
    "kind", [StorageFullError, StorageDeniedError, StorageUnavailableError, StorageFailedError, StoreFailedError]
)
@pytest.mark.parametrize("tell", [respond, api.respond, wave.respond], ids=["v2", "api", "wave"])
def test_where_things_lie_is_told_to_the_operator_alone(
    kind: type[RoadsteadError], tell: Callable[[BaseException], Response]
) -> None:
    """Anybody may read an answer; the log has the error's own line."""
    answer = tell(kind("no space for /srv/registry/docker on 10.0.0.5:8333 as keeper"))

    assert answer.status == 503
    assert b"server's log" in answer.body
    assert not any(secret in answer.body for secret in (b"/srv", b"10.0.0.5", b"keeper"))


def test_a_name_that_only_reads_says_so() -> None:
    """405 with Allow, and the name that takes writes where there is one."""
    response = respond(ReadOnlyNameError("as-pushed/a", instead="a"))

    assert (response.status, dict(response.headers)[b"allow"]) == (405, b"GET, HEAD")
    assert b"push to a" in response.body


@pytest.mark.parametrize("prefix", ["as-pushed/", "as-of/2026-11-22/", "as-of/2026-11-22t10.00z/"])
def test_a_name_that_only_reads_names_the_one_that_writes(prefix: str) -> None:
    """However many components stand before the repository."""
    with pytest.raises(ReadOnlyNameError) as refused:
        parse_name(f"{prefix}team/app").writable()

    assert refused.value.instead == "team/app"


def test_other_reserved_names_have_no_writable_one() -> None:
    """Nothing is suggested that wouldn't work."""
    with pytest.raises(ReadOnlyNameError) as refused:
        parse_name("wt/team/app").writable()

    assert refused.value.instead is None


@pytest.mark.parametrize("code", sorted({answer.code for answer in ANSWERS.values()}))
def test_codes_are_words_of_the_spec_or_distribution(code: str) -> None:
    """Clients act on codes: none is invented."""
    assert code in {
        "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DENIED", "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN",
        "PAGINATION_NUMBER_INVALID", "RANGE_INVALID", "SIZE_INVALID", "TAG_INVALID", "TOOMANYREQUESTS",
        "UNAUTHORIZED", "UNAVAILABLE", "UNKNOWN", "UNSUPPORTED",
    }  # fmt: skip
