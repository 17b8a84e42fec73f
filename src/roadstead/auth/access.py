"""Who is it, and may they: what a server asks of every request where access is controlled."""

from collections.abc import Sequence

from roadstead.acts import ActKind, printable
from roadstead.auth.caller import NOBODY, Action, Caller
from roadstead.auth.credentials import Credentials, Password, parse_authorization
from roadstead.auth.errors import AttemptsTooManyError, CredentialsWrongError
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.policies import Decision, Policies
from roadstead.auth.ports import Authenticator, Judges, TakesItsTime, Verdict
from roadstead.auth.principal import ANONYMOUS
from roadstead.auth.recognised import Recognised
from roadstead.auth.refusals import Refusals, Refused
from roadstead.auth.sight import Sight


class Access:
    """Ways of signing in, tried in order, and the policies."""

    def __init__(
        self,
        policies: Policies,
        authenticators: Sequence[Authenticator],
        limiter: FailureLimiter,
        refusals: Refusals | None = None,
        recognised: Recognised | None = None,
    ) -> None:
        self.policies = policies
        self._authenticators = tuple(authenticators)
        self._limiter = limiter
        self._refusals = refusals
        self._recognised = recognised or Recognised()

    def known(self, authorization: bytes | None) -> Caller | None:
        """Return who sent a request, from its Authorization header as it came: NOBODY where it says nothing.

        None where that isn't known without looking anything up: `identify` finds it out.
        """
        if not authorization or not self._authenticators:
            return NOBODY
        return self._recognised.at_once(self._recognised.mark(authorization))

    async def identify(self, authorization: str | None, client: str) -> Caller:
        """Return who sent a request, from its Authorization header; NOBODY where it says nothing.

        So it is where there is no way of signing in: credentials that nobody can check say nothing. Raises
        CredentialsWrongError, AttemptsTooManyError, UnavailableError.
        """
        if authorization is None or not self._authenticators:
            return NOBODY
        mark = self._recognised.mark(_octets(authorization))
        caller = self._recognised.at_once(mark) or await self._recognised.find(mark)
        if caller is not None:
            return caller
        credentials = parse_authorization(authorization, client)
        return NOBODY if credentials is None else await self.sign_in(credentials, mark)

    async def sign_in(self, credentials: Credentials, mark: bytes | None = None) -> Caller:
        """Return who has these credentials; raises what `identify` does. By the `mark` they are known the next time.

        A wrong password has cost what each way of signing in costs, whether the name is known or not.
        """
        try:
            return await self._sign_in(credentials, mark)
        except (CredentialsWrongError, AttemptsTooManyError) as error:
            claimed = f"user:{credentials.username}" if isinstance(credentials, Password) else "a token"
            # How long to wait is another number each time, of one and the same.
            reason = "too many wrong passwords" if isinstance(error, AttemptsTooManyError) else str(error)
            self.refused(str(ANONYMOUS), credentials.client, ActKind.SIGN_IN, claimed, reason)
            raise

    def refused(self, by: str, client: str, kind: ActKind, target: str, reason: str) -> None:
        """Take note for the audit log that somebody was kept out."""
        if self._refusals is not None:
            self._refusals.note(Refused(by, client, kind, printable(target), printable(reason)))

    async def _sign_in(self, credentials: Credentials, mark: bytes | None) -> Caller:
        verdicts: list[Verdict] = []
        is_barred = False
        for authenticator in self._authenticators:
            if isinstance(authenticator, Judges):
                verdict = await authenticator.judge(credentials)
            else:
                verdict, mark = Verdict(await authenticator.authenticate(credentials)), None  # nobody knows what by
            verdicts.append(verdict)
            # The others are asked all the same: a "no" takes as long for everybody.
            is_barred = is_barred or verdict.bars
            if verdict.caller is not None and not is_barred:
                if mark is not None:
                    self._recognised.keep(mark, verdict.caller, verdicts)
                return verdict.caller
        for authenticator in self._authenticators:
            if isinstance(authenticator, TakesItsTime):
                await authenticator.waste(credentials)
        because = "; ".join(verdict.because for verdict in verdicts if verdict.because is not None)
        if isinstance(credentials, Password):
            self._limiter.failed(credentials.client, credentials.username)
            raise CredentialsWrongError(because=because)
        raise CredentialsWrongError("the token is not valid here (any more)", because=because)

    def sight(self, caller: Caller) -> Sight:
        """Return which repositories a listing tells the caller of: those that they may pull from.

        A token that grants the catalog names no repositories, and isn't asked about them.
        """
        return self.policies.sight(caller.principal, caller.scope, Action.PULL)

    def decide(self, caller: Caller, action: Action, repository: str | None) -> Decision:
        """Return whether the caller may do that to the repository, or to the registry as a whole (None)."""
        return self.policies.decide(caller, action, repository)


def _octets(authorization: str) -> bytes:
    """Return a header as it came; what can't have come in one isn't taken for one that did."""
    try:
        return authorization.encode("latin-1")
    except UnicodeEncodeError:
        return b"\0" + authorization.encode("utf-8", "surrogatepass")
