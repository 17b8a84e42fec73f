"""What the API works on besides images: users, keys, events, the audit log."""

from dataclasses import dataclass

from roadstead.acts import ActStore
from roadstead.auth.ports import AccountStore
from roadstead.events.ports import OutboxStore
from roadstead.registry.quotas import UsageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """``keeps_accounts``: the database lasts, so an account that is made now does too. ``knows_accounts``: this server,
    as it was started, lets accounts sign in. ``endpoints`` are the names of those who hear of events; ``origin`` is
    ``https://host`` where settings name it.
    """

    accounts: AccountStore
    outbox: OutboxStore
    acts: ActStore
    usage: UsageStore
    endpoints: tuple[str, ...] = ()
    origin: str = ""
    keeps_accounts: bool = True
    knows_accounts: bool = True
    read_only: bool = False
