"""Bytes on their way to a key that others write and delete, too, and what a database has to know of that."""

from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_ARRIVAL = timedelta(minutes=15)
"""From before the bytes are written to the commit of their row at the most.

Every row that comes to be lives far longer than this, so that none comes and goes in between.
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What was known of a digest before its bytes were written under the digest's own key.

    Collection removes bytes first and their row then. So bytes that were written while there was a row may have gone
    with it, if it is there no more; where there was none nothing removes them.
    """

    known: bool  # there was a row, in whatever state
    at: datetime
