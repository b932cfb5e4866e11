"""What an outcome of a body becomes: the write that stores it, the messages that it owes, the line that tells it.

DESIGN 6.4: every write is fenced by its owner. One that is refused, and not by an earlier try of its own, is lost: its
writer drops the result and deletes nothing.
"""

from __future__ import annotations

from detent_state_machine import transitions
from detent_state_machine.decisions import Leave
from detent_state_machine.kinds import settle
from detent_state_machine.lines import Line
from detent_state_machine.records import ErrorInfo, Seen
from detent_state_machine.turn import Moment, Writer
from detent_state_machine.writes import Item, UpdateItem

__all__ = ["dropped", "is_mine", "not_stored", "renew", "settle", "timed_out"]


def renew(me: Writer, seen: Seen, at: Moment, *, started: int) -> UpdateItem:
    """The heartbeat's write: the lease goes on from now."""
    return transitions.heartbeat(me, seen, at, started=started)


def is_mine(me: Writer, write: UpdateItem, stored: Item | None) -> bool:
    """Whether a refused write is stored all the same: an earlier try made it, and its reply was lost. DESIGN 5."""
    return transitions.wrote(me, write, stored)


def dropped(me: Writer, seen: Seen) -> Leave:
    """What becomes of a result that came too late."""
    return Leave(line=Line("WARN", "step_lost", "result dropped: another worker was first", me.path, seen.attempt))


def timed_out(path: str, seconds: float) -> ErrorInfo:
    """The error of a body that did not end in time."""
    return ErrorInfo(
        "StepTimeout",
        f"Step {path!r} did not end within {seconds:g} s.",
        kinds=("StepTimeout", "TimeoutError", "Exception"),
    )


def not_stored(index: int, stored: Item | None) -> ErrorInfo:
    """The error of a body one of whose own writes, the `index`-th from 1, was refused."""
    told = "nothing" if stored is None else f"{len(stored)} attributes"
    return ErrorInfo(
        "CommitConflict",
        f"Write {index} of ctx.commit was refused: its condition does not hold ({told} stored). "
        "Nothing of this attempt was written.",
        kinds=("CommitConflict", "Exception"),
    )
