"""What the supervisor does once, before any process is started."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from roadstead.app.access import KnownNames, build_standing, with_accounts_found
from roadstead.app.adoption import set_links, warn_of_foreign_writes
from roadstead.app.auditing import write_start
from roadstead.app.plugs import CLOCK, Plugs, open_plugs
from roadstead.app.readiness import check_storage
from roadstead.app.signing import check_signatures
from roadstead.app.writing import note_own_tree, taking_the_right
from roadstead.augment.kept_layers import KeptLayers
from roadstead.augment.locations import LayerClaim, digest_in
from roadstead.augment.plan import Profile
from roadstead.augment.ports import LayerStore
from roadstead.augment.rules import LayerSpec, RuleSpec
from roadstead.auth.providers.htpasswd import read_htpasswd
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.registry.importer import must_rebuild
from roadstead.settings.handover import Handover
from roadstead.settings.model import AugmentProfile, LayerSettings, RuleSettings, Settings
from roadstead.settings.openness import open_behind_a_proxy

if TYPE_CHECKING:
    # For its types only: packing layers isn't loaded before it is needed.
    from roadstead.augment.layers import Elsewhere

_log = structlog.get_logger()

_NAMED = 20
"""Names that a line of the log tells at the most."""


async def prepare(settings: Settings, run_directory: Path) -> Handover:
    """Bring the database up to date, store the layers of all rules, and return what the processes start with."""
    # Packing and hashing layers is the supervisor's work; the workers need not carry it.
    from roadstead.augment.layers import prepare_rules

    async with taking_the_right(settings), open_plugs(settings, migrate=True) as plugs:
        await check_storage(plugs.driver)
        if await must_rebuild(plugs.database.imports, plugs.driver, CLOCK.now()):
            _log.warning("the database knows nothing of the images in storage: it is built from them now")
        else:
            await warn_of_foreign_writes(plugs)
            await set_links(plugs, settings)
            await note_own_tree(plugs, settings)
        settings = await with_accounts_found(settings, plugs.database.accounts)
        _warn_of_openness(settings)
        await _warn_of_namesakes(settings, plugs)
        await _check_tokens(settings, plugs)
        check_signatures(settings)
        await write_start(plugs.database.acts, settings, CLOCK)
        layers = KeptLayers(plugs.driver, plugs.database.layers)
        specs = [_rule_spec(rule, settings.augment.profile) for rule in settings.augment.rules]
        async with _elsewhere(settings, plugs, specs, layers, run_directory) as elsewhere:
            rules = await prepare_rules(specs, layers, run_directory, CLOCK.now(), elsewhere)
    return Handover(settings=settings, rules_json=rules.to_json(), run_directory=run_directory)


def _warn_of_openness(settings: Settings) -> None:
    """Tell that anybody may write here through a proxy: the port itself is loopback, which is let pass."""
    finding = open_behind_a_proxy(settings)
    if finding is not None:
        _log.warning("nobody has to sign in", key=finding.key, message=finding.message, advice=finding.advice)


async def _warn_of_namesakes(settings: Settings, plugs: Plugs) -> None:
    """Tell of names that are in the database and in the password file: either password lets somebody in."""
    if not settings.auth.accounts or settings.auth.htpasswd is None:
        return
    try:
        names = read_htpasswd(settings.auth.htpasswd.path).hashes.keys()
    except OSError:
        return  # each request that needs the file says so
    accounts = {account.principal.name for account in await plugs.database.accounts.accounts()}
    both = sorted(accounts & names)
    if both:
        _log.warning(
            "names have an account and a line in the password file",
            names=both[:_NAMED],
            count=len(both),
            advice="Keep one of the two: groups and keys are the account's alone, and either password is taken.",
        )


async def _check_tokens(settings: Settings, plugs: Plugs) -> None:
    """Find out what every worker would fall over: keys that can't be read, or that another master key has sealed."""
    if settings.auth.issue is None and settings.wants_tokens and settings.issue is None:
        _log.warning(
            "clients are asked for passwords, and given no tokens",
            advice="Set auth.master_key (openssl rand -base64 32), the same for every replica.",
        )
    if settings.auth.token is None and settings.issue is None:
        return
    # The libraries for tokens are loaded only where there are some.
    from roadstead.app.tokens import TokenParts

    accounts = plugs.database.accounts if settings.auth.accounts else None
    await TokenParts(
        settings, plugs.database.tokens, KnownNames(accounts, build_standing(settings.auth, None), None)
    ).check()


@asynccontextmanager
async def _elsewhere(
    settings: Settings, plugs: Plugs, specs: Sequence[RuleSpec], layers: LayerStore, run_directory: Path
) -> "AsyncGenerator[Elsewhere | None, None]":
    """Give what has layers that lie elsewhere, None where no rule names any."""
    claims = [layer.claim for spec in specs for layer in spec.layers if layer.claim is not None]
    images = [image for spec in specs for image in spec.includes]
    if not claims and not images:
        yield None
        return
    # What talks to others is loaded only where a rule asks for it.
    from roadstead.app.elsewhere import named_hosts, open_elsewhere

    # The same.
    from roadstead.app.hosted import HostedImages

    # The same.
    from roadstead.app.services import build_contents

    here = HostedImages(*build_contents(plugs, settings))
    trusted = named_hosts([claim.location for claim in claims], images)
    async with open_elsewhere(settings, layers, run_directory, trusted=trusted, here=here) as elsewhere:
        yield elsewhere


def _rule_spec(rule: RuleSettings, profile: AugmentProfile) -> RuleSpec:
    return RuleSpec(
        match=rule.match,
        layers=[_layer_spec(layer) for layer in rule.layers],
        env=rule.env,
        entrypoint=rule.entrypoint,
        cmd=rule.cmd,
        workdir=rule.workdir,
        labels=rule.labels,
        includes=rule.includes,
        profile=Profile(profile.value),
    )


def _layer_spec(layer: LayerSettings) -> LayerSpec:
    platform = Platform.parse(layer.platform) if layer.platform else None
    if layer.location is None:
        return LayerSpec(layer.path or "", platform)
    claim = LayerClaim(
        location=layer.location,
        gzip_digest=_digest(layer.gzip_digest) or digest_in(layer.location),
        gzip_size=layer.gzip_size,
        tar_digest=_digest(layer.tar_digest),
        platform=platform,
    )
    return LayerSpec(platform=platform, claim=claim)


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest.parse(text)
