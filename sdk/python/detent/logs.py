"""What a step writes its lines with, and how a worker writes its own."""

from __future__ import annotations

import os
import socket
import traceback

from detent_infra.engine import LogSettings, Origin
from detent_infra.executor import Attempt
from detent_infra.logs.lines import LEVELS, fields_text, level_name, message_text
from detent_infra.ports import LogLine
from detent_state_machine.errors import ConfigurationError

from detent.settings import settings


class RunLog:
    """The log of a step's run: `ctx.log.info("charged", cents=5)`, or `ctx.log("charged", level="INFO", cents=5)`.

    Each call writes a line that `detent logs` shows, with further values by name. A value without a JSON form is
    written as text; a field named as one of detent's own (`path`, `level`, …) gets a `_` behind its name. A message has
    at most 10,000 characters, all fields together have 50,000. Best effort, from any thread; never raises.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __call__(self, message: object, /, *, level: str = "INFO", **fields: object) -> None:
        """A line of any level."""
        self._write(level_name(message_text(level)), message, fields)

    def debug(self, message: object, /, **fields: object) -> None:
        """A line of level DEBUG."""
        self._write("DEBUG", message, fields)

    def info(self, message: object, /, **fields: object) -> None:
        """A line of level INFO."""
        self._write("INFO", message, fields)

    def warning(self, message: object, /, **fields: object) -> None:
        """A line of level WARN."""
        self._write("WARN", message, fields)

    def error(self, message: object, /, **fields: object) -> None:
        """A line of level ERROR."""
        self._write("ERROR", message, fields)

    def exception(self, message: object, /, **fields: object) -> None:
        """`error`, followed by the traceback of the exception that is being handled."""
        self._write("ERROR", f"{message_text(message)}\n{traceback.format_exc().rstrip()}", fields)

    def _write(self, level: str, message: object, fields: dict[str, object]) -> None:
        attempt, control = self._attempt, self._attempt.control
        text, more = message_text(message), fields_text(fields)
        control.write(LogLine(control.now(), level, text, attempt.run_id, attempt.path, attempt.number, more))


def log_settings() -> LogSettings:
    """How this process's worker writes lines. Raises `ConfigurationError` if DETENT_LOG_LEVEL is not a level."""
    level = level_name(settings().log_level)
    if level not in LEVELS:
        raise ConfigurationError(f"DETENT_LOG_LEVEL is {level!r}.", advice=f"Use one of {', '.join(LEVELS)}.")
    return LogSettings(Origin(worker=f"{socket.gethostname()}-{os.getpid()}"), level)
