"""Who is it, and may they: what a server asks of every request where access is controlled."""

from collections.abc import Sequence

from roadstead.auth.caller import NOBODY, Action, Caller
from roadstead.auth.credentials import Credentials, Password, parse_authorization
from roadstead.auth.errors import CredentialsWrongError
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.policies import Decision, Policies
from roadstead.auth.ports import Authenticator, TakesItsTime


class Access:
    """Ways of signing in, tried in order, and the policies."""

    def __init__(self, policies: Policies, authenticators: Sequence[Authenticator], limiter: FailureLimiter) -> None:
        self.policies = policies
        self._authenticators = tuple(authenticators)
        self._limiter = limiter

    async def identify(self, authorization: str | None, client: str) -> Caller:
        """Return who sent a request, from its Authorization header; NOBODY where it says nothing.

        So it is where there is no way of signing in: credentials that nobody can check say nothing. Raises
        CredentialsWrongError, AttemptsTooManyError, UnavailableError.
        """
        if authorization is None or not self._authenticators:
            return NOBODY
        credentials = parse_authorization(authorization, client)
        return NOBODY if credentials is None else await self.sign_in(credentials)

    async def sign_in(self, credentials: Credentials) -> Caller:
        """Return who has these credentials; raises what `identify` does.

        A wrong password has cost what each way of signing in costs, whether the name is known or not.
        """
        for authenticator in self._authenticators:
            caller = await authenticator.authenticate(credentials)
            if caller is not None:
                return caller
        for authenticator in self._authenticators:
            if isinstance(authenticator, TakesItsTime):
                await authenticator.waste(credentials)
        if isinstance(credentials, Password):
            self._limiter.failed(credentials.client, credentials.username)
            raise CredentialsWrongError
        raise CredentialsWrongError("the token is not valid here (any more)")

    def decide(self, caller: Caller, action: Action, repository: str | None) -> Decision:
        """Return whether the caller may do that to the repository, or to the registry as a whole (None)."""
        return self.policies.decide(caller, action, repository)
