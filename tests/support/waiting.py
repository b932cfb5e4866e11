"""Waits for what another thread, process, server or worker does. It ends when that has happened: patience is free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from detent import RunHandle, StepStatus
from detent.testing import Harness

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which what has not happened never will, however busy the machine is."""
HARNESS_CHECKS = 240
"""Checks after which it never will in a harness: a minute on a live backend, no time under a virtual clock."""


def until(check: Callable[[], T | None], patience: float = PATIENCE, *, every: float = 0.05) -> T:
    """What the check finds, once it finds something. `every`: the seconds between two checks."""
    ends = time.monotonic() + patience
    while not (found := check()):
        _must_not_be_over(ends, patience, found)
        time.sleep(every)
    return found


async def until_async(check: Callable[[], T | None], patience: float = PATIENCE, *, every: float = 0.05) -> T:
    """`until` in an event loop that has other work to do meanwhile."""
    ends = time.monotonic() + patience
    while not (found := check()):
        _must_not_be_over(ends, patience, found)
        await asyncio.sleep(every)
    return found


def until_in(h: Harness, check: Callable[[], T]) -> T:
    """`until` in a harness, whose worker works only while its time passes."""
    for _ in range(HARNESS_CHECKS):
        if found := check():
            return found
        h.advance(0.25)
    raise AssertionError("it never happened")


def until_step(h: Harness, run: RunHandle[Any], path: str, status: StepStatus) -> None:
    """Lets a harness's time pass until the record of the step run has this status."""
    until_in(h, lambda: path in (steps := h.steps(run)) and steps[path].status is status)


def _must_not_be_over(ends: float, patience: float, found: object) -> None:
    assert time.monotonic() < ends, f"it did not happen in {patience:g} s, and the last check found {found!r}"
