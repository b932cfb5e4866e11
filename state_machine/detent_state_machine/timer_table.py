"""The timer table: messages for times that are farther away than the queue delays one. DESIGN 8, timers.

A timer lies in a bucket, which holds what is due in one minute. A tick, each minute, opens the buckets up to five
minutes ahead and sends what they hold, each message with the delay that is left. So a tick reads what is due, never
what is pending, and one that comes minutes late makes nobody late.

One item, the cursor, says how far ticks have come. A tick writes `opened` before it reads a bucket; who has put a timer
reads `opened` after it. Either the tick sees the timer, or who put it sees that its bucket is open, and sends the
message itself. Both may happen: a second message is harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from detent_state_machine import keys
from detent_state_machine.errors import CorruptRecord
from detent_state_machine.messages import Drive, encode
from detent_state_machine.writes import Item, LessThan, Missing, UpdateItem, Value

MINUTE = 60_000
"""Milliseconds of a bucket."""
AHEAD = 5
"""Buckets that a tick opens before they are due."""
KEPT = 30 * 86_400
"""Seconds that a timer is kept once it was due: as long as ticks may be down without any loss."""
BEGINNING = (0, "")
"""The first place in a bucket: a shard and a sort key."""


def bucket_of(time: int) -> int:
    """The minute in which that time is (milliseconds since the epoch)."""
    return time // MINUTE


def put(message: Drive, due: int) -> UpdateItem:
    """Puts the timer that sends this message at that time.

    No race to win: whoever repeats it writes the same. An update, as every function that drives steps may make those.
    """
    brings = "" if message.fact is None else message.fact.sk
    key = keys.timer_key(bucket_of(due), due, message.run_id, message.path, brings)
    return UpdateItem(key, None, {"due": due, "message": encode(message), "expires": due // 1000 + KEPT})


# ---- how far ticks have come --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TickCursor:
    """Buckets up to `opened` were opened; what is in those up to `done` was sent, and of the next one what lies up to
    `after`, a shard and a sort key.
    """

    opened: int
    done: int
    after: tuple[int, str] = BEGINNING


def cursor_of(item: Item) -> TickCursor:
    """Raises `CorruptRecord`."""
    match {"shard": 0, "after": "", **item}:
        case {"opened": int(opened), "done": int(done), "shard": int(shard), "after": str(sk)}:
            return TickCursor(opened, done, (shard, sk))
        case _:
            raise CorruptRecord(f"The record of how far timers were sent cannot be read: {dict(item)!r}.")


def begin(now: int) -> UpdateItem:
    """The first cursor, written by who puts the first timer.

    The race it wins: another does so too. One written later would pass over timers that ticks have not sent yet.
    """
    return UpdateItem(keys.TIMERS, Missing(), {"opened": bucket_of(now), "done": bucket_of(now)})


def open_up_to(bucket: int) -> UpdateItem:
    """Opens the buckets up to this one.

    The race it wins: another tick has opened more of them, and its timers would look as if they were still to be sent.
    """
    return UpdateItem(keys.TIMERS, LessThan("opened", bucket), {"opened": bucket})


def sent_up_to(bucket: int, after: tuple[int, str]) -> UpdateItem:
    """Says how far the bucket was sent, so that a tick which dies in it need not begin it again.

    The race it wins: another tick was faster and has done the bucket. All of it would be sent again.
    """
    progress: dict[str, Value] = {"done": bucket - 1, "shard": after[0], "after": after[1]}
    return UpdateItem(keys.TIMERS, LessThan("done", bucket), progress)


def all_sent(bucket: int) -> UpdateItem:
    """Says that all is sent up to this bucket.

    The race it wins: another tick has done more of them, and they would be sent again.
    """
    return UpdateItem(keys.TIMERS, LessThan("done", bucket), {"done": bucket}, remove=("shard", "after"))


# ---- what is sent -------------------------------------------------------------------------------------------------


def messages(items: Sequence[Item], now: int, longest: float) -> list[tuple[float, list[str]]]:
    """Messages by the delay that they are sent with: in whole seconds, so that many share a request, and never before
    they are due, unless the queue cannot delay them for so long.
    """
    delays = sorted((_seconds_left(item, now), str(item["message"])) for item in items)
    by_delay = groupby(delays, key=lambda each: each[0])
    return [(min(float(delay), longest), [body for _, body in group]) for delay, group in by_delay]


def _seconds_left(item: Item, now: int) -> int:
    return max(0, -((now - int(str(item["due"]))) // 1000))
