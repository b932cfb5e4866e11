"""The statuses of a run and of a step run."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """RUNNING and FAILING are live; the others are final."""

    RUNNING = "RUNNING"
    FAILING = "FAILING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def live(self) -> bool:
        return self in (RunStatus.RUNNING, RunStatus.FAILING)


class StepStatus(StrEnum):
    """RUNNING, RETRYING and WAITING are on the way; the others are final and never change."""

    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        return self not in (StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.WAITING)

    @property
    def waits(self) -> bool:
        """Whether it has no worker, and needs none: a fact ends it."""
        return self is StepStatus.WAITING

    @property
    def has_due_time(self) -> bool:
        """Whether its record says when it goes on."""
        return self in (StepStatus.RETRYING, StepStatus.WAITING)


class Delivery(StrEnum):
    """How often a step's body runs and its effects happen; docs/concepts.md says what each cannot promise."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"
    EXACTLY_ONCE = "exactly_once"
