"""Waiting for what another thread, process or server does. It ends when that has happened: patience costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which what has not happened never will, however busy the machine is."""


def until(look: Callable[[], T | None], patience: float = PATIENCE, *, every: float = 0.05) -> T:
    """What the look finds, once it finds something. `every`: the seconds between two looks."""
    ends = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < ends, f"it did not happen in {patience:g} s, and the last look found {found!r}"
        time.sleep(every)
    return found
