"""How long to pause before another try: the one rule, for steps, messages and requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses in seconds: the `first`, then each `factor` times the one before, at most `longest`."""

    first: float
    longest: float
    factor: float = 2.0

    def pause(self, tries: int) -> float:
        """The pause after so many tries in vain, from 1 on."""
        if self.first == 0:
            return 0.0
        try:
            return min(self.longest, self.first * self.factor ** max(0, tries - 1))
        except OverflowError:
            return self.longest

    def spread(self, tries: int, jitter: float) -> float:
        """The pause, or as little as half of it, so that those who fail together do not all come back together.

        `jitter` is a number from 0 up to 1.
        """
        return self.pause(tries) * (0.5 + jitter / 2)
