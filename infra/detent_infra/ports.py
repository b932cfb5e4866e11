"""The four ports: what detent needs of a cloud. Small enough that a new one is an afternoon.

Every adapter passes the suite in `tests/conformance`. Vendor errors are translated once, at the adapter's edge, into
the tree of `detent_state_machine.errors`: `Unavailable` may be tried again, `ConfigurationError` may not.
Every method may be called from several tasks of one event loop at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from detent_state_machine.envelopes import Refusal, SourceMessage
from detent_state_machine.errors import DetentError
from detent_state_machine.writes import Item, Key, Write

from detent_infra.ids import new_id
from detent_infra.unanswered import Outage

if TYPE_CHECKING:
    import asyncio  # costs a command line that asks for help 80 ms

EMBEDDED_DELAY = 366 * 86_400.0
"""Seconds that a queue without a limit of its own delays a message at most: it keeps a mistaken unit (milliseconds for
seconds) from being obeyed."""

Clock: TypeAlias = Callable[[], int]
"""Milliseconds since the epoch."""

Ids: TypeAlias = Callable[[], str]
"""A new unique token: 20 to 32 characters of [0-9a-v]."""

MAX_BLOB = 64 * 1024 * 1024
"""Bytes of one blob, in every adapter: what starts on one backend starts on all."""


class Conflict(DetentError):
    """A condition was false. Carries what is stored, so that nobody reads it again.

    `item` is the item as it is (None: missing); `index` says which write of a transaction was refused.
    """

    def __init__(self, item: Item | None, *, index: int = 0) -> None:
        super().__init__("A conditional write was refused.")
        self.item = item
        self.index = index


@dataclass(frozen=True, slots=True)
class Page:
    """Items of a query in order of their sort key, and where to go on (None: that was all)."""

    items: tuple[tuple[Key, Item], ...]
    next: str | None = None


class Table(Protocol):
    """Items under (partition key, sort key). Reads are strongly consistent, writes atomic per item.

    Every adapter refuses what another refuses: a write that can never succeed, by `item_limits` or because it adds to
    an attribute of another kind, is an `InputError`, and nothing was written.
    """

    async def get(self, key: Key) -> Item | None:
        """The item as of the last acknowledged write, or None."""
        ...

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        """The items in the order of the keys; not one snapshot. Any number of keys, no key twice."""
        ...

    async def write(self, write: Write) -> Item | None:
        """Applies the write if its condition holds, and returns the item as it is then (None after a delete).

        Raises `Conflict` otherwise, with what is stored. After `Unavailable` the write may or may not be applied.
        """
        ...

    async def transact(self, writes: Sequence[Write]) -> None:
        """Applies all writes or none. At most 100, each to another key.

        Raises `Conflict` with the index of the first refused write and that item.
        """
        ...

    async def query(
        self,
        pk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """Items of a partition with `start <= sort key < end`, at most `limit`, from `after` (a `Page.next`) on."""
        ...

    async def query_index(
        self,
        ipk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """The same over items that have the attributes `ipk` and `isk`, ordered by `isk`.

        Items carry only the attributes in `records.INDEXED`, and may lag behind the writes (eventually consistent).
        """
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """A message as delivered. `count` is 1 on the first delivery (as far as the queue knows)."""

    body: str
    receipt: str
    count: int
    orphaned: bool = False
    """Whether the worker that had it before is known to be dead."""


class MessageQueue(Protocol):
    """At-least-once delivery, in no order. A received message is invisible for a while, then delivered again.

    After `max_receives` deliveries the adapter moves it to its dead-letter queue.
    """

    max_delay: float
    """Longest delay of a message in seconds; a longer one is an `InputError`."""

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        """Returns when every message is stored; raises if any is not (some may be)."""
        ...

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        """Up to `limit` messages (the adapter may cap it), waiting up to `wait` seconds for the first."""
        ...

    async def extend(self, receipt: str, visibility: float) -> None:
        """The message becomes visible `visibility` seconds from now (0: at once). A stale receipt changes nothing."""
        ...

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        """As `extend`, of several messages in as few requests as there can be. Raises if any failed (some may not)."""
        ...

    async def delete(self, receipt: str) -> None:
        """Acknowledges the message. A stale receipt may or may not delete it: only call it when the work is done."""
        ...


class Blobs(Protocol):
    """Immutable bytes by content: the same bytes have the same reference."""

    async def put(self, data: bytes) -> str:
        """Stores the bytes and returns their reference (`sha256` in hex). Raises `PayloadTooLarge`."""
        ...

    async def get(self, ref: str) -> bytes:
        """Raises `CorruptRecord` if nothing, or something else, is stored under the reference."""
        ...


@dataclass(frozen=True, slots=True)
class LogLine:
    """One structured line. `fields` are further JSON values by name, as JSON text."""

    time: int
    level: str
    message: str
    run_id: str
    """Empty in a line of a function that is about no run."""
    path: str = ""
    attempt: int = 0
    fields: str = "{}"
    workflow: str = ""
    worker: str = ""
    """Who wrote it: host and process of a worker; on Lambda the execution environment."""
    request_id: str = ""
    """Of the Lambda invocation."""
    trace_id: str = ""
    """Of the invocation's trace, as X-Ray writes it."""
    engine: str = ""
    """What happened, as in `step_completed`, if the engine says it. Empty in a step's own line."""
    attempt_over: bool = False
    """Whether its attempt had ended, or was given up, before the step wrote it."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines are wanted: those for which all of it holds. `state_machine` has the pattern's language."""

    runs: tuple[str, ...] = ()
    """Of one of these runs; empty: of any, and those of no run."""
    workflow: str = ""
    path: str = ""
    """Of this step run, all attempts."""
    level: str = ""
    """Of this level or above."""
    pattern: str = ""
    """A CloudWatch Logs filter pattern; empty: all."""
    since: int = 0
    until: int | None = None
    """Milliseconds since the epoch, both inclusive."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in order of time. Pages come in order of arrival: a line that came late is on a later page."""

    lines: tuple[LogLine, ...]
    next: str
    """Pass it as `after` to read on: following a log is reading in a loop."""
    more: bool = False
    """There is more to read at once. An empty page may say so too: a search takes bounded time."""
    note: str = ""
    """What a person who waits for lines should know, as that they come later than usual. Said once."""
    reached: int = 0
    """Every line before this time has been given, in milliseconds since the epoch; 0: nobody can say yet."""


MAX_LINES = 10_000
"""Lines of one page, at most (CloudWatch's limit)."""


class Logs(Protocol):
    """Lines of runs, in order of time."""

    settles: float
    """Seconds after which an appended line can be read, as a rule."""

    async def append(self, lines: Sequence[LogLine]) -> None:
        """Best effort: lines may be lost when the process dies, or appear twice."""
        ...

    async def read(self, query: LogQuery, *, limit: int = 1000, after: str | None = None) -> LogPage:
        """The next lines, at most `limit`. Raises `InputError` for a bad pattern or level."""
        ...

    def follow(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[LogPage, None]:
        """What `read` finds, then what is written, as it comes: each line once, and a page at least every few seconds,
        if an empty one. Once `over` is set, it looks for what it may have missed, and ends. Raises as `read` does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as delivered by a source. `count` as in `Received`."""

    message: SourceMessage
    receipt: str
    count: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a source's dead-letter queue; without a refusal, the queue itself gave up delivering it."""

    message: SourceMessage
    refusal: Refusal | None


class Source(Protocol):
    """A queue that detent does not own, whose messages start runs. Delivery is that of `MessageQueue`.

    Raises `ConfigurationError` if there is no queue of the name.
    """

    @property
    def name(self) -> str: ...

    async def send(self, body: str, *, id: str | None = None, attributes: Mapping[str, str] | None = None) -> str:
        """Puts a message in, as its owners do, and returns its id. Under the same id it starts nothing twice.

        Raises `PayloadTooLarge` above `MAX_BODY`, `InputError` for what no queue takes.
        """
        ...

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Arrived]:
        """As `Queue.receive`."""
        ...

    async def extend(self, receipt: str, visibility: float) -> None:
        """As `Queue.extend`."""
        ...

    async def delete(self, receipt: str) -> None:
        """As `Queue.delete`."""
        ...

    async def bury(self, message: SourceMessage, refusal: Refusal) -> bool:
        """Copies the message, its body unchanged, into the dead-letter queue with the reason. False: there is none.

        It is not acknowledged. Raises `PayloadTooLarge` if the body leaves no room for the reason.
        """
        ...

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Up to `limit` dead letters, in no order; not all that are there, if others look at the same moment.

        Those of other queues that share the dead-letter queue are passed over, here and by `redrive`.
        """
        ...

    async def redrive(self, limit: int) -> int:
        """Moves up to `limit` dead letters back, under their ids, and says how many. 0: none was visible, or none has
        room for its id, which the log says.
        """
        ...


async def _nothing_to_sweep() -> None:
    """The store drops expired items by itself."""


def _nobody_is_known_to_be_dead(_owner: str) -> bool:
    return False


@dataclass(frozen=True)
class Backend:
    """One place where workflows live: the ports, bound to a URL."""

    url: str
    table: Table
    queue: MessageQueue
    dead_letters: MessageQueue
    blobs: Blobs
    logs: Logs
    clock: Clock
    ids: Ids
    timing: Timing
    source: Callable[[str], Source]
    """The queue of this name, which users send to. Looks nothing up yet."""
    close: Callable[[], None] = field(default=lambda: None)
    sweep: Callable[[], Coroutine[Any, Any, None]] = field(default=_nothing_to_sweep)
    """Drops what is past its `expires` (retention), where the store does not do it by itself."""
    new_owner: Ids = new_id
    """An owner token for who works now: unique, and naming the worker where its death can be seen."""
    is_dead: Callable[[str], bool] = _nobody_is_known_to_be_dead
    """Whether whoever made the owner token is known to be dead. Perhaps late, never early: a stopped worker is not."""
    outage: Outage = field(default_factory=Outage)
    """Tells that the backend does not answer, once for all who work with it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The engine's times in seconds. Each backend has defaults; a test may choose others."""

    first_heartbeat: float = 1.0
    """A step shorter than this pays for no heartbeat."""
    heartbeat: float = 5.0
    """Between two heartbeats; also how stale a look at the run's status may be. Bounds how late a cancel is seen."""
    lease: float = 30.0
    """How long a step run stays with a worker that has fallen silent."""
    visibility: float = 30.0
    """How long a message stays with a worker that dies before its first heartbeat."""
    short_batch: float = 0.2
    """A batch that a function drives within this time pays for no visibility. Until then the queue's own holds."""
    reap_after: float = 900.0
    """A live run without progress for this long is looked at by the reaper."""
