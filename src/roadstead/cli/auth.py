"""``roadstead auth``: what policies come to."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from roadstead.auth.caller import Action, Caller
from roadstead.auth.policies import Decision
from roadstead.auth.principal import ANONYMOUS, Principal, PrincipalKind
from roadstead.cli.existing import configured
from roadstead.cli.user import ConfigArgument, DataOption, JsonOption
from roadstead.oci.reference import RepositoryName
from roadstead.settings.check import sqlite_path
from roadstead.settings.model import Settings

app = typer.Typer(
    help="Who may do what, and why.",
    no_args_is_help=True,
    epilog="Example: roadstead auth explain --as user:ana pull team/app roadstead.toml",
)


@app.command("explain", epilog="Example: roadstead auth explain --as user:ana pull team/app roadstead.toml")
def explain(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="pull, push, delete, catalog, …")],
    repository: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="The repository, without a host; - for catalog and admin.")
    ],
    config: ConfigArgument = None,
    data: DataOption = None,
    subject: Annotated[
        str, typer.Option("--as", metavar="SUBJECT", help="Who: user:NAME, robot:NAME, issued:NAME or anonymous.")
    ] = "anonymous",
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="A group they are in; may be repeated. By default those of the account."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether somebody may do something, and which policy decides; auth.policies[0] is the first that is written.

    It is told of whoever has no account, too, with a remark.
    """
    principal = parse_subject(subject, frozenset(group or ()))
    place = str(RepositoryName.parse(repository)) if action.of_repository else None
    settings = configured(config, data)
    decision, remark = asyncio.run(_decision(settings, principal, action, place, groups_said=bool(group)))
    if as_json:
        more = {} if remark is None else {"remark": remark}
        typer.echo(json.dumps({"allowed": decision.allowed, "because": decision.because, **more}))
        return
    typer.echo(f"{'allowed' if decision.allowed else 'denied'}: {decision.because}")
    if remark is not None:
        typer.echo(remark)


def parse_subject(text: str, groups: frozenset[str]) -> Principal:
    """Read who it is; typer's error for wrong usage."""
    if text == str(ANONYMOUS):
        return ANONYMOUS
    kind, _, name = text.partition(":")
    if kind not in ("user", "robot", "issued") or not name:
        raise typer.BadParameter(
            f"{text} is nobody: write user:NAME, robot:NAME, issued:NAME or anonymous", param_hint="--as"
        )
    return Principal(PrincipalKind(kind), name, groups)


async def _decision(
    settings: Settings, principal: Principal, action: Action, place: str | None, *, groups_said: bool
) -> tuple[Decision, str | None]:
    """Return what policies come to, and what is to be known of whom it is about."""
    # What opens a database takes its time to import: --help need not wait for it.
    from roadstead.app.access import build_policies, open_accounts, with_accounts_found

    account = None
    if _has_database(settings):
        async with open_accounts(settings, migrate=False) as accounts:
            settings = await with_accounts_found(settings, accounts)
            account = await accounts.find_account(principal.name)
            if not groups_said and account is not None and account.principal.kind is principal.kind:
                principal = account.principal
    if not settings.auth.is_on:
        return Decision(allowed=True, because="nobody has to sign in here, so everybody may do everything"), None
    there = account is not None and account.principal.kind is principal.kind
    remark = None if there else _absent(principal, passwords=settings.auth.htpasswd is not None)
    return build_policies(settings.auth).decide(Caller(principal), action, place), remark


def _absent(principal: Principal, *, passwords: bool) -> str | None:
    """Return the remark about whoever has no account: policies are about names, whether there is anybody or not."""
    if principal.kind not in (PrincipalKind.USER, PrincipalKind.ROBOT):
        return None
    elsewhere = "; a line of the password file may be theirs" if passwords else " now"
    return f"there is no account {principal} in the database{elsewhere}"


def _has_database(settings: Settings) -> bool:
    path: Path | None = sqlite_path(settings.database_url)
    return path is None or path.exists()
