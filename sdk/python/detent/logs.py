"""Lines that a step's code writes through Python's `logging` go to its run's log too."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from detent.context import current


class _ToRun(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        context = current.get()
        if context is None or record.name.startswith("detent"):
            return
        try:
            # The standard format: the message, and the traceback if there is one.
            context.log(self.format(record), level=record.levelname, logger=record.name)
        except Exception:  # noqa: BLE001 - logging must not break the body; the standard way to report it
            self.handleError(record)


@contextmanager
def forward_standard_logging() -> Generator[None, None, None]:
    """While it is open, log records made inside a step go to `detent logs` as well."""
    handler = _ToRun()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
