"""The row of a repository: found, made, locked. Parts of intentions; each runs in the transaction it is given.

On PostgreSQL the row orders what may not cross: a push shares it, a delete has it alone. So a push never refers to
what a delete is taking away, pushes don't wait for each other, and whoever comes second sees what the first did.
SQLite has one writer at a time and needs no locks.
"""

from sqlalchemy import Connection, bindparam, false, select, true, update

from roadstead.db.access import Step, Upsert
from roadstead.db.schema import manifests, repositories
from roadstead.oci.reference import RepositoryName

_FIND = select(repositories.c.id).where(repositories.c.name == bindparam("name"))
_NUMBER = Step(_FIND)
_SHARE = Step(_FIND.with_for_update(read=True))
_SHARE_LISTED = Step(_FIND.where(repositories.c.listed.is_(true())).with_for_update(read=True))
_ALONE = _FIND.with_for_update()

_MAKE = Step(
    Upsert(
        repositories, lambda insert: insert.on_conflict_do_nothing(index_elements=["name"]).returning(repositories.c.id)
    )
)
_MAKE_LISTED = Step(
    Upsert(
        repositories,
        lambda insert: insert.on_conflict_do_update(index_elements=["name"], set_={"listed": True}).returning(
            repositories.c.id
        ),
    )
)
_UNLIST = (
    update(repositories)
    .where(repositories.c.id == bindparam("repository"))
    .where(
        ~select(manifests.c.digest)
        .where(manifests.c.repository_id == bindparam("repository"), manifests.c.derived.is_(false()))
        .exists()
    )
    .values(listed=False)
)


def sort_key(name: str) -> str:
    """Return what sorts repositories component by component: ``a/b`` before ``a-b``."""
    return name.replace("/", "\x01")


def make(connection: Connection, repository: RepositoryName, at: int) -> int:
    """Return the repository's number; it comes to be where there is none."""
    found = find(connection, repository)
    if found is None:
        found = _MAKE.one(connection, _new(repository, at, listed=False))
    if found is None:  # somebody else has just made it
        found = connection.execute(_FIND, {"name": repository.value}).scalar_one()
    return int(found)


def make_listed(connection: Connection, repository: RepositoryName, at: int) -> int:
    """Return the number of a repository that is about to hold a pushed manifest; no delete crosses it."""
    found = _SHARE_LISTED.one(connection, {"name": repository.value})
    if found is None:
        # Not a lock to be strengthened: two pushes that share the row would wait for each other.
        found = _MAKE_LISTED.one(connection, _new(repository, at, listed=True))
    return int(found)


def share(connection: Connection, repository: RepositoryName) -> int | None:
    """Return the repository's number, or None; no delete crosses what follows."""
    number: int | None = _SHARE.one(connection, {"name": repository.value})
    return number


def have_alone(connection: Connection, repository: RepositoryName) -> int | None:
    """Return the repository's number, or None; neither a push nor a delete crosses what follows."""
    return connection.execute(_ALONE, {"name": repository.value}).scalar_one_or_none()


def find(connection: Connection, repository: RepositoryName) -> int | None:
    """Return the repository's number, or None."""
    number: int | None = _NUMBER.one(connection, {"name": repository.value})
    return number


def unlist_if_empty(connection: Connection, number: int) -> None:
    """Take the repository out of the catalog once nothing is left in it that was pushed."""
    connection.execute(_UNLIST, {"repository": number})


def _new(repository: RepositoryName, at: int, *, listed: bool) -> dict[str, object]:
    name = repository.value
    return {"name": name, "sort_key": sort_key(name), "listed": listed, "created_at": at}
