"""Amazon's registries, by their hosts, and what AWS answers."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.ecr import EcrHostError, EcrPassword, _read, ecr_region
from roadstead.upstream.errors import CredentialsError


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "eu-west-1"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "eu-west-1"),
        ("12345.dkr.ecr.eu-west-1.amazonaws.com", None),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
        ("public.ecr.aws", None),
        ("docker.io", None),
    ],
)
def test_regions(host: str, region: str | None) -> None:
    """The region stands in the host, in all its forms and in nothing that only looks like it."""
    assert ecr_region(host) == region


async def test_other_hosts_have_no_password() -> None:
    """AWS isn't asked about a registry that isn't Amazon's."""
    with pytest.raises(EcrHostError, match="isn't one of Amazon's"):
        await EcrPassword().find(RegistryAddress.parse("quay.io"), "team/app")


def test_a_password_is_read() -> None:
    """Name and password as one, and how long they count."""
    token = base64.b64encode(b"AWS:pass:word").decode()
    password, lasts_s = _read("h", {"authorizationToken": token, "expiresAt": datetime.now(UTC) + timedelta(hours=12)})

    assert (password.username, password.secret.reveal()) == ("AWS", "pass:word")
    assert 43_000 < lasts_s <= 43_200


@pytest.mark.parametrize(
    "token", ["", "no base64!", base64.b64encode(b"AWS").decode(), base64.b64encode(b":x").decode()]
)
def test_what_is_no_password(token: str) -> None:
    """It is told, without repeating it."""
    with pytest.raises(CredentialsError, match="isn't a password"):
        _read("h", {"authorizationToken": token, "expiresAt": datetime.now(UTC)})
