"""What somebody hears who asks for too much (TOOMANYREQUESTS, 429)."""

import math

from roadstead.errors import UnavailableError


def in_words(seconds: int) -> str:
    """Return about how long that is, never less: ``45 s``, ``6 h``. Pure."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 7200 else f"{math.ceil(seconds / 3600)} h"


class TooMuchError(UnavailableError):
    """More than the limits allow came from one client or user; ``retry_after_s`` says when it may try again."""

    def __init__(self, message: str, wait_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(f"{message}; try again in {in_words(self.retry_after_s)}")


class RateExceededError(TooMuchError):
    """Requests came faster than they may."""

    def __init__(self, who: str, wait_s: float) -> None:
        super().__init__(f"too many requests from {who}", wait_s)


class UploadsTooManyError(TooMuchError):
    """More blobs are on their way in at once than may be."""

    def __init__(self, who: str, most: int) -> None:
        super().__init__(f"{who} may send {most} blobs at once, and sends them already", 1)


class PullsSpentError(TooMuchError):
    """All pulls of a window were made."""

    def __init__(self, who: str, most: int, window_s: int, wait_s: float) -> None:
        super().__init__(f"{who} may pull {most} times in {in_words(window_s)}, and has done so", wait_s)
        self.most = most
        self.window_s = window_s
