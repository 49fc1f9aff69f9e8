from forwards.engine.backoff import Backoff


def highest(low: float, high: float) -> float:
    return high


def test_delays_double_from_half_a_second_up_to_a_minute() -> None:
    backoff = Backoff(highest)

    assert [backoff.next_delay() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.attempt == 9


def test_delays_are_spread_over_the_whole_range() -> None:
    """Full jitter: a server that comes back is not hit by everybody in the same moment."""
    asked = []
    backoff = Backoff(lambda low, high: asked.append((low, high)) or low)

    assert backoff.next_delay() == 0
    assert asked == [(0, 0.5)]
    assert all(0 <= Backoff().next_delay() <= 0.5 for _ in range(100))


def test_an_outage_of_years_overflows_nothing() -> None:
    backoff = Backoff(highest)
    backoff.attempt = 10**6

    assert backoff.next_delay() == 60


def test_after_a_reset_delays_begin_anew() -> None:
    backoff = Backoff(highest)
    for _ in range(5):
        backoff.next_delay()
    backoff.reset()

    assert backoff.attempt == 0
    assert backoff.next_delay() == 0.5
