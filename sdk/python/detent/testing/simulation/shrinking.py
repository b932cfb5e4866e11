"""Of the faults that break something, those that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from detent.testing.simulation.plans import Fault

MAX_SECONDS = 60.0
"""Of real time, after which the fewest faults so far will do."""


def fewer_faults(
    faults: Mapping[int, Fault], fails: Callable[[Mapping[int, Fault]], bool], *, ends: float
) -> dict[int, Fault]:
    """The faults, by number of their call, without those that it fails without as well, as `fails` says.

    Halves are left out before single ones, and later ones before earlier ones: all before a fault that is left out
    stays as it was. Whatever is left at `ends` (as `time.monotonic` counts) is returned.
    """
    kept = sorted(faults)
    size = len(kept)
    while size > 0:
        before = len(kept)
        for start in reversed(range(0, before, size)):
            if time.monotonic() > ends:
                break
            left = kept[:start] + kept[start + size :]
            if fails({number: faults[number] for number in left}):
                kept = left
        size = size // 2 if size > 1 or len(kept) == before else 1
    return {number: faults[number] for number in kept}
