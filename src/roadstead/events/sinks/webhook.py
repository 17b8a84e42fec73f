"""Events as POST requests to a receiver.

Only whoever has an endpoint imports this: the HTTP client takes its time to import.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from roadstead.events.envelope import SIGNATURE_HEADER, Format, envelope, signature
from roadstead.events.event import Subject
from roadstead.events.ports import DeliveryError, Sink
from roadstead.secret import Secret

MAX_REDIRECTS = 5
_MAX_WORDS = 80  # characters of a reason phrase
_SAME_REQUEST = (307, 308)  # RFC 9110 §15.4.8, §15.4.9: the method and the body stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Where and how a receiver is reached. `headers` go to this host and no other; none of it is ever logged."""

    url: Secret
    headers: Sequence[tuple[str, Secret]] = ()
    timeout: timedelta = timedelta(seconds=1)
    form: Format = Format.DISTRIBUTION
    signing_key: Secret | None = None


class Webhook:
    """`Sink` that posts."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        url = URL(receiver.url.reveal())
        # Go's client, and so distribution, lets a header go before what the address says.
        is_said = any(name.lower() == "authorization" for name, _ in receiver.headers)
        self._url = url.with_user(None) if is_said else url
        self._proxy = _proxy_for(self._url)
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": "roadstead", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=receiver.timeout.total_seconds()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def deliver(self, events: Sequence[tuple[Subject, Mapping[str, Any]]]) -> str:
        """Post events. 2xx and 3xx are as good as taken, as for distribution, but for a redirect elsewhere."""
        sealed = envelope(self._receiver.form, events)
        headers = [("Content-Type", sealed.media_type)]
        headers += [(name, value.reveal()) for name, value in self._receiver.headers]
        if self._receiver.signing_key is not None:
            headers.append((SIGNATURE_HEADER, signature(self._receiver.signing_key, sealed.body)))
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            answer, location, status = await self._post(url, headers, sealed.body)
            if status < 200 or status >= 400:
                raise DeliveryError(f"the receiver answered {answer}", answer)
            if location is None or status < 300:
                return answer
            url = self._followed(url, location, status, answer)
        raise DeliveryError(f"the receiver redirects more than {MAX_REDIRECTS} times", answer)

    async def _post(self, url: URL, headers: list[tuple[str, str]], body: bytes) -> tuple[str, str | None, int]:
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                # What it says besides isn't read: who has taken an event may be slow to say so.
                answer = f"{response.status} {_readable(response.reason or '')}".strip()
                return answer, response.headers.get("Location"), response.status
        except TimeoutError as error:
            raise DeliveryError(f"no answer within {self._receiver.timeout.total_seconds():g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise DeliveryError(f"no connection: {_reason(error.os_error)}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its text may have the address, and that a password.
            raise DeliveryError(f"no answer that is one of HTTP: {type(error).__name__}") from error

    def _followed(self, url: URL, location: str, status: int, answer: str) -> URL:
        """Return where the same request goes next: the same origin alone, since the headers may be credentials."""
        if status not in _SAME_REQUEST:
            raise DeliveryError(
                f"the receiver answered {answer} with a Location: there the event would come as a GET without body; "
                "put the address that takes it into the settings",
                answer,
            )
        try:
            following = url.join(URL(location))
            same = following.origin() == self._url.origin()
        except ValueError as error:
            raise DeliveryError(f"the receiver answered {answer} with a Location that is no address", answer) from error
        if not same:
            raise DeliveryError(f"the receiver redirects to another host, which isn't followed ({answer})", answer)
        return following.with_user(self._url.user).with_password(self._url.password)

    async def close(self) -> None:
        """Let go of connections."""
        await self._session.close()


def _readable(text: str) -> str:
    """Return a receiver's words as far as they can be logged, counted and kept."""
    return "".join(letter for letter in text if letter.isascii() and letter.isprintable())[:_MAX_WORDS]


def _reason(error: OSError) -> str:
    """Return what the system says; the library's own text has addresses in it."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for an address (HTTPS_PROXY, NO_PROXY), as Go's client would."""
    host = url.host or ""
    if proxy_bypass(host):
        return None
    proxy = getproxies().get(url.scheme)
    return proxy if proxy and urlsplit(proxy).scheme in ("http", "https") else None


if TYPE_CHECKING:
    _: type[Sink] = Webhook
