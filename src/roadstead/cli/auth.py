"""``roadstead auth``: what policies come to."""

import asyncio
import json
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from roadstead.auth.caller import Action, Caller
from roadstead.auth.errors import SourceUnreadableError
from roadstead.auth.policies import Decision
from roadstead.auth.ports import Account, AccountStore
from roadstead.auth.principal import ANONYMOUS, Principal, PrincipalKind
from roadstead.auth.providers.htpasswd import read_htpasswd
from roadstead.auth.standing import Standing
from roadstead.cli.existing import BY_DEFAULT, configured_for
from roadstead.cli.user import ConfigArgument, DataOption, JsonOption
from roadstead.clock import SystemClock
from roadstead.oci.reference import RepositoryName
from roadstead.settings.check import sqlite_path
from roadstead.settings.model import AuthSettings, Settings

app = typer.Typer(
    help="Who may do what, and why.",
    no_args_is_help=True,
    epilog="Example: roadstead auth explain --as user:ana pull team/app roadstead.toml",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom it is asked of, and what they would do where. ``groups_said``: the account's groups don't count."""

    principal: Principal
    groups_said: bool
    action: Action
    place: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a name: its account, if accounts count, how many keys that has, and the password file."""

    account: Account | None = None
    keys: int = 0
    lines: Collection[str] | None = None  # None where there is no such file

    def is_there(self, principal: Principal) -> bool:
        """Say whether somebody of that kind and name can sign in with a password, a key or an issuer's word."""
        return self.account_of(principal) is not None or self.has_line(principal)

    def has_line(self, principal: Principal) -> bool:
        """Say whether the password file lets them in."""
        return principal.kind is PrincipalKind.USER and principal.name in (self.lines or ())

    def account_of(self, principal: Principal) -> Account | None:
        """Return the account if it is theirs: of that kind, not of that name alone."""
        account = self.account
        return account if account is not None and account.principal.kind is principal.kind else None


@dataclass(frozen=True, slots=True)
class Explained:
    """What policies come to, and what is to be known of whom it is about: that nobody is there, or has keys."""

    decision: Decision
    absent: str | None = None
    keys: str | None = None


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

    Whoever signs in with a key or a token may do no more than that is good for, too. It is told of whoever has no
    account as well, after a line that says so.
    """
    if config is None and _is_settings_file(repository):
        raise typer.BadParameter(
            f"{repository} is a settings file: the repository is missing before it (- for catalog and admin)",
            param_hint="REPOSITORY",
        )
    asked = Asked(
        parse_subject(subject, frozenset(group or ())),
        bool(group),
        action,
        str(RepositoryName.parse(repository)) if action.of_repository else None,
    )
    settings, by_default = configured_for(config, data, "auth")
    explained = asyncio.run(_explained(settings, asked))
    decision, absent = explained.decision, explained.absent
    remarks = [*([BY_DEFAULT] if by_default else []), *([explained.keys] if explained.keys else [])]
    if as_json:
        remarks = [*([absent] if absent else []), *remarks]
        more = {"remark": "; ".join(remarks)} if remarks else {}
        typer.echo(json.dumps({"allowed": decision.allowed, "because": decision.because, **more}))
        return
    if absent is not None:  # first, since who only reads one line would take "allowed" for somebody who gets in
        typer.echo(f"{absent}; if there were:")
    typer.echo(f"{'allowed' if decision.allowed else 'denied'}: {decision.because}")
    for remark in remarks:
        typer.echo(remark)


def parse_subject(text: str, groups: frozenset[str]) -> Principal:
    """Read who it is; typer's error for wrong usage."""
    if text == str(ANONYMOUS):
        if groups:
            raise typer.BadParameter(
                "anonymous is in no group: say who is in it with --as user:NAME", param_hint="--group"
            )
        return ANONYMOUS
    kind, _, name = text.partition(":")
    if kind not in ("user", "robot", "issued") or not name:
        raise typer.BadParameter(
            f"{text} is nobody: write user:NAME, robot:NAME, issued:NAME or anonymous", param_hint="--as"
        )
    return Principal(PrincipalKind(kind), name, groups)


def _is_settings_file(text: str) -> bool:
    return text.endswith(".toml") or Path(text).is_file()


async def _explained(settings: Settings, asked: Asked) -> Explained:
    """Return what policies come to, and what is to be known of whom it is about."""
    # What opens a database takes its time to import: --help need not wait for it.
    from roadstead.app.access import build_policies

    written = settings.auth
    settings, known = await _looked_up(settings, asked.principal.name)
    if not settings.auth.is_on:
        return Explained(Decision(allowed=True, because="nobody has to sign in here, so everybody may do everything"))
    principal = asked.principal
    objection = _objection(settings.auth, known, principal)
    if objection is not None:
        because = f"{objection}, so nothing is let in that comes from {principal}"
        return Explained(Decision(allowed=False, because=because))
    account = known.account_of(principal)
    if account is not None and not asked.groups_said:
        principal = account.principal
    decision = build_policies(settings.auth).decide(Caller(principal), asked.action, asked.place)
    return Explained(decision, _absent(written, known, principal), _keys(decision, known, principal))


async def _looked_up(settings: Settings, name: str) -> tuple[Settings, Known]:
    """Return the settings with `auth.accounts` decided as a start would now, and what is known of that name."""
    # As above.
    from roadstead.app.access import with_accounts_found

    lines = _lines(settings.auth)
    async with _accounts(settings) as accounts:
        if accounts is None:
            return settings, Known(lines=lines)
        settings = await with_accounts_found(settings, accounts)
        account = await accounts.find_account(name) if settings.auth.accounts else None
        if account is None:
            return settings, Known(lines=lines)
        now = SystemClock().now()
        keys = await accounts.keys(name)
        good = [key for key in keys if not key.has_ended(now)]
        return settings, Known(account, len(good), lines)


@asynccontextmanager
async def _accounts(settings: Settings) -> AsyncGenerator[AccountStore | None, None]:
    """Open the accounts; None where there is no database, which explaining doesn't make."""
    # As above.
    from roadstead.app.access import open_accounts

    path: Path | None = sqlite_path(settings.database_url)
    if path is not None and not path.exists():
        yield None
        return
    async with open_accounts(settings, migrate=False) as accounts:
        yield accounts


def _lines(auth: AuthSettings) -> Collection[str] | None:
    """Return the names that the password file lets in; None where there is none. Raises SourceUnreadableError."""
    if auth.htpasswd is None:
        return None
    path = auth.htpasswd.path
    try:
        return read_htpasswd(path).hashes.keys()
    except OSError as error:
        raise SourceUnreadableError(f"the file of passwords can't be read: {path}: {error.strerror}") from error


def _objection(auth: AuthSettings, known: Known, principal: Principal) -> str | None:
    """Return why nobody is let in as this one, whatever policies say; None where somebody may be."""
    # As above.
    from roadstead.app.access import trusted_issuers

    account = known.account
    if account is None or not (account.principal.kind is principal.kind or known.has_line(principal)):
        return None
    if known.has_line(principal) and not account.disabled:
        return None  # the line's password is good; one that is disabled bars its name in the file as well
    return Standing(SystemClock(), trusted_issuers(auth)).objection(account)


def _absent(auth: AuthSettings, known: Known, principal: Principal) -> str | None:
    """Return the remark about whoever has no account: policies are about names, whether there is anybody or not."""
    if principal.kind not in (PrincipalKind.USER, PrincipalKind.ROBOT) or known.is_there(principal):
        return None
    no_line = ", and no line in the password file" if known.lines is not None else ""
    if auth.accounts is False:
        return f"there is nobody to sign in as {principal}: the database's accounts don't count{no_line}"
    return f"there is no account {principal} in the database{no_line or ' now'}"


def _keys(decision: Decision, known: Known, principal: Principal) -> str | None:
    """Return the remark about the keys of whoever is allowed: a key is often good for less."""
    if not (decision.allowed and known.keys and known.account_of(principal)):
        return None
    has = "a key that narrows" if known.keys == 1 else f"{known.keys} keys that narrow"
    return f"{principal} has {has} this further: roadstead key list --of {principal.name}"
