"""The arithmetic of token buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.limits.rates import Rate, advanced, source

RATES = st.builds(Rate, st.integers(1, 10_000), st.integers(1, 1_000))
GAPS_S = st.lists(st.floats(0, 5), max_size=200)


def let_through(rate: Rate, moments: list[float]) -> list[float]:
    mark, through = 0.0, []
    for now in moments:
        mark, too_far = advanced(mark, now, rate.step_s, rate.most_s)
        if too_far == 0:
            through.append(now)
    return through


def moments(gaps_s: list[float], start: float = 1e6) -> list[float]:
    found = [start]
    for gap in gaps_s:
        found.append(found[-1] + gap)
    return found


@given(RATES, GAPS_S)
def test_never_more_than_the_rate_allows(rate: Rate, gaps_s: list[float]) -> None:
    """In whatever span of time: a burst, and what has come in since; both ends count."""
    through = let_through(rate, moments(gaps_s))

    for first, begin in enumerate(through):
        for last in range(first, len(through)):
            assert last - first + 1 <= rate.burst + (through[last] - begin) * rate.per_second + 0.01


@given(RATES)
def test_a_full_bucket_gives_its_burst(rate: Rate) -> None:
    """At one moment exactly that many, whatever rounding does."""
    assert len(let_through(rate, [1e6] * (rate.burst + 5))) == rate.burst


@given(RATES, st.integers(1, 50))
def test_who_keeps_to_the_rate_is_never_refused(rate: Rate, count: int) -> None:
    """One after another at the rate's own pace."""
    paced = [1e6 + number * rate.step_s * 1.001 for number in range(count)]

    assert let_through(rate, paced) == paced


@given(RATES, GAPS_S)
def test_waiting_as_told_is_enough(rate: Rate, gaps_s: list[float]) -> None:
    """Who is refused and comes again when it was told gets through."""
    mark = 0.0
    for now in moments(gaps_s):
        mark, too_far = advanced(mark, now, rate.step_s, rate.most_s)
        if too_far > 0:
            assert advanced(mark, now + too_far, rate.step_s, rate.most_s)[1] == 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
    ],
)
def test_what_stands_for_an_address(address: str, expected: str) -> None:
    """IPv4 itself, of IPv6 the network that one customer has."""
    assert source(address) == expected
