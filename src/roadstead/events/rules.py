"""Which endpoint hears of what: pure, asked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from roadstead.events.event import Action, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What one endpoint wants to hear of.

    ``heads``: a HEAD is a pull too, as it is for distribution; clients that only look for news send a lot of them.
    """

    endpoint: str
    actions: frozenset[Action]
    ignored_media_types: frozenset[str] = frozenset()
    heads: bool = False

    def wants(self, event: Event) -> bool:
        """Say whether the endpoint is told; types are compared letter by letter, as distribution does."""
        if event.action not in self.actions or event.media_type in self.ignored_media_types:
            return False
        return event.action is not Action.PULL or self.heads or event.cause.method != "HEAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests:
    """What all endpoints want to hear of, in the order of the settings."""

    endpoints: Sequence[Interest] = ()
    references: bool = False
    """Whether events of manifests say what these refer to."""

    @property
    def any(self) -> bool:
        """Say whether anybody is told of anything."""
        return bool(self.endpoints)

    @property
    def pulls(self) -> bool:
        """Say whether anybody is told of pulls."""
        return any(Action.PULL in interest.actions for interest in self.endpoints)

    def listeners(self, event: Event) -> Sequence[str]:
        """Return the names of the endpoints that are told."""
        return [interest.endpoint for interest in self.endpoints if interest.wants(event)]


NOBODY = Interests()
