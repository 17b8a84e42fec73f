"""The material that a plan names, read or made."""

from dataclasses import replace
from datetime import datetime

from roadstead.tls.material import TlsMaterial, TlsPlan
from roadstead.tls.reading import read_authorities, read_material
from roadstead.tls.self_signed import kept_self_signed, self_signed


def load_material(plan: TlsPlan, now: datetime) -> TlsMaterial:
    """Return what to speak TLS with; raises TlsInvalidError."""
    if plan.certificate is not None and plan.key is not None:
        material = read_material(plan.certificate, plan.key)
    elif plan.kept_in is not None:
        material = kept_self_signed(plan.kept_in, plan.names, now)
    else:
        material = self_signed(plan.names, now)
    return replace(
        material,
        client_authorities=read_authorities(plan.client_ca),
        client_certificates=plan.client_certificates,
        minimum_version=plan.minimum_version,
    )


def check_plan(plan: TlsPlan) -> None:
    """Read what others wrote, and make nothing; raises TlsInvalidError."""
    if plan.certificate is not None and plan.key is not None:
        read_material(plan.certificate, plan.key)
    read_authorities(plan.client_ca)
