"""Signatures as settings want them: which images have to be signed, and what signs those that are made here.

The libraries for keys are loaded only where there are some.
"""

from typing import TYPE_CHECKING

from roadstead.app.plugs import CLOCK, Plugs
from roadstead.augment.attested import AttestedDerivations
from roadstead.augment.guarded import GuardedDerivations
from roadstead.augment.ports import DerivationStore, LayerStore, Seal
from roadstead.db.engine import Database
from roadstead.proxy.service import PullThrough
from roadstead.proxy.signed import SignedPulledThrough
from roadstead.registry.images import Images
from roadstead.registry.signed import SignedHere
from roadstead.settings.model import KeySettings, Settings, SignaturePolicySettings
from roadstead.signatures.errors import KeyInvalidError
from roadstead.signatures.ports import Admission, SignedImages

if TYPE_CHECKING:
    # For types alone: it needs the library for keys.
    from roadstead.signatures.policy import Policy

KEY = "signatures.key"


def build_reading(database: Database, images: Images, proxy: PullThrough | None) -> SignedImages:
    """Return what reads images with all that is said of them, ours and upstreams'."""
    here = SignedHere(images, database.catalog, database.lineage)
    return here if proxy is None else SignedPulledThrough(here, proxy)


def build_admission(settings: Settings, reading: SignedImages) -> Admission | None:
    """Return what checks that images are signed; None where none has to be. Raises KeyInvalidError."""
    if not settings.signatures.policies:
        return None
    # As above.
    from roadstead.signatures.verifying import Signatures

    return Signatures(read_policies(settings), reading, CLOCK)


def build_derivations(
    settings: Settings, plugs: Plugs, layers: LayerStore, admission: Admission | None
) -> DerivationStore:
    """Return where derivations are kept, with what is said of them, and only of what may be served."""
    store = plugs.derivations
    seal = read_seal(settings)
    if settings.augment.provenance or seal is not None:
        store = AttestedDerivations(
            store,
            layers,
            plugs.database.catalog,
            builder=settings.augment.builder,
            with_provenance=settings.augment.provenance,
            seal=seal,
        )
    return store if admission is None else GuardedDerivations(store, admission, plugs.database.lineage)


def check_signatures(settings: Settings) -> None:
    """Find out what every worker would fall over: keys that can't be read. Raises KeyInvalidError."""
    if settings.signatures.policies:
        read_policies(settings)
    read_seal(settings)


def read_seal(settings: Settings) -> Seal | None:
    """Return what signs, if there is a key for it; raises KeyInvalidError."""
    if settings.signatures.key is None:
        return None
    # As above.
    from roadstead.signatures.keys import SigningKey
    from roadstead.signatures.sealing import KeySeal

    return KeySeal(SigningKey.parse(settings.signatures.key.reveal(), KEY))


def read_policies(settings: Settings) -> "tuple[Policy, ...]":
    """Return the policies with their keys; raises KeyInvalidError."""
    return tuple(
        _policy(f"signatures.policies[{number}]", policy) for number, policy in enumerate(settings.signatures.policies)
    )


def _policy(at: str, policy: SignaturePolicySettings) -> "Policy":
    # As above.
    from roadstead.signatures.policy import SignatureKind, read_policy

    keys = [_pem(f"{at}.keys[{number}]", key) for number, key in enumerate(policy.keys)]
    return read_policy(
        policy.match,
        SignatureKind(policy.kind.value),
        keys,
        require=policy.require,
        originals=policy.as_pushed,
    )


def _pem(at: str, key: KeySettings) -> tuple[str, str]:
    """Return what errors call a key, and its PEM; raises KeyInvalidError where its file can't be read."""
    if key.path is None:
        return at, key.pem or ""
    try:
        return f"{at} ({key.path})", key.path.read_text(encoding="utf-8")
    except OSError as error:
        raise KeyInvalidError(f"{at} ({key.path})", f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyInvalidError(f"{at} ({key.path})", "it is not PEM but something binary") from error
