"""Waiting for what a harness's worker does: under a virtual clock at once, on a live backend with patience."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from detent import RunHandle, StepStatus
from detent.testing import Harness

_T = TypeVar("_T")
LOOKS = 240
"""Looks before what should have happened has not: a minute on a live backend."""


def until(h: Harness, look: Callable[[], _T]) -> _T:
    """What the look finds, once it finds something."""
    for _ in range(LOOKS):
        if found := look():
            return found
        h.advance(0.25)
    raise AssertionError("it never happened")


def until_step(h: Harness, run: RunHandle[Any], path: str, status: StepStatus) -> None:
    """Lets time pass until the record of the step run has this status."""
    until(h, lambda: path in (steps := h.steps(run)) and steps[path].status is status)
