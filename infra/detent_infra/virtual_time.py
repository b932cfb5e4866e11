"""An event loop whose clock jumps: waiting takes no time, and the same program always does the same."""

from __future__ import annotations

import asyncio
import selectors

EPOCH = 1_767_225_600_000
"""When a virtual clock starts: 2026-01-01T00:00:00Z, in milliseconds."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing is left to do. Deterministic."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds

    def wall_clock(self) -> int:
        """Milliseconds since the epoch, on this loop's time."""
        return EPOCH + round(self._now * 1000)


class _Jump(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("Nothing is left that could happen: the test waits for something that never comes.")
        self._loop.jump(timeout)
        return []
