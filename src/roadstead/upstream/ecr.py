"""Who we are at Amazon's registries: AWS's keys are exchanged for a password that lasts twelve hours (wave spec §4.6).

The keys are those that were given, or what AWS's libraries find: the environment, a profile, the role of a task, a pod
or a machine. They never go to the registry itself.
"""

import asyncio
import base64
import binascii
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from roadstead.secret import Secret
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.credentials import CredentialSource, Password
from roadstead.upstream.errors import CredentialsError, UnreachableError

try:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
except ImportError as error:  # The extra isn't installed; whoever signs in says so.
    _MISSING: ImportError | None = error
else:
    _MISSING = None

PUBLIC_HOST = "public.ecr.aws"
LONGEST_S = 3 * 3600.0
"""How long a password is used: keys may be taken away from us before it ends."""

MARGIN_S = 300.0
"""A password isn't used in the last minutes of its life."""

_PUBLIC_REGION = "us-east-1"
_PATIENCE_S = 5
_PRIVATE = re.compile(
    r"[0-9]{12}\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]{1,40})\.(?:amazonaws\.com(?:\.cn)?|on\.(?:aws|amazonwebservices\.com\.cn))"
)


class EcrHostError(CredentialsError):
    """A host isn't one of Amazon's registries."""

    def __init__(self, host: str) -> None:
        super().__init__(host, "it isn't one of Amazon's registries, so AWS has no password for it")

    def advice(self) -> str:
        """Show what such a host looks like."""
        return f"They are ACCOUNT.dkr.ecr.REGION.amazonaws.com, and {PUBLIC_HOST}; their address may be set in url."


class AwsExtraMissingError(CredentialsError):
    """The library for AWS isn't installed."""

    def __init__(self, host: str) -> None:
        super().__init__(host, "its password comes from AWS, and the library for that isn't installed")

    def advice(self) -> str:
        """Name the command that installs it."""
        return "Run: pip install 'roadstead[aws]'"


def ecr_region(host: str) -> str | None:
    """Return the region of a private registry of Amazon's, by its host; None for other hosts. Pure."""
    found = _PRIVATE.fullmatch(host)
    return None if found is None else found["region"]


@dataclass(slots=True)
class EcrPassword:
    """The password that AWS gives for one registry, asked for when it is needed and kept for a while."""

    keys: Password | None = None
    """An access key and its secret; None: what AWS's libraries find."""

    _known: Password | None = None
    _until: float = 0.0  # on the monotonic clock
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def find(self, registry: RegistryAddress, repository: str) -> Password:
        """Return what to sign in with. Raises CredentialsError, and UnreachableError where AWS doesn't answer."""
        async with self._one_at_a_time:
            if self._known is None or time.monotonic() >= self._until:
                self._known, lasts_s = await self._ask(registry.host)
                self._until = time.monotonic() + max(0.0, min(LONGEST_S, lasts_s - MARGIN_S))
            return self._known

    async def _ask(self, host: str) -> tuple[Password, float]:
        if _MISSING is not None:
            raise AwsExtraMissingError(host) from _MISSING
        region = ecr_region(host)
        if region is None and host != PUBLIC_HOST:
            raise EcrHostError(host)
        try:
            answer = await self._answer("ecr-public" if region is None else "ecr", region or _PUBLIC_REGION)
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise CredentialsError(host, "no keys of AWS are there to get its password with") from error
        except ClientError as error:
            told = error.response.get("Error", {})
            raise CredentialsError(
                host, f"AWS gives no password for it: {told.get('Code', '')} {told.get('Message', '')}".rstrip()
            ) from error
        except BotoCoreError as error:
            raise UnreachableError(host, f"AWS, which has its password, can't be asked: {error}") from error
        # A private registry's answer lists one for each that was asked about; the public one's is alone.
        told = answer["authorizationData"]
        return _read(host, told[0] if isinstance(told, list) else told)

    async def _answer(self, service: str, region: str) -> Any:
        options: dict[str, str] = {}
        if self.keys is not None:
            options["aws_access_key_id"] = self.keys.username
            options["aws_secret_access_key"] = self.keys.secret.reveal()
        patience = AioConfig(connect_timeout=_PATIENCE_S, read_timeout=_PATIENCE_S, retries={"total_max_attempts": 2})
        async with get_session().create_client(service, region_name=region, config=patience, **options) as client:
            return await client.get_authorization_token()


def _read(host: str, told: Any) -> tuple[Password, float]:
    """Return the password that AWS told, and the seconds for which it counts."""
    try:
        user, colon, password = base64.b64decode(told["authorizationToken"], validate=True).decode().partition(":")
        ends: datetime = told["expiresAt"]
        lasts_s = ends.timestamp() - time.time()
    except (binascii.Error, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CredentialsError(host, "AWS answered something that isn't a password") from error
    if not colon or not user or not password:
        raise CredentialsError(host, "AWS answered something that isn't a password")
    return Password(user, Secret(password)), lasts_s


_: CredentialSource = EcrPassword()
