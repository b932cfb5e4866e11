"""Work in this process until a signal, and what is logged meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import closing

from detent_infra.engine import LogSettings
from detent_infra.logs.standard_logging import show_engine_lines

from detent.app import App, work_with
from detent.cli.output import indented

IMPATIENT = 0.5
"""Seconds after the first signal from which a second one ends the process at once. Sooner, it is the same Ctrl-C,
which a terminal sends to this process and to its parent, who passes it on."""


class Stop:
    """Set by SIGINT or SIGTERM, once; a second signal ends the process without waiting."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.interrupted = False
        self._since = 0.0

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._signalled, number)
            except (NotImplementedError, RuntimeError):  # Windows: Ctrl-C raises KeyboardInterrupt instead.
                return

    def _signalled(self, number: signal.Signals) -> None:
        if not self.event.is_set():
            self.interrupted = number is signal.SIGINT
            self._since = time.monotonic()
            self.event.set()
        elif time.monotonic() - self._since > IMPATIENT:
            os._exit(128 + number)


async def work(app: App, log_settings: LogSettings, stop: asyncio.Event, *, concurrency: int, grace: float) -> None:
    """Works on the app's runs until `stop` is set, with its log as `log_settings` say; closes the app's backend."""
    with closing(app.backend):
        await work_with(app, log_settings, stop, concurrency=concurrency, grace=grace)


def log_to_stderr(*, steps: bool = True) -> None:
    """Warnings and errors on standard error: the engine's, and those that no handler of the app takes.

    `steps`: those of steps, too.
    """
    show_engine_lines(_Indented("%(asctime)s %(levelname)s %(name)s: %(message)s"), steps=steps)


class _Indented(logging.Formatter):
    """A line per record, and a trace below it: what a message holds can forge no other line."""

    def format(self, record: logging.LogRecord) -> str:
        return indented(super().format(record))
