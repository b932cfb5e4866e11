"""What can be decided about a step run: values, which the engine carries out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from detent_state_machine.errors import DetentError
from detent_state_machine.lines import Line
from detent_state_machine.records import ErrorInfo, Payload, Seen, StepRecord
from detent_state_machine.step_path import StepPath
from detent_state_machine.when import Lookup
from detent_state_machine.writes import Key, UpdateItem, Write


class Then(StrEnum):
    """What comes after a transition that was made."""

    BEGIN = "begin"
    """Decide again, with what is stored now: its body can run."""
    FOLLOW = "follow"
    """The step run has ended."""
    ACKNOWLEDGE = "acknowledge"
    """A message owns what comes next."""


class IfRefused(StrEnum):
    """What a refused transition means, unless it is the writer's own, stored by an earlier try."""

    BEGIN = "begin"
    """Decide again, with what is stored."""
    LOST = "lost"
    """Somebody else was first: drop the result, delete nothing."""
    NOTHING = "nothing"
    """The step run belongs to somebody else, and nothing is owed for it."""


# ---- what a step run finds ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FactQuery:
    """Where facts are stored that may end a wait, from which on, and which of them do.

    `match` is JMESPath that holds for them; "": all do. `brought`: the fact that a message brings. Only if that one
    ends the wait an older one is taken in its place: another delivery of the message must come to the same.
    """

    partition: str
    start: str
    match: str = ""
    brought: Key | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """What ends a wait. `error`: why it does not fit the type that the wait's author declared."""

    key: Key
    payload: Payload
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Here:
    """What this worker can do: whether its code has the step, and until when its invocation goes on.

    `arrived`: when the delivery began or was renewed; milliseconds, as `deadline`. None: it goes on for ever. `since`:
    from when on waits of the run look for facts. `brought`: the fact that the message names; `fact`: the one that ends
    the wait.
    """

    knows: bool
    arrived: int
    deadline: int | None = None
    since: int = 0
    brought: Key | None = None
    fact: Fact | None = None


@dataclass(frozen=True, slots=True)
class Go:
    """Its parents have ended and its condition holds. `lookup` has the values that its definition refers to."""

    lookup: Lookup


@dataclass(frozen=True, slots=True)
class Skip:
    """A parent that it needs was skipped, or its condition does not hold."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """Its condition cannot be evaluated, now or ever."""

    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class TooSoon:
    """These parents have not ended. No message is sent so early: the table has lost them, or somebody made it up."""

    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unwanted:
    """Its run has ended, or fails and this is no handler: it begins no more. `reached`: its parents had ended, so that
    a worker which has not heard of it may be about to begin it.
    """

    reached: bool


Readiness: TypeAlias = Go | Skip | Unfit | TooSoon | Unwanted


def final(error: DetentError) -> ErrorInfo:
    """An error that no further attempt changes."""
    return ErrorInfo(type(error).__name__, str(error), retryable=False)


# ---- what becomes of a body ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Returned:
    """The body returned. `effects` are writes of the user's that land in the transaction of its completion."""

    output: Payload
    effects: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Raised:
    """It raised, or its input or output did not fit, or its time was over."""

    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Another worker has the step run: drop the result, delete nothing."""


@dataclass(frozen=True, slots=True)
class RunOver:
    """The run has ended (cancelled, or failed elsewhere): nothing follows from the step run."""


@dataclass(frozen=True, slots=True)
class Released:
    """This worker is told to stop: the attempt begins again elsewhere, at once."""


Outcome: TypeAlias = Returned | Raised | TakenOver | RunOver | Released


# ---- what is decided ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """A message that drives the path, `delay` seconds from now. `fresh` and `fact` as in `Drive`.

    `at`: the time that it is for (milliseconds since the epoch), where that is known: then it has one timer, however
    often it is sent.
    """

    path: StepPath
    delay: float = 0.0
    fresh: bool = False
    at: int | None = None
    fact: Key | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """By this item whoever brings a fact finds the wait. It may be written again at any time."""

    write: UpdateItem


@dataclass(frozen=True, slots=True)
class LookBack:
    """A message for the path, if a fact is stored already. It only sends: another delivery of this message may have
    found nothing, and acknowledged. WAITS.md 8.
    """

    path: StepPath
    question: FactQuery


@dataclass(frozen=True, slots=True)
class MissingBody:
    """A note that this worker has no code for the step, whose newest attempt began then (milliseconds; 0: none).
    `expires`: when the note is dropped, in seconds since the epoch. `line` tells it, once.
    """

    path: StepPath
    begun: int
    expires: int
    line: Line


Owed: TypeAlias = Send | Register | LookBack | MissingBody
"""What a decision owes before the message is acknowledged, in this order."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One conditional write; once it is made: the line that tells it, what it owes, and what comes then.

    `effects` are writes of the user's, in the same transaction. `suspect`: how many workers died at the step run, if
    it may be what killed them: it begins while this process runs no other suspect, and stays alone until it ends.
    """

    write: UpdateItem
    then: Then
    refusal: IfRefused
    line: Line | None = None
    owes: tuple[Owed, ...] = ()
    effects: tuple[Write, ...] = ()
    suspect: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Its body runs now. `seen` is the record that the writer holds, or what it takes for missing."""

    seen: Seen


@dataclass(frozen=True, slots=True)
class Reject:
    """It is claimed, and its body cannot run: it fails with this error."""

    record: StepRecord
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Ended:
    """It has ended. `mine`: by a commit of this delivery, so its successors have no record yet; else walk."""

    record: StepRecord
    mine: bool = False


@dataclass(frozen=True, slots=True)
class HandOver:
    """Others own the work, once what is owed is done: acknowledge. `why`: for the operator, if it is not usual."""

    owes: tuple[Owed, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Leave:
    """It cannot be done here: touch nothing, delete nothing, and the message comes back. `why` is for the operator."""

    why: str = ""
    line: Line | None = None


Settled: TypeAlias = Transition | Leave
"""What an outcome of a body becomes."""
Beginning: TypeAlias = Run | Reject | Ended | HandOver | Leave | Transition


def later(path: StepPath, at: int, now: int, *, fact: Key | None = None) -> Send:
    """A copy that arrives at that time (milliseconds). One that comes before it is sent on."""
    return Send(path, max(0.0, (at - now) / 1000 + 0.001), at=at, fact=fact)
