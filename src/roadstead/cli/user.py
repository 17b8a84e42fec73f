"""``roadstead user``: the users and robot accounts of the registry's own database (docs/how-to/sign-in.md)."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any

import typer

from roadstead.auth.caller import USER
from roadstead.auth.credentials import MAX_PASSWORD
from roadstead.auth.names import parse_account_name
from roadstead.auth.ports import Account
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.cli.asking import asked
from roadstead.cli.existing import configured, load_named
from roadstead.cli.report import report_warnings
from roadstead.clock import SystemClock
from roadstead.errors import ConflictError, InvalidError, NotFoundError
from roadstead.oci.reference import NameInvalidError, RepositoryName
from roadstead.secret import Secret
from roadstead.settings.database_url import without_password
from roadstead.settings.findings import Finding
from roadstead.settings.model import Settings
from roadstead.settings.openness import opens_without_accounts
from roadstead.upstream.address import HUB_HOSTS

app = typer.Typer(
    help="Users and robot accounts.", no_args_is_help=True, epilog="Example: roadstead user add ana roadstead.toml"
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
ConfigArgument = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The server's TOML file.")]
DataOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_LAST_GONE = Finding(
    "auth.accounts",
    "that was the last account, and nothing else in the settings has anybody sign in: after its next start the server "
    "lets whoever reaches it read, write and delete every image",
    advice="Set auth.accounts = true, and access stays controlled without any account; or add another one.",
)


class AccountTakenError(ConflictError):
    """There is an account of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is an account {name} already")

    def advice(self) -> str:
        """Say how it is changed."""
        return (
            "With --replace it gets the groups and the password that you say; its keys stay. roadstead user groups "
            "changes its groups alone."
        )


class AccountMissingError(NotFoundError):
    """There is no account of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no account {name}")

    def advice(self) -> str:
        """Say how one is made."""
        return "roadstead user list shows which there are; roadstead user add makes one."


class Removed(Enum):
    """What became of an account that was to go."""

    NOTHING = auto()
    ONE = auto()
    THE_LAST = auto()


class PasswordUnusableError(InvalidError):
    """A password can't be taken."""


@app.command("add", epilog="Example: roadstead user add ana roadstead.toml --group developers")
def add(
    name: NameArgument,
    config: ConfigArgument = None,
    data: DataOption = None,
    group: Annotated[list[str] | None, typer.Option(metavar="GROUP", help="A group it is in; may be repeated.")] = None,
    robot: Annotated[bool, typer.Option("--robot", help="An account for a program; it signs in with keys.")] = False,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the password from a file; - is standard input.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Change the account if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a user or a robot account. The password is asked for, or read from standard input."""
    settings = configured(config, data)
    groups = frozenset(parse_account_name(text) for text in group or ())
    principal = Principal(PrincipalKind.ROBOT if robot else PrincipalKind.USER, parse_account_name(name), groups)
    password = _password(name, password_file, robot=robot)
    if not asyncio.run(_put(settings, principal, password, replace=replace)):
        raise AccountTakenError(name)
    if as_json:
        typer.echo(json.dumps(_described(principal, has_password=password is not None)))
        return
    typer.echo(f"{principal} is in {without_password(settings.database_url)}")
    for remark in _remarks(name, settings):
        typer.echo(remark, err=True)
    if not settings.auth.accounts and settings.auth.oidc is None:  # with an issuer it knows of accounts anyway
        typer.echo("A server that runs already asks for it after its next start.", err=True)


@app.command("groups", epilog="Example: roadstead user groups ana roadstead.toml --group developers --group ops")
def set_groups(
    name: NameArgument,
    config: ConfigArgument = None,
    data: DataOption = None,
    group: Annotated[list[str] | None, typer.Option(metavar="GROUP", help="A group it is in; may be repeated.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Take it out of every group.")] = False,
) -> None:
    """Put an account into these groups and no others; its password and keys stay. It counts at once."""
    if none == bool(group):
        raise typer.BadParameter("say each group that it is to be in with --group, or --none")
    groups = frozenset(parse_account_name(text) for text in group or ())
    if not asyncio.run(_set_groups(load_named(config, data), name, groups)):
        raise AccountMissingError(name)
    typer.echo(f"{name} is in {', '.join(sorted(groups)) or 'no group'}")


@app.command("list", epilog="Example: roadstead user list roadstead.toml --json")
def list_users(config: ConfigArgument = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the accounts with their groups."""
    accounts = asyncio.run(_accounts(load_named(config, data)))
    if as_json:
        typer.echo(json.dumps([_shown(account) for account in accounts], indent=2))
        return
    for account in accounts:
        groups = ", ".join(sorted(account.principal.groups))
        typer.echo(f"{account.principal!s:<32}  {_how(account):<9}  {groups}".rstrip())


@app.command("remove", epilog="Example: roadstead user remove ana roadstead.toml")
def remove(name: NameArgument, config: ConfigArgument = None, data: DataOption = None) -> None:
    """Remove an account with all its keys; it counts at once."""
    settings = load_named(config, data)
    removed = asyncio.run(_remove(settings, name))
    if removed is Removed.NOTHING:
        raise AccountMissingError(name)
    typer.echo(f"{name} is gone, and its keys with it")
    if removed is Removed.THE_LAST and opens_without_accounts(settings):
        report_warnings([_LAST_GONE])


@app.command("disable", epilog="Example: roadstead user disable ana roadstead.toml")
def disable(name: NameArgument, config: ConfigArgument = None, data: DataOption = None) -> None:
    """Have an account count no more, with its keys, tokens and sessions; it counts at once."""
    if not asyncio.run(_set_disabled(load_named(config, data), name, disabled=True)):
        raise AccountMissingError(name)
    typer.echo(f"{name} is kept out from now on")


@app.command("enable", epilog="Example: roadstead user enable ana roadstead.toml")
def enable(name: NameArgument, config: ConfigArgument = None, data: DataOption = None) -> None:
    """Have an account that was disabled count again, with the keys it has."""
    if not asyncio.run(_set_disabled(load_named(config, data), name, disabled=False)):
        raise AccountMissingError(name)
    typer.echo(f"{name} is let in again")


def _remarks(name: str, settings: Settings) -> Iterator[str]:
    """Yield what a name is also: with ``{user}`` in a policy it stands for the first part of repositories' names."""
    # As below.
    from roadstead.http.names import RESERVED

    hosts = {upstream.host for upstream in settings.upstreams.registries} | HUB_HOSTS
    if name in hosts or name in RESERVED:
        what = "a registry's host" if name in hosts else "a word that names of repositories begin with here"
        yield f"{name} is {what} as well: a policy for {USER}/** would give this account that tree."
    elif any(USER in glob for policy in settings.auth.policies for glob in policy.repositories):
        try:
            RepositoryName.parse(name)
        except NameInvalidError:
            yield f"No policy with {USER} fits {name}: that can't be a part of a repository's name (a-z, 0-9, . _ -)."


def _password(name: str, file: Path | None, *, robot: bool) -> Secret | None:
    """Return the password that was given or is asked for; None for an account that has none."""
    if file is None and robot:
        return None
    if file is not None and str(file) != "-":
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PasswordUnusableError(f"the password in {file} can't be read: {error}") from error
    elif sys.stdin.isatty():
        text = typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
    else:
        text = sys.stdin.read()
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(text) > MAX_PASSWORD or "\0" in text or "\n" in text:
        raise PasswordUnusableError(f"the password has to be one line of 1 to {MAX_PASSWORD} characters")
    return Secret(text)


async def _put(settings: Settings, principal: Principal, password: Secret | None, *, replace: bool) -> bool:
    # What opens a database takes its time to import: --help need not wait for it.
    from roadstead.app.access import open_accounts
    from roadstead.auth.passwords import hash_password

    hashed = None if password is None else Secret(hash_password(password.reveal()))
    async with open_accounts(settings, migrate=True) as accounts:
        return await accounts.put_account(principal, hashed, replace=replace, now=SystemClock().now(), asked=asked())


async def _accounts(settings: Settings) -> Sequence[Account]:
    # As above.
    from roadstead.app.access import open_accounts

    async with open_accounts(settings, migrate=False) as accounts:
        return await accounts.accounts()


async def _remove(settings: Settings, name: str) -> Removed:
    # As above.
    from roadstead.app.access import open_accounts

    async with open_accounts(settings, migrate=False) as accounts:
        if not await accounts.remove_account(name, asked=asked()):
            return Removed.NOTHING
        return Removed.ONE if await accounts.accounts(limit=1) else Removed.THE_LAST


async def _set_groups(settings: Settings, name: str, groups: frozenset[str]) -> bool:
    # As above.
    from roadstead.app.access import open_accounts

    async with open_accounts(settings, migrate=False) as accounts:
        return await accounts.set_groups(name, groups, asked=asked())


async def _set_disabled(settings: Settings, name: str, *, disabled: bool) -> bool:
    # As above.
    from roadstead.app.access import open_accounts

    async with open_accounts(settings, migrate=False) as accounts:
        return await accounts.set_disabled(name, disabled=disabled, now=SystemClock().now(), asked=asked())


def _how(account: Account) -> str:
    if account.disabled:
        return "disabled"
    if account.vouched is not None:
        return f"{account.vouched.issuer} on {account.vouched.at:%Y-%m-%d}"
    return "password" if account.password_hash is not None else "keys only"


def _shown(account: Account) -> dict[str, Any]:
    described = _described(account.principal, has_password=account.password_hash is not None)
    vouched = account.vouched
    return described | {
        "created_at": account.created_at.isoformat(),
        "disabled": account.disabled,
        "issuer": None if vouched is None else vouched.issuer,
        "signed_in_at": None if vouched is None else vouched.at.isoformat(),
    }


def _described(principal: Principal, *, has_password: bool) -> dict[str, Any]:
    return {
        "kind": principal.kind.value,
        "name": principal.name,
        "groups": sorted(principal.groups),
        "has_password": has_password,
    }
