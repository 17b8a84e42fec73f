"""Reads everything that a registry holds and says what is wrong with it (registry spec §8.4)."""

from dataclasses import dataclass, field

from sqlalchemy import Text, literal_column, select
from tests.soak.ledger import Fact, Ledger, Upload, Value

from roadstead.db.access import Query
from roadstead.db.engine import Database
from roadstead.db.schema import (
    blobs,
    contents,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tag_journal,
    tags,
    uploads,
)
from roadstead.oci.digest import Digest, Hasher
from roadstead.registry.ports import UploadRecord, UploadState
from roadstead.storage.ports import Driver, Key, KeyUnknownError, StagedLostError, TruncatedError
from roadstead.testing.client import Client

# Of what collection is about to remove the bytes may be gone before the row is.
_BLOBS = Query(
    select(blobs.c.digest, blobs.c.size, blobs.c.storage_key)
    .where(blobs.c.state == literal_column("'live'", Text))
)  # fmt: skip
_HELD = Query(
    select(repositories.c.name, repository_blobs.c.digest)
    .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
)  # fmt: skip
_CONTENTS = Query(select(contents.c.digest, contents.c.body))
_MANIFESTS = Query(
    select(repositories.c.name, manifests.c.digest, manifests.c.size)
    .join(repositories, repositories.c.id == manifests.c.repository_id)
)  # fmt: skip
_REFERENCES = Query(
    select(repositories.c.name, manifest_references.c.manifest, manifest_references.c.digest)
    .join(repositories, repositories.c.id == manifest_references.c.repository_id)
    .where(manifest_references.c.kind != literal_column("'child'", Text))
)  # fmt: skip
_TAGS = Query(
    select(repositories.c.name, tags.c.name, tags.c.digest)
    .join(repositories, repositories.c.id == tags.c.repository_id)
)  # fmt: skip
_JOURNAL = Query(
    select(repositories.c.name, tag_journal.c.tag, tag_journal.c.digest, tag_journal.c.previous)
    .join(repositories, repositories.c.id == tag_journal.c.repository_id)
    .order_by(tag_journal.c.id)
)  # fmt: skip
_UPLOADS = Query(select(uploads.c.upload_id, uploads.c.committed))


@dataclass(slots=True)
class FoundUpload:
    """An upload session's row, and the bytes behind it (None: they can't be read)."""

    state: UploadState
    size: int
    data: bytes | None
    committed: str | None


@dataclass(slots=True)
class Found:
    """What a registry holds, and everything about it that contradicts itself."""

    facts: dict[Fact, Value] = field(default_factory=dict)
    uploads: dict[str, FoundUpload] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


async def read_registry(database: Database, driver: Driver) -> Found:
    """Read every row, and the bytes of every blob and upload."""
    found = Found()
    rows = database.access.rows
    stored = {digest: (size, key) for digest, size, key in await rows(_BLOBS)}
    for digest, (size, key) in stored.items():
        await _check_blob(driver, Digest.parse(digest), size, Key(key), found)
    held = {(name, digest) for name, digest in await rows(_HELD)}
    for name, digest in held:
        found.facts[Fact("blob", name, digest)] = digest
    for digest, body in await rows(_CONTENTS):
        if str(Digest.of(body, Digest.parse(digest).algorithm)) != digest:
            found.problems.append(f"the bytes of manifest {digest} have another digest")
    kept = {(name, digest) for name, digest, _ in await rows(_MANIFESTS)}
    for name, digest in kept:
        found.facts[Fact("manifest", name, digest)] = digest
    for name, manifest, digest in await rows(_REFERENCES):
        if (name, digest) not in held:
            found.problems.append(f"{name}@{manifest} needs {digest}, which {name} doesn't have")
    for name, tag, digest in await rows(_TAGS):
        found.facts[Fact("tag", name, tag)] = digest
        if (name, digest) not in kept:
            found.problems.append(f"{name}:{tag} points at {digest}, which {name} doesn't have")
    _check_journal(await rows(_JOURNAL), found)
    for upload_id, committed in await rows(_UPLOADS):
        record = await database.uploads.find(upload_id)
        if record is not None:
            data = await _bytes_of(record, driver)
            found.uploads[upload_id] = FoundUpload(record.state, record.size, data, committed)
    return found


async def _check_blob(driver: Driver, digest: Digest, size: int, key: Key, found: Found) -> None:
    hasher = Hasher(digest.algorithm)
    try:
        async for piece in driver.read(key):
            hasher.update(piece)
    except (KeyUnknownError, TruncatedError) as error:
        found.problems.append(f"blob {digest} can't be read: {error}")
        return
    if hasher.size != size or hasher.digest() != digest:
        found.problems.append(f"blob {digest} of {size} bytes reads as {hasher.size} bytes, {hasher.digest()}")


async def _bytes_of(record: UploadRecord, driver: Driver) -> bytes | None:
    """Return what an open session has, in its row or staged; None where it can't be read."""
    if record.state is not UploadState.OPEN or record.held:
        return record.held or None
    try:
        return b"".join([piece async for piece in driver.read_staged(record.upload_id, record.staged)])
    except StagedLostError:
        return None


def _check_journal(lines: object, found: Found) -> None:
    """The journal replays to the present: each line begins where the one before it ended."""
    now: dict[Fact, Value] = {}
    for name, tag, digest, previous in lines:
        fact = Fact("tag", name, tag)
        if now.get(fact) != previous:
            found.problems.append(f"journal of {name}:{tag}: {previous} follows {now.get(fact)}")
        now[fact] = digest
    for fact, value in now.items():
        if found.facts.get(fact) != value:
            found.problems.append(f"journal of {fact} ends at {value}, but it is {found.facts.get(fact)}")


def contradictions(found: Found, ledger: Ledger, at: float) -> list[str]:
    """Return what is wrong with what was found, given what clients had been told at that moment."""
    problems = list(found.problems)
    for fact in {*ledger.facts(), *found.facts}:
        allowed = ledger.allowed(fact, at)
        if found.facts.get(fact) not in allowed:
            problems.append(f"{fact} is {found.facts.get(fact)}, but can only be one of {sorted(allowed, key=str)}")
    for upload in ledger.uploads:
        problems += _wrong_with(upload, found.uploads.get(upload.upload_id), at)
    return problems


def _wrong_with(upload: Upload, found: FoundUpload | None, at: float) -> list[str]:
    least, most = upload.bounds(at)
    name = f"upload {upload.upload_id}"
    if found is None:
        return [f"{name} is gone with {least} acknowledged bytes"] if least and not upload.may_have_ended(at) else []
    if found.state is not UploadState.OPEN:
        return [] if upload.may_have_ended(at) else [f"{name} is {found.state}"]
    if not least <= found.size <= most:
        return [f"{name} stands at {found.size}, outside {least}…{most}"]
    if found.data is None and not upload.may_have_ended(at):
        return [f"{name} stands at {found.size}, but its bytes can't be read"]
    if found.data is not None and found.data != upload.data[: found.size]:
        return [f"{name} stands at {found.size}, but its bytes aren't what was sent"]
    return []


def served(client: Client, ledger: Ledger, at: float) -> list[str]:
    """Ask a running server for everything in the ledger and return what it answers wrongly; settle what was open."""
    problems = []
    for fact in ledger.facts():
        allowed = ledger.allowed(fact, at)
        value, problem = _ask(client, fact)
        if problem:
            problems.append(problem)
        elif value not in allowed:
            problems.append(f"{fact} is {value}, but can only be one of {sorted(allowed, key=str)}")
        ledger.settle(fact, value)
    return problems


def _ask(client: Client, fact: Fact) -> tuple[Value, str]:
    """Return the fact's value as the server tells it, and what is wrong with the answer."""
    folder = "blobs" if fact.kind == "blob" else "manifests"
    answer = client.get(f"/v2/{fact.repository}/{folder}/{fact.name}")
    if answer.status == 404:
        return None, ""
    digest = answer.headers.get("docker-content-digest", "")
    if answer.status != 200 or str(Digest.of(answer.body)) != digest:
        return None, f"{fact}: {answer.status} with {len(answer.body)} bytes that aren't {digest}"
    return digest, ""


def resume(client: Client, ledger: Ledger, at: float) -> list[str]:
    """Finish every upload that is open, from where the server says it stands; return what goes wrong."""
    problems = []
    for upload in ledger.uploads:
        problem = _resume(client, upload, ledger, at)
        if problem:
            problems.append(f"upload {upload.upload_id}: {problem}")
    ledger.uploads.clear()
    return problems


def _resume(client: Client, upload: Upload, ledger: Ledger, at: float) -> str:
    least, most = upload.bounds(at)
    status = client.get(upload.location)
    ended = upload.may_have_ended(at)
    if status.status == 404:
        return "" if ended else f"it is gone with {least} acknowledged bytes"
    if status.status != 204:
        return f"its status is {status.status}"
    size = int(status.headers["range"].partition("-")[2]) + 1
    stands = 0 if size == 1 and least == 0 else size
    if not least <= stands <= most:
        return f"it stands at {stands}, outside {least}…{most}"
    digest = str(Digest.of(upload.data))
    rest = upload.data[stands:]
    ranged = {"Content-Range": f"{stands}-{len(upload.data) - 1}"} if rest else None
    separator = "&" if "?" in upload.location else "?"
    answer = client.put(f"{upload.location}{separator}digest={digest}", rest or None, ranged)
    if answer.status == 404 and ended:  # its bytes are the blob already, of a commit that didn't live to say so
        return ""
    if answer.status != 201:
        return f"it can't be finished from {stands}: {answer.status} {answer.body!r}"
    ledger.settle(Fact("blob", upload.repository, digest), digest)
    blob = client.get(f"/v2/{upload.repository}/blobs/{digest}")
    return "" if blob.status == 200 and blob.body == upload.data else "the blob it became is wrong"
