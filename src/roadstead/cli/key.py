"""``roadstead key``: API keys of users and robot accounts (docs/how-to/sign-in.md)."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.ports import ApiKey
from roadstead.cli.asking import asked
from roadstead.cli.existing import load_named
from roadstead.cli.user import AccountMissingError, ConfigArgument, DataOption, JsonOption, NameArgument
from roadstead.clock import SystemClock
from roadstead.errors import NotFoundError
from roadstead.settings.model import Settings
from roadstead.settings.quantity import DurationInvalidError, parse_duration

NEVER = "never"

app = typer.Typer(
    help="API keys: what programs sign in with.",
    no_args_is_help=True,
    epilog="Example: roadstead key create ci roadstead.toml --repository 'team/*' --action pull",
)


class KeyMissingError(NotFoundError):
    """There is no such key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id}")

    def advice(self) -> str:
        """Say where the ids are."""
        return "roadstead key list shows the ids of all keys."


@app.command(
    "create", epilog="Example: roadstead key create ci roadstead.toml --repository 'team/*' --action pull --action push"
)
def create(
    name: NameArgument,
    config: ConfigArgument = None,
    data: DataOption = None,
    repository: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Repositories it is good for ('team/*'); may be repeated. By default all."),
    ] = None,
    action: Annotated[
        list[Action] | None,
        typer.Option(help="What it is good for; may be repeated. By default pull alone."),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="DURATION", help="How long it is good: 12h, 90d, or never.")] = "90d",
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for; shown in the list.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a key for an account and print it, once: it is kept nowhere.

    It is never good for more than its account. It stands for the password beside the account's name.
    """
    scope = Scope(tuple(RepositoryGlob.parse(text) for text in repository or ("**",)),
                  frozenset(action or (Action.PULL,)))  # fmt: skip
    now = SystemClock().now()
    expires_at = _end(expires, now)
    row, text = asyncio.run(_create(load_named(config, data), name, scope, now, expires_at, description))
    if as_json:
        typer.echo(json.dumps({"key": text, **_described(row, now)}, indent=2))
        return
    typer.echo(text)
    typer.echo(f"Sign in with it as the password of {row.owner.name}. It is not shown again.", err=True)


def _end(text: str, now: datetime) -> datetime | None:
    """Return when a key ends that is made now; typer's error for wrong usage."""
    if text == NEVER:
        return None
    try:
        end = now + parse_duration(text)
    except DurationInvalidError as error:
        raise typer.BadParameter(f"{error}, or {NEVER}", param_hint="--expires") from error
    if end <= now:
        raise typer.BadParameter(
            f"a key that is good for {text} could never be used; say how long (12h, 90d) or {NEVER}",
            param_hint="--expires",
        )
    return end


@app.command("list", epilog="Example: roadstead key list roadstead.toml --of ci")
def list_keys(
    config: ConfigArgument = None,
    data: DataOption = None,
    of: Annotated[str | None, typer.Option(metavar="NAME", help="Of one account only.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys, what each is good for and until when; never the keys themselves."""
    keys = asyncio.run(_keys(load_named(config, data), of))
    now = SystemClock().now()
    if as_json:
        typer.echo(json.dumps([_described(key, now) for key in keys], indent=2))
        return
    for key in keys:
        until = "never expires"
        if key.expires_at is not None:
            until = f"{'ended' if key.has_ended(now) else 'until'} {key.expires_at:%Y-%m-%d %H:%MZ}"
        actions = ",".join(sorted(key.scope.actions))
        repositories = " ".join(map(str, key.scope.repositories))
        typer.echo(
            f"{key.key_id}  {key.owner!s:<24}  {until:<23}  {actions}  {repositories}  {key.description}".rstrip()
        )


@app.command("revoke", epilog="Example: roadstead key revoke mzxw6ytboi2gc3tb roadstead.toml")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as the list shows it.")],
    config: ConfigArgument = None,
    data: DataOption = None,
) -> None:
    """Revoke a key; it counts at once, in every worker and replica."""
    if not asyncio.run(_revoke(load_named(config, data), key_id)):
        raise KeyMissingError(key_id)
    typer.echo(f"{key_id} is revoked")


async def _create(
    settings: Settings, name: str, scope: Scope, now: datetime, expires_at: datetime | None, description: str
) -> tuple[ApiKey, str]:
    # What opens a database takes its time to import: --help need not wait for it.
    from roadstead.app.access import open_accounts
    from roadstead.auth.api_keys import make_key

    async with open_accounts(settings, migrate=False) as accounts:
        account = await accounts.find_account(name)
        if account is None:
            raise AccountMissingError(name)
        key = make_key(account.principal, scope, now=now, expires_at=expires_at, description=description)
        if not await accounts.put_key(key.row, asked=asked()):
            raise AccountMissingError(name)
        return key.row, key.text.reveal()


async def _keys(settings: Settings, owner: str | None) -> Sequence[ApiKey]:
    # As above.
    from roadstead.app.access import open_accounts

    async with open_accounts(settings, migrate=False) as accounts:
        return sorted(await accounts.keys(owner), key=lambda key: key.created_at)


async def _revoke(settings: Settings, key_id: str) -> bool:
    # As above.
    from roadstead.app.access import open_accounts

    async with open_accounts(settings, migrate=False) as accounts:
        return await accounts.remove_key(key_id, asked=asked())


def _described(key: ApiKey, now: datetime) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "owner": str(key.owner),
        "repositories": [str(glob) for glob in key.scope.repositories],
        "actions": sorted(key.scope.actions),
        "description": key.description,
        "created_at": key.created_at.isoformat(),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "ended": key.has_ended(now),
    }
