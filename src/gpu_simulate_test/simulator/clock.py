"""Time that only a simulation moves."""

import math


class VirtualClock:
    """Seconds in floating point, as Vidur keeps them, that read as whole nanoseconds.

    Attributes
    ----------
    now_s : float
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_ns(self) -> int:
        """The last nanosecond that has begun: `n` is over when, and only when, ``n / 1e9 <= now_s``."""
        number = math.floor(self.now_s * 1e9)
        while number / 1e9 > self.now_s:
            number -= 1
        while (number + 1) / 1e9 <= self.now_s:
            number += 1
        return number

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Be there at once."""
        self.now_s = max(self.now_s, deadline_ns / 1e9)
