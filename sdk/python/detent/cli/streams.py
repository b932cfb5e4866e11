"""The standard streams of a command, which may be closed, full, or read by nobody.

What cannot be said on standard error is not said. What cannot be written on standard output ends the command: a result
that nobody gets is told by the exit code. (Workers write nothing that matters there; see `step_output`.)
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Iterable
from io import TextIOWrapper
from typing import Any, TextIO, cast

from detent_infra.logs.step_output import SteadyStream

THREADS_END = 2.0
"""Seconds that threads of the app's module have to end once the command has."""


class ReaderGone(OSError):
    """Whoever read our output has closed it, as `head` does.

    Not a `BrokenPipeError`, and without its number: at one of those click and rich exit with 1.
    """


class OutputFailed(OSError):
    """Standard output takes nothing: its disk is full, or it is closed."""


class _Output:
    """Standard output. Its errors have names that no other file's error has."""

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, text: str) -> int:
        with _named():
            return self._inner.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        with _named():
            self._inner.writelines(lines)

    def flush(self) -> None:
        with _named():
            self._inner.flush()


@contextlib.contextmanager
def _named() -> Generator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone("the reader of the output has gone") from error
    except OSError as error:
        raise OutputFailed(*error.args) from error


@contextlib.contextmanager
def command_streams() -> Generator[None]:
    """While it is open, `sys.stdout` and `sys.stderr` are those of a command, whatever they were."""
    for number in range(3):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # else the next file that is opened would get the number, and our output
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode is no reason to stop
    out = cast("TextIO", SteadyStream(None) if sys.stdout is None else _Output(sys.stdout))
    sys.stdout, sys.stderr = out, cast("TextIO", SteadyStream(sys.stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def discard(stream: TextIO) -> None:
    """What is left in the stream goes nowhere: the interpreter would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def end_process(code: int) -> None:
    """Threads that the app's module started keep no command from ending: they have a moment. The rest is Python's."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            discard(stream)
    left = [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
    if left:

        def end() -> None:
            time.sleep(THREADS_END)
            os._exit(code)

        threading.Thread(target=end, daemon=True).start()
