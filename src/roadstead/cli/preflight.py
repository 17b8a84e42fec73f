"""What ``serve`` would find out only while it prepares: broken rules, libraries that aren't there."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec

from roadstead.augment.includes import IncludeInvalidError, parse_include
from roadstead.augment.layers import check_layer
from roadstead.augment.locations import BlobAddress, LocationInvalidError, WebAddress, kind_of
from roadstead.augment.plan import Plan, PlanInvalidError, parse_variable
from roadstead.auth.providers.htpasswd import read_htpasswd
from roadstead.cli.certificate import tls_plan
from roadstead.db.errors import DriverMissingError
from roadstead.db.postgres import check_driver
from roadstead.oci.layer import LayerInvalidError
from roadstead.settings.check import sqlite_path, unreadable
from roadstead.settings.database_url import is_postgresql
from roadstead.settings.findings import Finding
from roadstead.settings.model import LayerSettings, RuleSettings, Settings, StorageDriver
from roadstead.settings.openness import asks_nobody, open_behind_a_proxy
from roadstead.storage.drivers.s3 import S3ExtraMissingError
from roadstead.tls.material import TlsInvalidError

_NAMED = 10  # names in one line, at the most
_OF_ACCESS = {"auth", "server", "http", "database"}  # sections, distribution's too


def preflight(settings: Settings) -> Iterator[Finding]:
    """Yield what stands in the way of these settings beside what `check_settings` finds; reads every layer."""
    for at, rule in enumerate(settings.augment.rules):
        key = f"augment.rules[{at}]"
        yield from _plan(key, rule)
        for number, layer in enumerate(rule.layers):
            yield from _layer(f"{key}.layers[{number}]", layer)
        for number, image in enumerate(rule.includes):
            yield from _include(f"{key}.includes[{number}]", image)
    yield from _certificate(settings)
    yield from _htpasswd(settings)
    yield from _token_keys(settings)
    yield from _master_key(settings)
    yield from _signatures(settings)
    yield from _extras(settings)


def remarks(settings: Settings, findings: Iterable[Finding] = ()) -> Iterator[Finding]:
    """Yield what to know although nothing speaks against serving; asks no other machine.

    Of who may come in nothing is said where `findings` are about that: a default may stand in for a slip.
    """
    if not {finding.key.partition(".")[0] for finding in findings} & _OF_ACCESS:
        yield from _openness(settings)
        yield from _asks_nobody(settings)
    yield from _namesakes(settings)
    yield from _hidden_rules(settings)


def _openness(settings: Settings) -> Iterator[Finding]:
    """Yield that anybody may write here through a proxy; the start says it knowing of accounts in every database."""
    finding = open_behind_a_proxy(settings)
    if finding is None or _has_accounts(settings):
        return
    if settings.auth.accounts is None and is_postgresql(settings.database_url):
        unless = f"{finding.message}, unless the database has accounts, which isn't asked here"
        finding = replace(finding, message=unless, advice=f"{finding.advice} auth.accounts = true says that it has.")
    yield finding


def _asks_nobody(settings: Settings) -> Iterator[Finding]:
    """Yield that no client sends a password, as none is asked for one."""
    auth = settings.auth
    decided = replace(auth, accounts=auth.oidc is not None or _has_accounts(settings))
    finding = asks_nobody(replace(settings, auth=decided))
    if finding is not None:
        yield finding


def _has_accounts(settings: Settings) -> bool:
    """Say whether a start would find accounts, as far as can be told without asking another machine."""
    path = sqlite_path(settings.database_url)
    if settings.auth.accounts is not None or settings.is_rebuildable or path is None or not path.is_file():
        return bool(settings.auth.accounts)
    # The database's tables take a library that nothing else here needs.
    from roadstead.db.stores.accounts import names_in_file

    return bool(names_in_file(path))


def _namesakes(settings: Settings) -> Iterator[Finding]:
    """Yield the names that either of two passwords lets in; the start says it of every database."""
    database = sqlite_path(settings.database_url)
    if settings.auth.htpasswd is None or settings.auth.accounts is False or database is None or not database.is_file():
        return
    # As above.
    from roadstead.db.stores.accounts import names_in_file

    try:
        entries = read_htpasswd(settings.auth.htpasswd.path)
    except OSError:
        return  # check_settings says that it can't be read
    both = sorted((names_in_file(database) or frozenset()) & entries.hashes.keys())
    if both:
        yield Finding(
            "auth.htpasswd",
            f"{', '.join(both[:_NAMED])}{' …' if len(both) > _NAMED else ''}: with an account in the database as well",
            advice="Keep one of the two: groups and keys are the account's alone, and either password is taken.",
        )


def _hidden_rules(settings: Settings) -> Iterator[Finding]:
    """Yield the rules that no image reaches: the first that matches is the one that applies."""
    seen: dict[str, int] = {}
    for at, rule in enumerate(settings.augment.rules):
        before = seen.get("**", seen.get(rule.match))
        if before is not None:
            yield Finding(
                f"augment.rules[{at}]",
                f"no image comes to it: augment.rules[{before}], which stands before it, matches all that it does",
                advice="The first rule that matches is the one that applies: put the narrower one first.",
            )
        seen.setdefault(rule.match, at)


def _certificate(settings: Settings) -> Iterator[Finding]:
    if not settings.speaks_tls:
        return
    # Reading certificates takes a library that nobody else needs.
    from roadstead.tls.source import check_plan

    try:
        check_plan(tls_plan(settings))
    except TlsInvalidError as error:
        yield Finding(error.part, error.reason, advice=error.advice())


def _token_keys(settings: Settings) -> Iterator[Finding]:
    if settings.auth.token is None:
        return
    # So does reading keys; what can't be read at all is check_settings' to tell.
    from roadstead.app.tokens import trusted_keys
    from roadstead.auth.trusted_keys import KeysUnreadableError

    named = [path for path in (settings.auth.token.rootcertbundle, settings.auth.token.jwks) if path is not None]
    if all(unreadable(path) is None for path in named):
        try:
            trusted_keys(settings.auth.token)
        except KeysUnreadableError as error:
            yield Finding("auth.token", str(error))


def _master_key(settings: Settings) -> Iterator[Finding]:
    """Yield that the key which is kept can't be read; where there is none, the start makes one."""
    if settings.issue is None or settings.auth.master_key is not None:
        return
    # What gives tokens is loaded only where there are some.
    from roadstead.app.tokens import MASTER_KEY_FILE

    path = settings.storage.path / MASTER_KEY_FILE
    reason = unreadable(path) if os.path.lexists(path) else None
    if reason is not None:
        advice = "It is the file of the user who serves: run this as that one."
        yield Finding("auth.master_key", f"{path} cannot be read: {reason}", advice=advice)


def _signatures(settings: Settings) -> Iterator[Finding]:
    if not settings.signatures.policies and settings.signatures.key is None:
        return
    # So does reading these.
    from roadstead.app.signing import check_signatures
    from roadstead.signatures.errors import KeyInvalidError

    try:
        check_signatures(settings)
    except KeyInvalidError as error:
        # check_settings tells of files that can't be read, by their keys alone.
        unread = (entry.path for policy in settings.signatures.policies for entry in policy.keys)
        if all(path is None or os.access(path, os.R_OK) for path in unread):
            yield Finding(error.where, error.reason, advice=error.advice())


def _plan(key: str, rule: RuleSettings) -> Iterator[Finding]:
    told = [text for text in rule.env if text.find("=") < 1]  # check_settings names each
    told += [text for text in rule.labels if text.find("=") < 1]
    changes = (rule.env, rule.labels, rule.entrypoint is not None, rule.cmd is not None, rule.workdir is not None)
    if told or ((rule.layers or rule.includes) and not any(changes)):
        return
    try:
        Plan(
            env=tuple(parse_variable(text) for text in rule.env),
            entrypoint=rule.entrypoint,
            cmd=rule.cmd,
            workdir=rule.workdir,
            labels=tuple(parse_variable(text, "labels") for text in rule.labels),
        )
    except PlanInvalidError as error:
        yield Finding(key, str(error))


def _layer(key: str, layer: LayerSettings) -> Iterator[Finding]:
    if layer.location is not None:
        yield from _location(key, layer.location)  # what lies there is seen at the start: nobody is asked here
    if layer.path is None:
        return
    try:
        check_layer(layer.path)
    except LayerInvalidError as error:
        advice = "A layer is a directory, a .tar, a .tar.gz or a .tar.zst."
        yield Finding(key, f"{layer.path}: {error.reason}", advice=advice)
    except OSError:
        return  # check_settings says that it isn't there or can't be read


def _location(key: str, location: str) -> Iterator[Finding]:
    try:
        kind = kind_of(location)
        if kind == "docker":
            BlobAddress.parse(location)
        elif kind != "data":
            WebAddress.parse(location)
    except LocationInvalidError as error:
        yield Finding(key, str(error), advice=error.advice())


def _include(key: str, image: str) -> Iterator[Finding]:
    try:
        parse_include(image)
    except IncludeInvalidError as error:
        yield Finding(key, str(error))


def _htpasswd(settings: Settings) -> Iterator[Finding]:
    """Yield the lines of the file that nobody can sign in with: serving would go on, with a word in the log."""
    if settings.auth.htpasswd is None or not settings.auth.htpasswd.path.is_file():
        return
    path = settings.auth.htpasswd.path
    try:
        entries = read_htpasswd(path)
    except OSError:
        return  # check_settings says that it can't be read
    for finding in entries.findings:
        yield Finding("auth.htpasswd", f"{path}: {finding}", advice="htpasswd -B writes lines that are read here.")


def _extras(settings: Settings) -> Iterator[Finding]:
    if settings.storage.driver is StorageDriver.S3 and find_spec("aiobotocore") is None:
        missing = S3ExtraMissingError()
        yield Finding("storage.driver", str(missing), advice=missing.advice())
    if is_postgresql(settings.database_url):
        try:
            check_driver()
        except DriverMissingError as error:
            yield Finding("database.url", str(error), advice=error.advice())
