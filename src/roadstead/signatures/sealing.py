"""Our signature on what is made here (``augment.ports.Seal``)."""

from collections.abc import Sequence

from roadstead.oci.artifact import Artifact
from roadstead.oci.digest import Digest
from roadstead.signatures import cosign
from roadstead.signatures.keys import SigningKey


class KeySeal:
    """Signs with one key, in the forms that every cosign reads."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @property
    def mark(self) -> tuple[str, str]:
        """Return the annotation that what is signed carries: the key's fingerprint."""
        return cosign.KEY, self._key.public.fingerprint

    def signatures(self, subject: Digest, name: str) -> Sequence[Artifact]:
        """Return the signature of a manifest in two forms: cosign 2 reads the payload, cosign 3 the bundle."""
        return (cosign.simple(subject, name, self._key), cosign.signed_image(subject, self._key))

    def signed(self, statement: bytes, predicate_type: str) -> Artifact:
        """Return a statement of in-toto in a bundle."""
        return cosign.signed_statement(statement, predicate_type, self._key)
