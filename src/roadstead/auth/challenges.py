"""How clients are told to sign in where nothing but passwords is known (RFC 7617)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from roadstead.auth.ports import Challenges, Occasion


class BasicChallenge:
    """`Challenges` of Basic alone."""

    asks_everybody = False

    def __init__(self, realm: str) -> None:
        self._value = f'Basic realm="{quoted(realm)}", charset="UTF-8"'

    def values(self, occasion: Occasion) -> Sequence[str]:
        """Return the one value; Basic asks for everything alike."""
        return (self._value,)


class NoWayIn:
    """`Challenges` where nobody can sign in at all: policies decide about anonymous callers alone."""

    asks_everybody = False

    def values(self, occasion: Occasion) -> Sequence[str]:
        """Return nothing: a client that was asked would look for credentials in vain."""
        return ()


def quoted(text: str) -> str:
    """Return a text as it may stand between the quotes of a challenge (RFC 9110 §5.6.4)."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


if TYPE_CHECKING:
    _: type[Challenges] = BasicChallenge
    __: type[Challenges] = NoWayIn
