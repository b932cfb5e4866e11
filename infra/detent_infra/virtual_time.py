"""An event loop whose clock jumps: waiting takes no time, and the same program always does the same."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple, Unpack, cast

_Ts = TypeVarTuple("_Ts")

EPOCH = 1_767_225_600_000
"""When a virtual clock starts: 2026-01-01T00:00:00Z, in milliseconds."""

TICKS = 1_000_000
"""In a second, of a Harness's clock."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing is left to do. Deterministic.

    With `ticks`, timers stand on a grid of so many a second: ten pauses of 0.1 s are one of a second.
    """

    def __init__(self, ticks: int | None = None) -> None:
        self._now: float = 0.0
        self._ticks = ticks
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self._now

    @property
    def _clock_resolution(self) -> float:
        """asyncio's own: it runs timers that are due within it. The least that there is, so that none is early.

        A clock that jumps does not get on while something is ready: two who are woken too early, wait again and make
        each other ready in turn would keep it standing for ever.
        """
        return math.ulp(self._now)

    @_clock_resolution.setter
    def _clock_resolution(self, of_the_real_clock: float) -> None: ...

    def call_at(
        self, when: float, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        ticks = self._ticks
        on_grid = when if ticks is None or not math.isfinite(when) else round(when * ticks) / ticks
        if on_grid <= self._now < when:
            on_grid = when  # who waits until then, and looks at the clock, must not find it a hair too early for ever
        return super().call_at(on_grid, callback, *args, context=context)

    def jump(self) -> None:
        """To the next timer exactly: a sum of clock and pause may fall short of it, and then never get there."""
        timers: list[asyncio.TimerHandle] = cast("Any", self)._scheduled  # asyncio's own, a heap
        self._now = timers[0].when()

    def wall_clock(self) -> int:
        """Milliseconds since the epoch, on this loop's time."""
        return EPOCH + round(self._now * 1000)


class _Jump(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise RuntimeError("Nothing is left that could happen: the test waits for something that never comes.")
        self._loop.jump()
        return []
