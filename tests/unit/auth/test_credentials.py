"""Authorization headers."""

from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from roadstead.auth.credentials import Bearer, Password, parse_authorization
from roadstead.auth.errors import CredentialsWrongError


def basic(text: bytes) -> str:
    return f"Basic {b64encode(text).decode()}"


@given(
    st.text(st.characters(codec="utf-8", exclude_characters=":\0"), max_size=40),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
)
def test_what_a_client_encodes_is_read_back(username: str, password: str) -> None:
    """A colon in the password is a part of it; any letter goes through."""
    assume(username or password)

    found = parse_authorization(basic(f"{username}:{password}".encode()), "192.0.2.1")

    assert isinstance(found, Password)
    assert (found.username, found.password.reveal(), found.client) == (username, password, "192.0.2.1")


def test_neither_a_name_nor_a_password() -> None:
    """`curl -u :` says nothing: it is nobody, who is asked to sign in, and nothing is wrong."""
    assert parse_authorization(basic(b":"), "") is None


def test_old_clients_send_latin_1() -> None:
    """What isn't UTF-8 is read as they mean it."""
    found = parse_authorization(basic("josé:olé".encode("latin-1")), "")

    assert isinstance(found, Password)
    assert (found.username, found.password.reveal()) == ("josé", "olé")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token(scheme: str) -> None:
    """The scheme's case doesn't count, and the token doesn't print."""
    found = parse_authorization(f"{scheme}  abc.def ", "")

    assert isinstance(found, Bearer)
    assert found.token.reveal() == "abc.def"
    assert "abc" not in repr(found)


@pytest.mark.parametrize(
    "text",
    ["", "Basic", "Basic ", "Basic !!!", "Basic YW5h", "Digest a=b", "Negotiate x", basic(b"a\0:b"), "Basic é",
     f"Bearer {'x' * 20000}", basic(b"a:" + b"b" * 5000)],
)  # fmt: skip
def test_what_cannot_be_read_proves_nothing(text: str) -> None:
    """It is as good as a wrong password, never an error of the server."""
    with pytest.raises(CredentialsWrongError):
        parse_authorization(text, "")


@given(st.text(max_size=60))
def test_any_header_is_read_or_refused(text: str) -> None:
    """Nothing else is ever raised."""
    with suppress(CredentialsWrongError):
        parse_authorization(text, "")
