"""Python's `logging`: what a step's code writes with it goes to its run's log too, and the engine's own lines are kept.

Nothing here depends on how an app sets its logging up, or on when: handlers may be replaced, closed or removed while a
step runs, by `basicConfig(force=True)`, `dictConfig`, `fileConfig` or by hand.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from detent_infra.executor import Attempt, running
from detent_infra.logs.body_threads import owned_by_bodies
from detent_infra.logs.lines import fields_text, level_name, message_text
from detent_infra.logs.step_output import innermost
from detent_infra.ports import LogLine

_STANDARD = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "aws_request_id", "tenant_id")
)
"""What every record has; the last two are Lambda's. All else was given as `extra=`."""

_format = logging.Formatter().format
"""The standard format: the message, and the traceback if there is one."""
_call_handlers = logging.Logger.callHandlers
_open: list[bool] = []
"""The `only` of each `forward_standard_logging` that is open; the last one counts."""


@contextmanager
def forward_standard_logging(*, only: bool = False) -> Generator[None]:
    """While it is open, records made inside a step go to the run's log, beside wherever else they go.

    With `only`, to one of the two: not to the root logger's handlers, and not from loggers that print by a handler of
    their own, whose format is wanted. That is for Lambda, where what is printed is in the log group: each record would
    be there twice.
    """
    _open.append(only)
    # Where every record passes that its logger lets through. A handler on the root logger would be lost with the next
    # `basicConfig(force=True)`, and would not see what `propagate = False` keeps from it.
    logging.Logger.callHandlers = _forward  # type: ignore[method-assign,assignment]
    try:
        with owned_by_bodies():
            yield
    finally:
        _open.pop()
        if not _open:
            logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]


def _forward(logger: logging.Logger, record: logging.LogRecord) -> None:
    attempt = _attempt_of(record)
    if attempt is None:
        _call_handlers(logger, record)
        return
    if not _open[-1]:
        _to_run(attempt, record)
        _call_handlers(logger, record)
        return
    own = [handler for handler in _handlers(logger) if handler not in logging.root.handlers]
    if not any(map(_prints, own)):
        _to_run(attempt, record)
    for handler in own:
        if record.levelno >= handler.level:
            handler.handle(record)


def _attempt_of(record: logging.LogRecord) -> Attempt | None:
    """The attempt whose body wrote the record; none for a record of detent's own."""
    own = record.name == "detent" or record.name.startswith("detent.")
    return None if own else running.get()


def _to_run(attempt: Attempt, record: logging.LogRecord) -> None:
    try:
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD and name[:1] != "_"}
        message: object = record.msg
        if isinstance(message, Mapping) and "event" in message:  # structlog hands its own values on as the message
            event = cast("Mapping[str, object]", message)
            given |= {str(name): value for name, value in event.items() if name not in ("event", "level", "timestamp")}
            message = event["event"]
        else:
            message = _format(record)
        fields = fields_text({"logger": record.name, **given})
        level, now = level_name(record.levelname), attempt.control.now()
        attempt.control.write(
            LogLine(now, level, message_text(message), attempt.run_id, attempt.path, attempt.number, fields)
        )
    except Exception:  # noqa: BLE001 - logging must not break the body; the standard way to report it
        logging.Handler().handleError(record)


def _handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Those that a record of the logger is handed to."""
    found: logging.Logger | None = logger
    while found is not None:
        yield from found.handlers
        found = found.parent if found.propagate else None


def _prints(handler: logging.Handler) -> bool:
    stream = innermost(getattr(handler, "stream", None))
    printed = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return stream is not None and any(stream is innermost(each) for each in printed)


# ---- the engine's own lines -----------------------------------------------------------------------------------


class _EngineLogger(logging.Logger):
    """`dictConfig` and `fileConfig` disable each logger that they do not name, unless they are told not to. An app that
    sets its logging up does not mean to lose the engine's lines; whoever wants fewer of them sets its level.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - `logging`'s own name
        self.disabled = False
        return super().isEnabledFor(level)


class _OnStandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Prints where nobody else does: an app's own handler on the terminal has its own format."""

    steps = True
    """Whether records that steps make are printed, if nobody else takes them."""

    @property
    def stream(self) -> object:
        return sys.stderr

    @stream.setter
    def stream(self, _: object) -> None:
        """`sys.stderr` of the moment: it may be replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        if not self.steps and _attempt_of(record) is not None:
            return
        others = (each for each in _handlers(logging.getLogger(record.name)) if each is not self)
        if not any(_prints(other) and record.levelno >= other.level for other in others):
            super().emit(record)


_on_standard_error = _OnStandardError(logging.WARNING)


def keep_engine_lines() -> None:
    """The engine's lines are written whatever an app does to other loggers."""
    logger = logging.getLogger("detent")
    if type(logger) is logging.Logger:
        logger.__class__ = _EngineLogger


def show_engine_lines(formatter: logging.Formatter, *, steps: bool) -> None:
    """Warnings and errors of the engine on standard error, unless a handler of the app prints them there already; and
    those of others that no handler takes, of steps only with `steps`. The root logger is the app's own.
    """
    keep_engine_lines()
    _on_standard_error.setFormatter(formatter)
    _on_standard_error.steps = steps
    logging.lastResort = _on_standard_error
    logging.getLogger("detent").addHandler(_on_standard_error)
