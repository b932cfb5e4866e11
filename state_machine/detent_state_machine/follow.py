"""What an ended step run means: arrivals at joins, steps that start, the run's own end. DESIGN 6.5 and 6, failure.

Everything that is decided here may be repeated: a walk does so after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from detent_state_machine import keys, run_transitions, transitions
from detent_state_machine.decisions import Send, later
from detent_state_machine.graph import END, HANDLED, START, Arrival, Graph
from detent_state_machine.lines import Line, duration_text
from detent_state_machine.messages import Drive, Message, Start
from detent_state_machine.records import ErrorInfo, NoRecord, RunRecord, Seen, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.turn import Moment, Turn, Writer
from detent_state_machine.writes import Item, UpdateItem


@dataclass(frozen=True, slots=True)
class Starts:
    """This step can begin."""

    path: StepPath


@dataclass(frozen=True, slots=True)
class Finishes:
    """The last step has ended, and so has the run."""


@dataclass(frozen=True, slots=True)
class HandlersEnd:
    """The last failure handler has ended, or one of them failed: the run has failed."""


@dataclass(frozen=True, slots=True)
class Fails:
    """A step failed for good, and nothing handles it: the run has failed."""

    path: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class BeginsFailing:
    """A step failed for good: these handlers begin."""

    path: str
    error: ErrorInfo
    handlers: tuple[StepPath, ...]


RunEnd: TypeAlias = Finishes | HandlersEnd | Fails
RunChange: TypeAlias = RunEnd | BeginsFailing
"""A change of the run itself."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One thing that follows, once the arrivals on the way to it are complete."""

    arrivals: tuple[Arrival, ...]
    then: Starts | RunChange


# ---- after an end -------------------------------------------------------------------------------------------------

STARTED = StepRecord(START, StepStatus.COMPLETED, "", inline=True)
"""The virtual step run whose successors are the workflow's first steps."""


def follow(graph: Graph, record: StepRecord) -> tuple[Branch, ...]:
    """What follows from the ended step run, by the definition."""
    match record.status:
        case StepStatus.COMPLETED | StepStatus.SKIPPED:
            return tuple([Branch(each.arrivals, _reached(each.target)) for each in graph.successors[record.path]])
        case StepStatus.FAILED:
            return (Branch((), _failed(graph, record)),)
        case _:
            return ()


def _reached(target: StepPath) -> Starts | RunChange:
    if target == END:
        return Finishes()
    return HandlersEnd() if target == HANDLED else Starts(target)


def _failed(graph: Graph, record: StepRecord) -> RunChange:
    if graph.is_handler(record.path):
        return HandlersEnd()
    error = record.error or ErrorInfo("Unknown", "The step's record holds no error.")
    if not graph.handler_roots:
        return Fails(record.path, error)
    return BeginsFailing(record.path, error, graph.handler_roots)


def unreadable(path: StepPath, token: str, error: Exception) -> StepRecord:
    """A step run whose record cannot be read ends as one whose body raised: the run's handlers give back what it holds.

    Nothing is written over what cannot be read.
    """
    return StepRecord(path, StepStatus.FAILED, token, inline=False, error=unreadable_error(error))


def unreadable_error(error: Exception) -> ErrorInfo:
    return ErrorInfo("CorruptRecord", str(error), kinds=("CorruptRecord",), retryable=False)


def may_start(graph: Graph, run: RunRecord, path: StepPath) -> bool:
    """In a failing run only handlers start, in an ended one nothing. DESIGN 6, failure."""
    return run.status is RunStatus.RUNNING or (run.status is RunStatus.FAILING and graph.is_handler(path.root.name))


# ---- joins --------------------------------------------------------------------------------------------------------


def arrive(run_id: str, arrival: Arrival, at: Moment) -> UpdateItem:
    """Adds the step to a set of the join's tree.

    No race to win: adding to a set commutes and repeats harmlessly. Whoever sees the set complete has the join as its
    successor; several may, and the join's own record lets one of them commit.
    """
    key = keys.join_key(run_id, arrival.join, arrival.group)
    return UpdateItem(key, None, {"expires": at.expires}, {"arrived": frozenset((arrival.member,))})


def is_complete(arrival: Arrival, item: Item | None) -> bool:
    """Whether everybody has arrived, as the written set says."""
    arrived = item["arrived"] if item else frozenset[int]()
    return isinstance(arrived, frozenset) and len(arrived) >= arrival.size


# ---- the run's own change -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunChanged:
    """The run as it is now, what starts by that, and the line that tells it."""

    run: RunRecord
    starts: tuple[StepPath, ...] = ()
    line: Line | None = None


def change_run(run: RunRecord, change: RunChange, at: Moment) -> UpdateItem:
    """The write that makes the change."""
    match change:
        case Finishes():
            return run_transitions.finish(run, at)
        case HandlersEnd():
            return run_transitions.end_failing(run, at)
        case Fails(path, error):
            return run_transitions.fail_run(run, path, error, at)
        case BeginsFailing(path, error):
            return run_transitions.begin_failing(run, path, error)
        case _:
            assert_never(change)


def changed(run: RunRecord, change: RunChange, write: UpdateItem) -> RunChanged:
    """What follows once the change is made."""
    if isinstance(change, BeginsFailing):
        said = f"run fails at {change.path}: its handlers run"
        line = Line("WARN", "run_failing", said, fields={"error": change.error.type})
        return RunChanged(_failing(run, change), change.handlers, line)
    took = int(str(write.set["ended"])) - run.created
    status = str(write.set["status"]).lower()
    level = "INFO" if isinstance(change, Finishes) else "ERROR"
    said = f"run {status} in {duration_text(took)}"
    ended = replace(run, status=RunStatus(str(write.set["status"])))
    return RunChanged(ended, line=Line(level, f"run_{status}", said, fields={"duration_ms": took}))


def not_changed(run: RunRecord, change: RunChange, stored: Item | None) -> RunChanged:
    """What follows from a refusal: the run has changed before, by this very change or by another.

    An ended run has ended: by this write, repeated, or by a cancel or a failure before. Of a run that fails, or has
    failed, by this very step the handlers are sent again; if another step failed first, it is the cause, and nothing
    follows from this one. DESIGN 6, failure.
    """
    if stored is None:
        return RunChanged(run)
    status = RunStatus(str(stored["status"]))
    if not isinstance(change, BeginsFailing):
        return RunChanged(replace(run, status=status))
    if stored.get("failed_step") == change.path:
        return RunChanged(_failing(run, change, status), change.handlers)
    return RunChanged(replace(run, status=status))


def _failing(run: RunRecord, change: BeginsFailing, status: RunStatus = RunStatus.FAILING) -> RunRecord:
    return replace(run, status=status, failed_step=change.path, error=change.error)


def leaves_nothing(run: RunRecord, turn: Turn) -> bool:
    """Whether nothing of the run that this message is for can be live: the run completed, and so did each of its steps;
    or it has ended, and nobody else has this message, or had it.
    """
    return run.status is RunStatus.COMPLETED or (turn is Turn.FIRST and not run.live)


def closes(run_id: str, token: str, records: Sequence[StepRecord], at: Moment) -> list[UpdateItem]:
    """What an ended run owes: each wait that is open is closed. WAITS.md 13."""
    waiting = [record for record in records if record.status is StepStatus.WAITING]
    return [transitions.close(Writer(run_id, record.path, token, Turn.AGAIN), record, at) for record in waiting]


# ---- walk, and reap -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Through:
    """It has ended in the same chain: look at what follows it."""

    record: StepRecord


@dataclass(frozen=True, slots=True)
class Owned:
    """A message of its own owns it, and everything behind it: stop here."""


Walk: TypeAlias = Send | Through | Owned


def walk_at(target: StepPath, seen: Seen, now: int, wait: float) -> Walk:
    """What a walk does at a successor of an ended step run. It only sends: messages claim, and count, and give up what
    the run starts no more. DESIGN 6, walk.

    `wait`: seconds for which somebody may be at it who has no record yet, as an owner in its first second.
    """
    if isinstance(seen, NoRecord):
        return Send(target, wait)
    if not seen.inline:
        return Owned()
    if seen.terminal:
        return Through(seen)
    return later(target, seen.owned_until, now)


def stalled(run: RunRecord, graph: Graph, records: Sequence[StepRecord], before: int, now: int) -> list[Message]:
    """What to send for a live run without progress since `before` (milliseconds); nothing for one that moved: its
    start, and each step run that has not ended, or lacks a successor. Of a run with a sleep that is not due, what is
    missing beside it. DESIGN 6, the reaper.
    """
    asleep = {record.path for record in records if _sleeps(run, record, now)}
    newest = max((_moved(record, now) for record in records), default=run.created)
    if newest > before:
        return []
    have = {record.path: record for record in records}
    found: list[Message] = [] if asleep and _starts_all(graph, START, have) else [Start(run.run_id)]
    for record in records:
        following = [s.target for s in graph.successors[record.path] if s.target not in (END, HANDLED)]
        failing = run.status is RunStatus.FAILING and record.path == run.failed_step
        following += graph.handler_roots if failing else ()
        if asleep:
            owed = record.path not in asleep and not (record.terminal and _starts_all(graph, record.path, have))
        else:
            owed = not record.terminal or not following or any(target not in have for target in following)
        if owed:
            found.append(Drive(run.run_id, record.path))
    return found


def rests_until(run: RunRecord, records: Sequence[StepRecord], now: int, longest: int) -> int | None:
    """Until when the reaper need not look again at a run to which it sent nothing; None: as always. A run of which
    every step run that has not ended sleeps is looked at when the first is due, and after `longest` milliseconds.
    """
    waiting = [record for record in records if not record.terminal]
    if not waiting or not all(_sleeps(run, record, now) for record in waiting):
        return None
    return min(now + longest, *(record.due for record in waiting))


def _sleeps(run: RunRecord, record: StepRecord, now: int) -> bool:
    return run.status is RunStatus.RUNNING and record.status is StepStatus.WAITING and record.due > now


def _moved(record: StepRecord, now: int) -> int:
    """When there was progress: a due time to come is none, of a wait."""
    due = 0 if record.status is StepStatus.WAITING and record.due > now else record.due
    return max(record.started, record.ended or 0, record.lease, due)


def _starts_all(graph: Graph, path: StepPath, have: Mapping[StepPath, StepRecord]) -> bool:
    """Whether each step that can follow by now has a record."""
    for successor in graph.successors[path]:
        parents = graph.sinks if successor.target == END else _parents(graph, successor.target)
        ready = all(parent in have and have[parent].terminal for parent in parents)
        if ready and successor.target not in have:
            return False
    return True


def _parents(graph: Graph, target: StepPath) -> list[StepPath]:
    return [] if target == HANDLED else [StepPath(parent.step) for parent in graph.step(target).parents]
