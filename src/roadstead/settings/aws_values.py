"""Values in AWS: one key of a secret in Secrets Manager, a parameter of Systems Manager (deployment spec §1.5, §1.12).

Where AWS is and who we are comes from its usual chain (environment, files, web identity, task role, metadata).
A value is read once in a process: a rotated one counts from the next start on.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from roadstead.errors import InvalidError

try:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import get_session
except ImportError as error:  # The extra isn't installed; it is named when somebody refers to AWS.
    _MISSING: ImportError | None = error
else:
    _MISSING = None

_PATIENCE_S: Final = 5
_ATTEMPTS: Final = 3
_DENIED: Final = frozenset(
    {"AccessDeniedException", "AccessDenied", "DecryptionFailure", "UnrecognizedClientException"}
)
_DENIED_STATUSES: Final = frozenset({401, 403})  # what stands before AWS, or for it, may not know its codes
_MISSING_CODES: Final = frozenset({"ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"})


class ValueMissingError(InvalidError):
    """A value that a setting refers to can't be had; ``id`` is the finding's name (deployment spec §9.4), if any."""

    def __init__(self, finding: str | None, reason: str, advice: str | None = None) -> None:
        super().__init__(reason)
        self.id = finding
        self._advice = advice

    def advice(self) -> str | None:
        """Return what was given to try next."""
        return self._advice


def secret_value(reference: str) -> str:
    """Return what ``NAME#KEY`` or ``NAME`` stands for in Secrets Manager; raises ValueMissingError.

    NAME is a name or an ARN. With a key the secret has to be a JSON object; without one its whole text is the value.
    """
    name, hash_sign, key = reference.partition("#")
    text = _secret(name, key)
    if not hash_sign:
        return _usable(text, f"the secret {name}")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueMissingError(
            "secret.not-json",
            f"the secret {name} is not JSON, so it has no key {key}",
            f"Store it as a JSON object, or refer to all of it: ${{secret:{name}}}.",
        ) from error
    if not isinstance(document, Mapping):
        raise ValueMissingError("secret.not-json", f"the secret {name} is not a JSON object, so it has no key {key}")
    if key not in document:
        present = ", ".join(sorted(map(str, document))) or "none"
        raise ValueMissingError("secret.key-missing", f"the secret {name} has no key {key}; it has {present}")
    if not isinstance(document[key], str):
        raise ValueMissingError("secret.shape", f"the key {key} of the secret {name} is not a text")
    return _usable(document[key], f"the key {key} of the secret {name}")


def parameter_value(name: str) -> str:
    """Return a parameter of Systems Manager, decrypted; raises ValueMissingError."""
    return _usable(_parameter(name), f"the parameter {name}")


def _usable(value: str, told: str) -> str:
    if not value:
        raise ValueMissingError("secret.empty", f"{told} is empty")
    if value != value.strip():
        where = "nothing but blanks" if not value.strip() else "blanks or a line's end around it"
        raise ValueMissingError("secret.whitespace", f"{told} has {where}", "Store it again without them.")
    return value


@cache
def _secret(name: str, key: str) -> str:
    wanted = json.dumps({key: "…"}) if key else "…"
    create = f"Create it: aws secretsmanager create-secret --name {name} --secret-string '{wanted}'"
    answer = _ask("secretsmanager", "get_secret_value", f"the secret {name}", create, SecretId=name)
    if "SecretString" not in answer:
        raise ValueMissingError("secret.binary", f"the secret {name} is binary, not a text")
    return str(answer["SecretString"])


@cache
def _parameter(name: str) -> str:
    create = f"Create it: aws ssm put-parameter --type SecureString --name {name} --value …"
    answer = _ask("ssm", "get_parameter", f"the parameter {name}", create, Name=name, WithDecryption=True)
    return str(answer["Parameter"]["Value"])


def forget() -> None:
    """Read every value anew when it is asked for next."""
    _secret.cache_clear()
    _parameter.cache_clear()


def _ask(service: str, call: str, told: str, create: str, **arguments: object) -> Mapping[str, Any]:
    if _MISSING is not None:
        raise ValueMissingError(
            None, f"{told} is in AWS, and the library for that is not installed", "pip install 'roadstead[aws]'"
        ) from _MISSING
    retries = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
    patience = Config(connect_timeout=_PATIENCE_S, read_timeout=_PATIENCE_S, retries=retries)
    try:
        client = get_session().create_client(service, config=patience)
        try:
            answer: Mapping[str, Any] = getattr(client, call)(**arguments)
        except ClientError as error:
            raise _refused(error, told, create, client.meta.region_name) from error
        finally:
            client.close()
    except BotoCoreError as error:
        raise ValueMissingError(
            None,
            f"{told} cannot be asked for: {error}",
            "AWS is found by AWS_REGION, credentials by AWS's usual chain (environment, files, task role).",
        ) from error
    return answer


def _refused(error: "ClientError", told: str, create: str, region: str) -> ValueMissingError:
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code in _MISSING_CODES and "staging label" in message:
        return ValueMissingError("secret.no-current", f"{told} was made and never given a value", "Store one.")
    if code in _MISSING_CODES:
        return ValueMissingError("secret.missing", f"there is no such thing as {told} in {region}", create)
    if code == "InvalidRequestException" and "delet" in message:
        return ValueMissingError(
            "secret.deleted", f"{told} is marked for deletion", "aws secretsmanager restore-secret takes that back."
        )
    if code in _DENIED or error.response["ResponseMetadata"]["HTTPStatusCode"] in _DENIED_STATUSES:
        return ValueMissingError(
            "secret.denied",
            f"{told} may not be read" + (f" ({code})" if code in _DENIED else ""),
            "Let this role read it (secretsmanager:GetSecretValue or ssm:GetParameter), and use the key that encrypts "
            "it (kms:Decrypt).",
        )
    return ValueMissingError(None, f"{told} cannot be read: {code}: {message}")
