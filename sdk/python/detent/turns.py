"""Async bodies, by turns: between two awaits a body has the event loop to itself, and is named if it keeps it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Generator

from detent_infra.executor import Attempt
from detent_infra.ports import LogLine
from detent_state_machine.lines import loop_held_line

log = logging.getLogger("detent")

LONG = 1.0
"""Seconds of one turn above which a body is told. Others on its loop miss their heartbeats from then on."""


class Turns:
    """`await Turns(attempt, work)` is `await work`, with each turn of it timed."""

    def __init__(self, attempt: Attempt, work: Awaitable[object]) -> None:
        self._attempt = attempt
        self._work = work

    def __await__(self) -> Generator[object, object, object]:
        inner = self._work.__await__()
        step: Callable[[], object] = lambda: next(inner)  # noqa: E731
        while True:
            try:
                awaited = self._timed(step)
            except StopIteration as end:
                return end.value
            try:
                sent = yield awaited
            except GeneratorExit:
                if hasattr(inner, "close"):
                    inner.close()
                raise
            except BaseException as error:
                if not hasattr(inner, "throw"):  # made by hand: a plain iterator, which hears of nothing
                    raise
                step = _raising(inner, error)
            else:
                step = _sending(inner, sent)

    def _timed(self, step: Callable[[], object]) -> object:
        control = self._attempt.control
        control.holds_loop, began = True, time.monotonic()
        try:
            return step()
        finally:
            control.holds_loop = False
            if (held := time.monotonic() - began) >= LONG:
                tell_held(self._attempt, held)


def tell_held(attempt: Attempt, seconds: float) -> None:
    """Says in the run's log, and in the worker's own, that the body kept the event loop for so long."""
    line = loop_held_line(attempt.path, attempt.number, round(seconds * 1000))
    control = attempt.control
    about = (attempt.run_id, line.path, line.attempt, json.dumps(dict(line.fields)))
    control.write(LogLine(control.now(), line.level, line.message, *about, engine=line.event))
    log.warning("run %s: %s", attempt.run_id, line.message)


def _raising(inner: Generator[object, object, object], error: BaseException) -> Callable[[], object]:
    return lambda: inner.throw(error)


def _sending(inner: Generator[object, object, object], sent: object) -> Callable[[], object]:
    return (lambda: next(inner)) if sent is None else (lambda: inner.send(sent))
