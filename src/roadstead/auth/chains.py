"""Certificates that a token brings (``x5c``, RFC 7515 §4.1.6), followed to one that is trusted (RFC 5280 §6.1).

What is taken is what distribution takes, which has Go's ``crypto/x509`` follow them for any use. Where that reads more
of a certificate than we do (policies that an authority demands, names that it is held to), we refuse.
"""

from base64 import b64decode
from binascii import Error as NotBase64Error
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from roadstead.errors import InvalidError

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

_LONGEST = 8

_KNOWN = frozenset(
    {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
"""Extensions that may be critical: those that are looked at here, and those that forbid nothing to a token's key."""

_UNRELATED = "the certificates don't issue one another"
_FORGEABLE = (hashes.MD5, hashes.SHA1)

# What reading a certificate raises, which happens bit by bit as it is asked.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class ChainInvalidError(InvalidError):
    """A certificate that a token brings doesn't lead to one that is trusted."""


def parse_chain(texts: object) -> Sequence[x509.Certificate]:
    """Read the certificates of a token's header, its own first; raises ChainInvalidError."""
    if not isinstance(texts, list) or not 0 < len(texts) <= _LONGEST:
        raise ChainInvalidError("x5c is not a list of a few certificates")
    try:
        return [x509.load_der_x509_certificate(b64decode(text, validate=True)) for text in texts]
    except (NotBase64Error, *_UNREADABLE) as error:
        raise ChainInvalidError("x5c holds what is no certificate") from error


def follow(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime) -> None:
    """Check that the first certificate is trusted, or issued by one that is over those behind it.

    Raises ChainInvalidError.
    """
    told = "the certificate leads to none that is trusted"
    for position, certificate in enumerate(chain):
        below = chain[:position]
        wrong = _objection(certificate, now) if not below else _objection_to_issuer(certificate, below, now)
        if wrong is not None:
            raise ChainInvalidError(wrong)
        if certificate in roots:
            return
        if below and not _is_authority(certificate):
            raise ChainInvalidError(f"{_name(certificate)} may not issue certificates")
        for root in roots:
            wrong = _objection_to_issuer(root, chain[: position + 1], now)
            if wrong is None:
                return
            told = told if wrong == _UNRELATED else wrong
    raise ChainInvalidError(told)


def _objection_to_issuer(issuer: x509.Certificate, below: Sequence[x509.Certificate], now: datetime) -> str | None:
    """Return why a certificate can't stand above others, the nearest of which is the last; None if it can.

    Certificates before version 3 say nothing of what they are for, so whether such a one is an authority is for whoever
    trusts it to know.
    """
    if not _is_issued_by(below[-1], issuer):
        return _UNRELATED
    wrong = _objection(issuer, now)
    if wrong is not None:
        return wrong
    if not (_is_authority(issuer) or issuer.version is x509.Version.v1) or not _may_sign_certificates(issuer):
        return f"{_name(issuer)} may not issue certificates"
    longest = _path_length(issuer)
    if longest is not None and len(below) - 1 > longest:
        return f"{_name(issuer)} allows {longest} authorities below it, here are {len(below) - 1}"
    if _holds_names_back(issuer, below):
        return f"{_name(issuer)} narrows the names of those below it, which isn't looked into here"
    return None


def _objection(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why a certificate can't be used, wherever it stands; None if it can.

    Once this has found nothing, the rest of the certificate can be read.
    """
    try:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return f"the certificate of {_name(certificate)} is not valid now"
        unknown = [each.oid for each in certificate.extensions if each.critical and each.oid not in _KNOWN]
    except _UNREADABLE:
        return "a certificate can't be read"
    if unknown:
        return f"the certificate of {_name(certificate)} has a critical extension ({unknown[0].dotted_string})"
    return None


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        if isinstance(certificate.signature_hash_algorithm, _FORGEABLE):
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def _said(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """Return what a certificate says of itself of that kind; None where it says nothing."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _said(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _path_length(certificate: x509.Certificate) -> int | None:
    constraints = _said(certificate, x509.BasicConstraints)
    return None if constraints is None else constraints.path_length


def _may_sign_certificates(certificate: x509.Certificate) -> bool:
    """Say whether a certificate that says what its key is for says this, too."""
    usage = _said(certificate, x509.KeyUsage)
    return usage is None or usage.key_cert_sign


def _holds_names_back(issuer: x509.Certificate, below: Sequence[x509.Certificate]) -> bool:
    """Say whether names count that we don't compare: a token's certificate has none other than its subject, mostly."""
    limits = _said(issuer, x509.NameConstraints)
    if limits is None:
        return False
    subtrees = (*(limits.permitted_subtrees or ()), *(limits.excluded_subtrees or ()))
    if any(isinstance(each, x509.DirectoryName) for each in subtrees):  # of the subject, which every one has
        return True
    names = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    return any(each.oid == names for certificate in (issuer, *below) for each in certificate.extensions)


def _name(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()
    except _UNREADABLE:
        return "somebody whose name can't be read"
