"""``python -m roadstead.testing.oidc_process PORT``: an OpenID Connect provider as a process of its own.

The provider is ``oidc-provider-mock``. It takes no notice of PKCE, and doesn't send the state back when somebody
declines, which others do; what stands before it here does both (RFC 7636 §4.6, RFC 6749 §4.1.2.1).
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Provider = Callable[[Environ, StartResponse], Iterable[bytes]]
_MAX_FORM = 64 << 10


class WithPkce:
    """WSGI middleware that checks PKCE for whoever is behind it."""

    def __init__(self, inner: Provider, challenge: Callable[[str], str]) -> None:
        self._inner = inner
        self._challenge = challenge
        self._challenges: dict[str, str] = {}  # by code

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == "/oauth2/authorize" and method == "POST":
            return self._inner(environ, self._remembering(environ, start_response))
        if path == "/oauth2/token" and not self._proves(environ):
            start_response("400 Bad Request", [("Content-Type", "application/json")])
            return [b'{"error": "invalid_grant"}']
        return self._inner(environ, start_response)

    def _remembering(self, environ: Environ, start_response: StartResponse) -> StartResponse:
        asked = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = []
            for name, value in headers:
                if name.lower() == "location":
                    said = parse_qs(urlsplit(value).query)
                    if "code" in said and asked.get("code_challenge_method") == "S256":
                        self._challenges[said["code"][0]] = asked["code_challenge"]
                    if "error" in said and "state" not in said:
                        value += "&" + urlencode({"state": asked["state"]})
                kept.append((name, value))
            return start_response(status, kept, *rest)

        return start

    def _proves(self, environ: Environ) -> bool:
        body = environ["wsgi.input"].read(min(int(environ.get("CONTENT_LENGTH") or 0), _MAX_FORM))
        environ["wsgi.input"] = BytesIO(body)
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        challenge = self._challenges.pop(form.get("code", ""), None)
        return challenge is not None and self._challenge(form.get("code_verifier", "")) == challenge


def main() -> None:
    """Serve at 127.0.0.1 and the port that the command line names, until ended."""
    warnings.simplefilter("ignore")  # the provider's own
    # Only for tests: not there where Roadstead is installed without its extra `dev`.
    from authlib.oauth2.rfc7636 import create_s256_code_challenge
    from oidc_provider_mock import app
    from werkzeug.serving import run_simple

    logging.basicConfig(level=logging.INFO)
    provider = app(require_nonce=True)
    run_simple("127.0.0.1", int(sys.argv[1]), WithPkce(provider, create_s256_code_challenge), threaded=True)


if __name__ == "__main__":
    main()
