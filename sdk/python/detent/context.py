"""What a step sees of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from detent_infra.executor import Attempt
from detent_state_machine import writes
from detent_state_machine.durations import Seconds, seconds_of
from detent_state_machine.errors import DetentError, InputError
from detent_state_machine.status import Delivery

from detent import portal
from detent.commit import MAX_WRITES, DataWrite, to_table
from detent.event import Event, publish_to
from detent.logs import RunLog

_T = TypeVar("_T")


class NonRetryable(DetentError):
    """Raise it in a step: the step fails for good, whatever attempts are left. `raise NonRetryable` needs no text."""

    def __init__(self, message: str = "The step is not to be tried again.", *, advice: str = "") -> None:
        super().__init__(message, advice=advice)


class RetryAfter(DetentError):
    """Raise it in a step: the next attempt waits at least `seconds` (as in an HTTP Retry-After), 24 hours at most.

    A number, a number in text, as a header has it, or a `timedelta`. Raises `InputError` for anything else.
    """

    def __init__(self, seconds: Seconds | str, message: str = "") -> None:
        pause = asked_pause(seconds)
        if pause is None:
            raise InputError(
                f"`RetryAfter({seconds!r})`: it should be a number of seconds, also in text, or a `timedelta`.",
                advice="Turn the moment that a server names into seconds from now, `max(0, …)`.",
            )
        super().__init__(message or f"Try again after {pause:g} s.")
        self.seconds = pause


def asked_pause(given: object) -> float | None:
    """The seconds that a `RetryAfter` asks for; None for what is not a pause."""
    if isinstance(given, str):
        try:
            given = float(given)
        except ValueError:
            return None
    pause = seconds_of(given)
    return pause if pause is not None and pause >= 0 else None


class Context:
    """The run as a step sees it. Take it with a parameter annotated `Context`."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.log = RunLog(attempt)
        """Writes lines to the run's log: `ctx.log.info("charged", cents=5)`."""
        self._committed: list[DataWrite] = []
        self._writes: list[writes.Write] = []
        self._published = 0
        self._kept: list[tuple[str, object, str]] = []

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._attempt.run_id

    @property
    def workflow(self) -> str:
        """Name of the workflow."""
        return self._attempt.workflow

    @property
    def path(self) -> str:
        """Address of this step run in its run."""
        return self._attempt.path

    @property
    def attempt(self) -> int:
        """1 at first; grows with each retry and with each take-over from a worker that died."""
        return self._attempt.number

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step run, also when the run is retried; give it to APIs you call."""
        return self._attempt.idempotency_key

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the run was started with beside its input."""
        return self._attempt.metadata

    @property
    def remaining(self) -> float:
        """Seconds until this attempt times out; 0 when it has."""
        control = self._attempt.control
        return max(0.0, (control.deadline - control.now()) / 1000)

    @property
    def is_cancelled(self) -> bool:
        """True once nobody waits for this attempt: it timed out, its run ended, or its lease was lost.

        Async bodies are cancelled as well; a synchronous one has to look, and return.
        """
        return self._attempt.control.cancelled

    def commit(self, *changes: DataWrite) -> None:
        """Writes that land in the same transaction as this step's completion, when the body returns.

        Only for `delivery="exactly_once"`. If the body raises, or a condition does not hold, nothing is written and
        the attempt fails (`CommitConflict` is retried like any error). Raises `InputError`.
        """
        if self._attempt.step.delivery is not Delivery.EXACTLY_ONCE:
            raise InputError(
                f"Step {self.path!r} commits writes, but its delivery is {self._attempt.step.delivery.value}.",
                advice='Declare the step with `delivery="exactly_once"`.',
            )
        if self._attempt.control.is_copy:
            raise InputError(
                f"Step {self.path!r} commits writes in a forked child, where nobody would see them.",
                advice="Return the values to the step's own process, and commit them there.",
            )
        converted = [to_table(change) for change in changes]
        keys = [write.key for write in (*self._writes, *converted)]
        if len(keys) > MAX_WRITES or len(set(keys)) < len(keys):
            raise InputError(f"A step commits at most {MAX_WRITES} writes, each to another entry.")
        self._committed += changes
        self._writes += converted

    @overload
    def publish(self, event: Event[_T], payload: _T, *, key: str = "") -> str: ...
    @overload
    def publish(self, event: str, payload: object, *, key: str = "") -> str: ...
    def publish(self, event: Event[Any] | str, payload: Any, *, key: str = "") -> str:
        """Publishes an event, once however often the body runs, and returns its id; see `App.publish`.

        The id is made of the step run and the number of the call: the n-th call of every attempt publishes one event.
        Raises `KeyConflict` if an earlier attempt published another payload in its n-th call.
        """
        return portal.run(self.apublish(event, payload, key=key))

    @overload
    async def apublish(self, event: Event[_T], payload: _T, *, key: str = "") -> str: ...
    @overload
    async def apublish(self, event: str, payload: object, *, key: str = "") -> str: ...
    async def apublish(self, event: Event[Any] | str, payload: Any, *, key: str = "") -> str:
        """`publish`, async."""
        self._published += 1
        id = f"{self.idempotency_key}#{self._published}"
        backend = self._attempt.control.backend
        if backend is None:  # a unit test's context
            self._kept.append((event if isinstance(event, str) else event.name, payload, key))
            return id
        return await publish_to(backend, event, payload, key=key, id=id)

    @property
    def committed(self) -> tuple[DataWrite, ...]:
        """What `commit` has collected so far, for tests."""
        return tuple(self._committed)

    @property
    def published(self) -> tuple[tuple[str, object, str], ...]:
        """In a test that calls the function by itself: name, payload and key of each event that it published."""
        return tuple(self._kept)
