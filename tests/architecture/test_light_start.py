"""What a server without TLS, tokens and secrets in AWS never loads: each would cost its start a good while."""

import subprocess
import sys

HEAVY = ("aiohttp", "cryptography", "jinja2", "joserfc", "botocore", "moto", "litestar")
PROGRAM = f"""
import sys
import roadstead.cli.serve, roadstead.worker
from roadstead.app import applications, upkeep
print(",".join(sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))))
"""


def test_the_default_start_loads_no_library_for_what_is_not_asked() -> None:
    """The modules of the supervisor and the workers are there without the libraries of optional parts."""
    loaded = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)

    assert loaded.stdout.strip() == ""


WITH_PEOPLE = f"""
import sys
from types import SimpleNamespace
import roadstead.worker
from roadstead.app import access, applications
from roadstead.clock import SystemClock
from roadstead.auth.standing import Standing
from roadstead.settings.model import AuthSettings, IssuerSettings, OidcSettings, Settings
issuer = IssuerSettings(issuer="https://sso.example", client_id="roadstead", allow_all=True)
settings = Settings(auth=AuthSettings(accounts=True, oidc=OidcSettings(issuers=(issuer,))))
some = SimpleNamespace(people=None, accounts=None, policies=None)
assert access.build_people(settings, some, some, Standing(SystemClock())) is not None
print(",".join(sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))))
"""


def test_people_are_waited_for_without_what_signs_them_in() -> None:
    """What talks to issuers, checks their tokens and makes pages is loaded with the first who signs in."""
    loaded = subprocess.run([sys.executable, "-c", WITH_PEOPLE], capture_output=True, text=True, timeout=60, check=True)

    assert loaded.stdout.strip() == ""
