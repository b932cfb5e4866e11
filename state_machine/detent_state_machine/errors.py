"""Every error detent raises, grouped by what the caller does next.

    DetentError
    ├── DefinitionError      fix the program: the workflow as declared cannot run
    ├── InputError           fix the request: a value does not fit
    │   ├── NotSerializable      a value has no JSON form; says the path to it
    │   ├── PayloadTooLarge      a value is larger than the limit
    │   ├── KeyConflict          the idempotency key was used with another input
    │   └── WrongState           the run is in a status that does not allow this
    ├── NotFound             fix the name
    │   ├── UnknownWorkflow
    │   ├── UnknownRun
    │   └── UnknownStep          this code has no such step (an older or newer deploy)
    ├── ConfigurationError   fix the setup: URL, permissions, missing table or queue
    ├── Unavailable          try again: the backend did not answer, throttled, or is locked
    ├── RecordError          a stored record cannot be read
    │   ├── CorruptRecord        its bytes make no sense
    │   └── NewerRecord          a newer detent wrote it; upgrade this worker
    └── RunError             the run ended otherwise than with a result
        ├── RunFailed
        └── RunCancelled

Messages say what happened, why, and what to do.
"""

from __future__ import annotations


class DetentError(Exception):
    """Root of detent's errors. `advice` says what to do about it; `str()` shows message and advice."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".rstrip()


class DefinitionError(DetentError):
    """The workflow as declared cannot run. Raised while it is compiled, before anything is stored."""


class InputError(DetentError):
    """A value given to detent does not fit. Nothing was written."""


class NotSerializable(InputError):
    """A value has no JSON form. `path` leads to it, as in `$.items[3].price`."""

    def __init__(self, message: str, *, path: str = "$", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.path = path


class PayloadTooLarge(InputError):
    """A value is larger than the backend's limit, in bytes of JSON."""


class KeyConflict(InputError):
    """The idempotency key already started a run with another input. `run_id` is that run's."""

    def __init__(self, message: str, *, run_id: str = "", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.run_id = run_id


class WrongState(InputError):
    """The run is in a status that does not allow the request."""


class NotFound(DetentError):
    """A name leads nowhere."""


class UnknownWorkflow(NotFound):
    """No workflow of this name (or version) is registered on this backend."""


class UnknownRun(NotFound):
    """No run of this id is stored on this backend."""


class UnknownStep(NotFound):
    """The worker's code has no step of this name. Another deploy may have it: the message is not acknowledged."""


class ConfigurationError(DetentError):
    """The setup is wrong: a URL, a permission, a missing table, queue or bucket."""


class Unavailable(DetentError):
    """The backend did not do it: unreachable, throttled, locked or full. Safe to try again."""


class RecordError(DetentError):
    """A stored record cannot be read. It is never guessed at."""


class CorruptRecord(RecordError):
    """The record's attributes are not what any version of detent writes."""


class NewerRecord(RecordError):
    """A newer version of detent wrote the record."""


class RunError(DetentError):
    """The run ended otherwise than with a result. `run_id` names it."""

    def __init__(self, message: str, *, run_id: str, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.run_id = run_id


class RunFailed(RunError):
    """The run failed. `step` is the path of the step that failed, `error_type` its exception's class name."""

    def __init__(self, message: str, *, run_id: str, step: str, error_type: str, advice: str = "") -> None:
        super().__init__(message, run_id=run_id, advice=advice)
        self.step = step
        self.error_type = error_type


class RunCancelled(RunError):
    """The run was cancelled."""
