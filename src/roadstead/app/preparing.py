"""What the supervisor does once, before any process is started."""

from pathlib import Path

import structlog

from roadstead.app.access import with_accounts_found
from roadstead.app.adoption import set_links, warn_of_foreign_writes
from roadstead.app.auditing import write_start
from roadstead.app.plugs import CLOCK, Plugs, open_plugs
from roadstead.app.readiness import check_storage
from roadstead.app.signing import check_signatures
from roadstead.app.writing import note_own_tree, taking_the_right
from roadstead.augment.kept_layers import KeptLayers
from roadstead.augment.rules import LayerSpec, RuleSpec
from roadstead.oci.descriptor import Platform
from roadstead.registry.importer import must_rebuild
from roadstead.settings.handover import Handover
from roadstead.settings.model import RuleSettings, Settings

_log = structlog.get_logger()


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
        await _check_tokens(settings, plugs)
        check_signatures(settings)
        await write_start(plugs.database.acts, settings, CLOCK)
        layers = KeptLayers(plugs.driver, plugs.database.layers)
        specs = [_rule_spec(rule) for rule in settings.augment.rules]
        rules = await prepare_rules(specs, layers, run_directory, CLOCK.now())
    return Handover(settings=settings, rules_json=rules.to_json(), run_directory=run_directory)


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

    await TokenParts(settings, plugs.database.tokens, plugs.database.accounts, None).check()


def _rule_spec(rule: RuleSettings) -> RuleSpec:
    layers = [
        LayerSpec(layer.path, Platform.parse(layer.platform) if layer.platform else None) for layer in rule.layers
    ]
    return RuleSpec(
        match=rule.match, layers=layers, env=rule.env, entrypoint=rule.entrypoint, cmd=rule.cmd, workdir=rule.workdir
    )
