"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detent_state_machine.errors import DetentError

Severity = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding. `skip`: the thing could not be read, for the reason given.

    Unless all is well, `fix` says what to do, and `command` is what does it, or shows more.
    """

    name: str
    verdict: Severity
    message: str
    fix: str = ""
    command: str = ""


def failed(name: str, error: DetentError) -> Finding:
    """The finding that something cannot be done because of the error."""
    return Finding(name, "fail", error.message, error.advice)
