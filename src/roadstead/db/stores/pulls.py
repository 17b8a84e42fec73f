"""Pulls by whom they are of (``limits.ports.PullStore``): a row each, its window begun anew when it is over."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, case, delete, select

from roadstead.db.access import Access, Query, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import pull_windows
from roadstead.limits.ports import PullStore, PullWindow

_OVER = pull_windows.c.began_at <= bindparam("over")
_COUNT = Upsert(
    pull_windows,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["subject"],
        set_={
            "pulls": case((_OVER, insert.excluded.pulls), else_=pull_windows.c.pulls + 1),
            "began_at": case((_OVER, insert.excluded.began_at), else_=pull_windows.c.began_at),
        },
    ).returning(pull_windows.c.began_at, pull_windows.c.pulls),
)
_FORGET = delete(pull_windows).where(_OVER)
FIND_WINDOW = Query(
    select(pull_windows.c.began_at, pull_windows.c.pulls).where(pull_windows.c.subject == bindparam("subject")),
    "subject",
)


class DatabasePulls:
    """`PullStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find_window(self, subject: str) -> PullWindow | None:
        """Return somebody's last window."""
        row = await self._access.row(FIND_WINDOW, subject)
        return None if row is None else PullWindow(from_micros(row[0]), row[1])

    async def count_pull(self, subject: str, now: datetime, window: timedelta) -> PullWindow:
        """Count a pull; who begins a window tidies up those that are over."""
        return await self._access.write_cold(_count, subject, to_micros(now), to_micros(now - window))


def _count(connection: Connection, subject: str, now: int, over: int) -> PullWindow:
    row = {"subject": subject, "began_at": now, "pulls": 1, "over": over}
    began, pulls = connection.execute(_COUNT.on(connection), row).one()
    if pulls == 1:
        connection.execute(_FORGET, {"over": over})
    return PullWindow(from_micros(began), pulls)


if TYPE_CHECKING:
    _: type[PullStore] = DatabasePulls
