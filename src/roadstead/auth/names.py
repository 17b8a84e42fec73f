"""Names of accounts and groups: what a command takes, and a policy can name."""

import re

from roadstead.errors import InvalidError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")  # no colon: Basic parts name and password there


class AccountNameInvalidError(InvalidError):
    """A text can't be the name of an account or a group."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text[:80]!r} can't be a name: expected a letter or digit, then up to 127 letters, digits, . _ @ + -"
        )


def parse_account_name(text: str) -> str:
    """Return the name; raises AccountNameInvalidError."""
    if _NAME.fullmatch(text) is None:
        raise AccountNameInvalidError(text)
    return text
