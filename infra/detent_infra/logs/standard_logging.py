"""Records that a step's code writes through Python's `logging` go to its run's log too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager

from detent_infra.executor import Attempt, running
from detent_infra.logs.lines import fields_text, level_name, message_text
from detent_infra.ports import LogLine

_STANDARD = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "aws_request_id", "tenant_id")
)
"""What every record has; the last two are Lambda's. All else was given as `extra=`."""


def _attempt_of(record: logging.LogRecord) -> Attempt | None:
    """The attempt whose body wrote the record; none for a record of detent's own."""
    own = record.name == "detent" or record.name.startswith("detent.")
    return None if own else running.get()


def _prints(name: str) -> bool:
    """Whether records of this logger are printed by a handler of its own, or of one between it and the root."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger is not logging.root:
        for handler in logger.handlers:
            stream: object = getattr(handler, "stream", None)
            if stream is sys.stdout or stream is sys.stderr:
                return True
        logger = logger.parent
    return False


class _ToRun(logging.Handler):
    def __init__(self, *, only: bool) -> None:
        super().__init__()
        self._only = only

    def emit(self, record: logging.LogRecord) -> None:
        attempt = _attempt_of(record)
        if attempt is None or (self._only and _prints(record.name)):
            return
        try:
            extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
            # The standard format: the message, and the traceback if there is one.
            message, fields = message_text(self.format(record)), fields_text({"logger": record.name, **extra})
            level, now = level_name(record.levelname), attempt.control.now()
            attempt.control.log(LogLine(now, level, message, attempt.run_id, attempt.path, attempt.number, fields))
        except Exception:  # noqa: BLE001 - logging must not break the body; the standard way to report it
            self.handleError(record)


class _NotOfAStep(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return _attempt_of(record) is None


@contextmanager
def forward_standard_logging(*, only: bool = False) -> Generator[None]:
    """While it is open, records made inside a step go to the run's log, beside wherever else they go.

    With `only`, to one of the two: not to the handlers that the root logger has now, and not from loggers that print
    by a handler of their own, whose format is wanted. That is for Lambda, where what is printed is in the log group:
    each record would be there twice.
    """
    root = logging.getLogger()
    handler, elsewhere = _ToRun(only=only), _NotOfAStep()
    others = list(root.handlers) if only else []
    for other in others:
        other.addFilter(elsewhere)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for other in others:
            other.removeFilter(elsewhere)
