"""Policies: which repositories' images have to be signed, and by whom (``[[signatures.policies]]``)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509

from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName
from roadstead.signatures.errors import KeyInvalidError
from roadstead.signatures.keys import PublicKey
from roadstead.signatures.notation import TrustedCertificates


class SignatureKind(StrEnum):
    """Whose form signatures have."""

    COSIGN = "cosign"
    NOTATION = "notation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Images of these repositories have to be signed by one of the keys, or under one of the certificates."""

    name: str
    patterns: tuple[Pattern, ...]
    kind: SignatureKind
    keys: tuple[PublicKey, ...] = ()
    certificates: tuple[x509.Certificate, ...] = ()
    require: bool = True  # else it is only noted
    originals: bool = False  # what is asked for as it was pushed, too

    def covers(self, repository: RepositoryName) -> bool:
        """Say whether this repository's images come under it."""
        return any(pattern.matches_repository(repository) for pattern in self.patterns)


def read_policy(
    match: Sequence[str],
    kind: SignatureKind,
    keys: Iterable[tuple[str, str]],
    *,
    require: bool,
    originals: bool,
) -> Policy:
    """Return a policy whose keys are given as pairs of what errors call them and their PEM; KeyInvalidError."""
    patterns = tuple(Pattern.parse(text) for text in match)
    name = ", ".join(match)
    public: list[PublicKey] = []
    certificates: list[x509.Certificate] = []
    for where, pem in keys:
        if kind is SignatureKind.NOTATION:
            certificates += TrustedCertificates.parse(pem, where).certificates
        elif "-----BEGIN CERTIFICATE-----" in pem:
            raise KeyInvalidError(
                where, "it is a certificate; cosign's policies take public keys", 'with kind = "notation" it would do'
            )
        else:
            public.append(PublicKey.parse(pem, where))
    return Policy(
        name=name,
        patterns=patterns,
        kind=kind,
        keys=tuple(public),
        certificates=tuple(certificates),
        require=require,
        originals=originals,
    )
