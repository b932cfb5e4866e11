"""Importing the author's module: what it does meanwhile is told like any other error, on one line with file and line.

`os._exit` is the exception: nothing is told, because nothing of this process is left.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import TextIO, cast

from detent_infra.application import Interrupted, LoadAdvice, load_application, split_name
from detent_infra.executor import Application
from detent_infra.logs.step_output import SteadyStream
from detent_state_machine.errors import ConfigurationError

SLOW = 10.0
"""Seconds after which an import that has not ended is told, with the line it is at."""


def import_app(name: str, said: str) -> Application:
    """The app of this name; `said` begins messages about it.

    Raises `ConfigurationError`, and `KeyboardInterrupt` for a Ctrl-C. What its module prints goes to standard error:
    it is not part of a command's output.
    """
    here = Path.cwd()
    module, _ = split_name(name, said)
    _must_not_be_pythons_own(module, said)
    if str(here) not in sys.path:
        sys.path.insert(0, str(here))
    advice = LoadAdvice(
        module=f"It is neither in {here} nor installed: run detent where it can be imported from.",
        dependency="Install it in this environment.",
        failed=partial(_advice_on_failure, here),
    )
    return load_application(name, said, own=[here], advice=advice, import_module=partial(_import_module, said, here))


def _import_module(said: str, here: Path, name: str) -> ModuleType:
    interrupted: list[int] = []
    try:
        with _apart(), _interruptible(interrupted), _told_if_slow(said, here):
            module = importlib.import_module(name)
    except KeyboardInterrupt as error:
        if interrupted:
            raise Interrupted from error
        raise
    _tell_moved(said, here)
    return module


def _must_not_be_pythons_own(name: str, said: str) -> None:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ConfigurationError(
            f"{said} has the name of Python's own module {top!r}, and one of them hides the other.",
            advice="Rename yours.",
        )


def _advice_on_failure(here: Path, name: str) -> str:
    from detent_infra.ops.packaging.imports import hiding

    hidden = hiding(here)
    if hidden:
        return f"It may be {hidden[0]}, which hides a module of Python's own: rename it."
    return f"`python -c 'import {name}'` shows the whole trace."


# ---- what is around an import ---------------------------------------------------------------------------------


class _Until(SteadyStream):
    """Standard output for a module that is imported: standard error until then. A handler may have kept it."""

    def turn_to(self, stream: TextIO) -> None:
        self._inner = stream


@contextlib.contextmanager
def _apart() -> Generator[None]:
    """Prints apart from the command's output, by whole lines."""
    out, err = sys.stdout, sys.stderr
    told = SteadyStream(err)
    printed = _Until(cast("TextIO", told))
    sys.stdout, sys.stderr = cast("TextIO", printed), cast("TextIO", told)
    try:
        yield
    finally:
        told.end_line()
        printed.half_line = False
        if isinstance(out, SteadyStream):  # a worker's: what an app set up for standard output stays there
            printed.turn_to(cast("TextIO", out))
        sys.stdout, sys.stderr = out, err


@contextlib.contextmanager
def _interruptible(came: list[int]) -> Generator[None]:
    """Tells a Ctrl-C from a module that raises `KeyboardInterrupt` itself: the list then has the signal."""

    def interrupt(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _told_if_slow(said: str, here: Path) -> Generator[None]:
    """A module that begins a loop, or waits for something, is no command that hangs without a word."""
    main = threading.get_ident()
    err = sys.stderr

    def tell() -> None:
        frame: FrameType | None = sys._current_frames().get(main)
        while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(here):
            frame = frame.f_back
        at = "" if frame is None else f" ({Path(frame.f_code.co_filename).relative_to(here)}, line {frame.f_lineno})"
        print(f"detent: {said} is still being imported after {SLOW:g} s{at}. Ctrl-C stops.", file=err, flush=True)

    timer = threading.Timer(SLOW, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell_moved(said: str, here: Path) -> None:
    try:
        now = Path.cwd()
    except FileNotFoundError:
        os.chdir(here)
        raise ConfigurationError(
            f"{said} left the process in a directory that is gone.", advice="Let the module stay where it is."
        ) from None
    if now != here:
        note = f"detent: {said} changed the directory to {now}: relative paths, the database's too, begin there."
        print(note, file=sys.stderr, flush=True)
