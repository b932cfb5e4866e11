"""Standard output and standard error while steps run: whole lines, each known to be its step's, and never an error.

A body that prints half a line must not swallow the line that comes next, which may be the engine's JSON. And a stream
that is closed, full, or read by nobody must not end a worker, nor fail the step that prints.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, TextIO, TypeAlias, cast

from detent_infra.executor import Attempt, running

MAX_LINE = 64 * 1024
"""Characters of a line that is not ended, after which what there is of it is written as a line."""
MAX_UNENDED = 1_000
"""Attempts whose unended lines are kept; the oldest is written out for the next."""

ToStep: TypeAlias = Callable[[Attempt, str], None]
"""Takes a whole line that an attempt printed, without its end."""


class SteadyStream:
    """A text stream that drops what cannot be written: closed, full, or without a reader. Else it is `inner`."""

    def __init__(self, inner: TextIO | None) -> None:
        self._inner: TextIO = io.TextIOWrapper(io.BytesIO(), "utf-8") if inner is None else inner
        self._nowhere = inner is None  # closed before Python began
        self.half_line = False
        """Whether what was written last did not end its line."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, text: str) -> int:
        if text and not self._nowhere:
            self.half_line = not text.endswith("\n")
            try:
                self._inner.write(text)
                self._inner.flush()
            except (OSError, ValueError):
                self.half_line = False
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Others write to it, too."""

    def write_line(self, text: str) -> None:
        """Writes a line of its own, whoever runs: one that was left open is ended first."""
        self.end_line()
        SteadyStream.write(self, f"{text}\n")

    def end_line(self) -> None:
        """Ends a line that was left open."""
        if self.half_line:
            SteadyStream.write(self, "\n")


def innermost(stream: object) -> object:
    """The stream that is written to in the end."""
    while isinstance(stream, SteadyStream):
        stream = stream._inner
    return stream


class StepStream(SteadyStream):
    """Takes what steps print by whole lines; what others print passes as it is."""

    def __init__(self, inner: TextIO | None, to_step: ToStep | None) -> None:
        super().__init__(inner)
        self._to_step = to_step or self._print
        self._lock = threading.RLock()
        self._unended: dict[int, tuple[Attempt, str]] = {}

    def write(self, text: str) -> int:
        attempt = running.get()
        if attempt is None:
            return super().write(text)
        with self._lock:
            *lines, rest = (self._unended.pop(id(attempt), (attempt, ""))[1] + text).split("\n")
            if len(rest) > MAX_LINE:
                lines, rest = [*lines, rest], ""
            if rest:
                self._unended[id(attempt)] = (attempt, rest)
                if len(self._unended) > MAX_UNENDED:
                    self.end(next(iter(self._unended.values()))[0])
        for line in lines:
            self._to_step(attempt, line)
        return len(text)

    def end(self, attempt: Attempt) -> None:
        """Ends the attempt's last line."""
        with self._lock:
            _, rest = self._unended.pop(id(attempt), (attempt, ""))
        if rest:
            self._to_step(attempt, rest)

    def _print(self, _: Attempt, line: str) -> None:
        with self._lock:
            self.write_line(line)


_open: list[StepStream] = []


@contextmanager
def step_output(to_step: ToStep | None = None) -> Generator[None]:
    """While it is open, `sys.stdout` and `sys.stderr` are steady, and what steps print goes to `to_step` by lines.

    Without `to_step` the lines are printed, whole.
    """
    before = sys.stdout, sys.stderr
    out, err = StepStream(sys.stdout, to_step), StepStream(sys.stderr, to_step)
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
    _open.extend((out, err))
    try:
        yield
    finally:
        for stream in (out, err):
            _open.remove(stream)
        if sys.stdout is cast("TextIO", out):
            sys.stdout = before[0]
        if sys.stderr is cast("TextIO", err):
            sys.stderr = before[1]


def end_lines(attempt: Attempt) -> None:
    """The attempt has ended: so has its last line."""
    for stream in _open:
        stream.end(attempt)


def end_open_lines() -> None:
    """Whoever printed last, the next line is one of its own."""
    for stream in _open:
        stream.end_line()
