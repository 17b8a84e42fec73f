"""What can be wrong with keys and signatures.

InvalidError
├── KeyInvalidError             a text isn't a key, or not one that is used here
└── SignatureInvalidError       a signature doesn't hold for what it is said to sign
    └── SignatureUnsupportedError   it is of a kind that isn't checked here, such as keyless ones
DeniedError
└── ImageUnsignedError          a policy wants a signature, and none holds
"""

from collections.abc import Sequence

from roadstead.errors import DeniedError, InvalidError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName

_MOST_REASONS = 3


class KeyInvalidError(InvalidError):
    """A text isn't a key or a certificate that can be used; the text itself isn't told."""

    def __init__(self, where: str, reason: str, advice: str | None = None) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason
        self._advice = advice

    def advice(self) -> str | None:
        """Return how the right key is had."""
        return self._advice


class SignatureInvalidError(InvalidError):
    """A signature doesn't hold; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SignatureUnsupportedError(SignatureInvalidError):
    """A signature may well hold, but it is of a kind that isn't checked here."""


class ImageUnsignedError(DeniedError):
    """A policy wants a signature that isn't there, or doesn't hold (DENIED)."""

    def __init__(
        self, repository: RepositoryName, digest: Digest, policy: str, kind: str, reasons: Sequence[str]
    ) -> None:
        if reasons:
            more = f"; and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
            said = f"no signature of it holds: {'; '.join(reasons[:_MOST_REASONS])}{more}"
        else:
            said = "it has no signature"
        super().__init__(
            f"{repository}@{digest} is not served: the policy {policy!r} wants it signed ({kind}), and {said}"
        )
        self.repository = repository
        self.digest = digest
        self.policy = policy
        self.kind = kind
        self.reasons = tuple(reasons)

    def advice(self) -> str:
        """Return how it is signed."""
        if self.kind == "cosign":
            return (
                f"sign it with a key that the policy trusts: COSIGN_REPOSITORY=HOST/{self.repository} cosign sign "
                f"--key KEY --new-bundle-format=false HOST/as-pushed/{self.repository}@{self.digest}"
            )
        return f"sign it with a certificate that the policy trusts: notation sign HOST/{self.repository}@{self.digest}"
