"""Delays between attempts: exponential with full jitter, so that many clients do not come back in step."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0
# A connection that lived this long was healthy: what ends it starts a new series of delays.
HEALTHY_AFTER = 30.0


class Backoff:
    """A series of growing delays in seconds; `attempt` counts the delays given so far."""

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self.attempt = 0
        self._jitter = jitter

    def next_delay(self) -> float:
        """Return the next delay: random between 0 and a ceiling that doubles from 0.5 s up to 60 s."""
        # 2**7 is past the cap already; without the min the power grows without bound over a long outage.
        ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self.attempt, 7))
        self.attempt += 1
        return self._jitter(0, ceiling)

    def reset(self) -> None:
        """Begin anew, after health or because a person asked to try now."""
        self.attempt = 0
