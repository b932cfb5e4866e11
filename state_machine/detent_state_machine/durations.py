"""Durations as people write them: a number of seconds, or a `timedelta`."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TypeAlias

Seconds: TypeAlias = float | timedelta
"""A number of seconds, or a `timedelta`."""


def seconds_of(given: object) -> float | None:
    """The duration in seconds; None for what is none: a truth value, text, not a number, an infinite one."""
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    try:
        number = float(given)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def why_not_seconds(given: object, *, least: float = 0.0, most: float = math.inf, above: bool = False) -> str:
    """What is wrong with it as a duration in these bounds; "" if nothing is. `above`: more than `least`."""
    seconds = seconds_of(given)
    bounds = (f"more than {least:g}" if above else f"{least:g} or more") + (
        f" and at most {most:,.15g}" if math.isfinite(most) else ""
    )
    if seconds is None:
        return f"a number of seconds or a `timedelta`, {bounds}"
    if seconds > most or seconds < least or (above and seconds == least):
        return f"{bounds} seconds"
    return ""
