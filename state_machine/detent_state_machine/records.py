"""The stored records of a run and of a step run, and their one translation from and to table items.

Times are milliseconds since the epoch. A record of a newer format is refused, never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

from detent_state_machine import keys
from detent_state_machine.errors import CorruptRecord, NewerRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Item, Value

FORMAT = 1
MAX_HISTORY = 10
"""Attempts kept on a step record. Older ones are dropped, so that no item grows with its retries."""
MAX_MESSAGE = 1_000
NEW_ERRORS, MAX_NEW_ERROR, MAX_OLDER_ERROR = 3, 600, 120
"""How many of the kept attempts count as new, and the characters kept of the error of a new and of an older one."""
MAX_TRACE = 4_000

INDEXED = ("ipk", "isk", "workflow", "version", "status", "created", "ended", "metadata", "key")
"""What an index query returns besides the key: enough for a list of runs."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Payload:
    """JSON text, or a reference to where it is stored (claim check)."""

    text: str | None = None
    ref: str | None = None


NULL = Payload("null")


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What went wrong in an attempt. `kinds` are the class and its bases, for the retry policy."""

    type: str
    message: str
    trace: str = ""
    kinds: tuple[str, ...] = ()
    retryable: bool = True
    retry_after: float | None = None

    def to_json(self) -> str:
        kept = {"type": self.type, "message": _cut(self.message, MAX_MESSAGE), "trace": _tail(self.trace, MAX_TRACE)}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt that failed."""

    started: int
    ended: int
    error: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step run as it is stored. `errors` are failed attempts, `takeovers` those whose worker died; `lease` and `due`
    say until when, or from when on, it waits.
    """

    path: StepPath
    status: StepStatus
    owner: str
    inline: bool
    errors: int = 0
    takeovers: int = 0
    started: int = 0
    ended: int | None = None
    lease: int = 0
    due: int = 0
    expires: int = 0
    commits: int = 0
    """Writes of `ctx.commit` that landed in the transaction of its completion."""
    output: Payload | None = None
    error: ErrorInfo | None = None
    history: tuple[PastAttempt, ...] = ()
    awaits: str = ""
    """Of a wait: where facts for it are stored, which is where it is registered."""
    since: int = 0
    """Of a wait: facts that are older do not meet it; milliseconds since the epoch."""
    fact: str = ""
    """Of a wait: the fact that ended it."""
    orphaned: bool = False
    """Whether its owner is known to be dead, which is not stored: its lease is over, whatever it says."""

    @property
    def owned_until(self) -> int:
        """Until when nobody else may claim it; milliseconds."""
        if self.status is StepStatus.RETRYING:
            return self.due
        return 0 if self.orphaned else self.lease

    @property
    def goes_on(self) -> int | None:
        """When it goes on by itself, in milliseconds since the epoch; None if nothing says that."""
        return (self.due or None) if self.status.has_due_time else None

    @property
    def attempt(self) -> int:
        """Number of the newest attempt, from 1; 0 for a step that was skipped."""
        if self.status is StepStatus.SKIPPED:
            return 0
        return self.errors + self.takeovers + (0 if self.status in (StepStatus.RETRYING, StepStatus.FAILED) else 1)

    @property
    def terminal(self) -> bool:
        """Whether it has ended, and so never changes."""
        return self.status.terminal

    @property
    def result(self) -> Payload | None:
        """What it returned; None unless it completed."""
        return self.output if self.status is StepStatus.COMPLETED else None

    def failed_attempts(self) -> Iterator[tuple[int, PastAttempt]]:
        """Those that are kept (the newest ten), each with its number."""
        dropped = max(0, self.errors + self.takeovers - len(self.history))
        return enumerate(self.history, dropped + 1)

    @staticmethod
    def from_item(path: StepPath, item: Item) -> StepRecord:
        def build() -> StepRecord:
            return StepRecord(
                path=path,
                status=StepStatus(str(item["status"])),
                owner=_str(item, "owner"),
                inline=_bool(item, "inline"),
                errors=_int(item, "errors") if "errors" in item else 0,
                takeovers=_int(item, "takeovers") if "takeovers" in item else 0,
                started=_int(item, "started") if "started" in item else 0,
                ended=_int(item, "ended") if "ended" in item else None,
                lease=_int(item, "lease") if "lease" in item else 0,
                due=_int(item, "due") if "due" in item else 0,
                expires=_int(item, "expires") if "expires" in item else 0,
                commits=_int(item, "commits") if "commits" in item else 0,
                output=payload_of(item, "output"),
                error=_error(_str(item, "error")) if "error" in item else None,
                history=_history(_str(item, "history")) if "history" in item else (),
                awaits=_str(item, "awaits") if "awaits" in item else "",
                since=_int(item, "since") if "since" in item else 0,
                fact=_str(item, "fact") if "fact" in item else "",
            )

        return _read(f"step run {path!r}", item, build)


@dataclass(frozen=True, slots=True)
class NoRecord:
    """What is stored of a step run that has not begun: nothing. It counts as a record without attempts."""

    path: StepPath
    errors: int = 0
    takeovers: int = 0
    history: tuple[PastAttempt, ...] = ()
    attempt: int = 1


Seen: TypeAlias = NoRecord | StepRecord
"""What a reader found of a step run."""


def seen_of(path: StepPath, item: Item | None) -> Seen:
    """What an item says of the step run; None: it is missing."""
    return NoRecord(path) if item is None else StepRecord.from_item(path, item)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it is stored. `version` names the definition that drives it, whatever code is deployed."""

    run_id: str
    workflow: str
    version: str
    status: RunStatus
    created: int
    input: Payload
    ended: int | None = None
    key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    failed_step: str | None = None
    error: ErrorInfo | None = None
    retry_of: str | None = None
    origin: str | None = None
    """The first run of a chain of retries: the root of idempotency keys, which so survive a retry."""
    keep_until: int = 0
    """Not dropped before, whatever the workflow's retention; in seconds since the epoch. While the record is there,
    its key starts nothing else."""
    digest: str = ""
    """Of the content of the message that started it. The same message again is told from another one by it."""
    retry_since: int = 0
    """Of a retry: when the first run of the chain was created. What was published to that one meets this one too."""

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.status.live

    @property
    def since(self) -> int:
        """From when on its waits look for facts; milliseconds since the epoch."""
        return self.retry_since or self.created

    @property
    def owes_closes(self) -> bool:
        """Whether it may have ended beside waits that are open."""
        return self.status in (RunStatus.FAILED, RunStatus.CANCELLED)

    @staticmethod
    def from_item(run_id: str, item: Item) -> RunRecord:
        """Reads a whole record, or an index entry (which has no input and no error)."""

        def build() -> RunRecord:
            return RunRecord(
                run_id=run_id,
                workflow=_str(item, "workflow"),
                version=_str(item, "version"),
                status=RunStatus(str(item["status"])),
                created=_int(item, "created"),
                input=payload_of(item, "input") or NULL,
                ended=_int(item, "ended") if "ended" in item else None,
                key=_str(item, "key") if "key" in item else None,
                metadata=_texts(_str(item, "metadata")) if "metadata" in item else {},
                failed_step=_str(item, "failed_step") if "failed_step" in item else None,
                error=_error(_str(item, "error")) if "error" in item else None,
                retry_of=_str(item, "retry_of") if "retry_of" in item else None,
                origin=_str(item, "origin") if "origin" in item else None,
                keep_until=_int(item, "keep_until") if "keep_until" in item else 0,
                digest=_str(item, "digest") if "digest" in item else "",
                retry_since=_int(item, "retry_since") if "retry_since" in item else 0,
            )

        return _read(f"run {run_id!r}", item, build)

    def to_item(self) -> Item:
        """The record as `start` puts it."""
        item: dict[str, Value] = {
            "v": FORMAT,
            "workflow": self.workflow,
            "version": self.version,
            "status": self.status.value,
            "created": self.created,
            "ipk": keys.index_partition(self.workflow, keys.shard_of(self.run_id)),
            "isk": keys.index_sort(keys.index_part(self.status), created=self.created, run_id=self.run_id),
            **payload_attributes("input", self.input),
        }
        if self.key is not None:
            item["key"] = self.key
        if self.metadata:
            item["metadata"] = json.dumps(dict(self.metadata), ensure_ascii=False, separators=(",", ":"))
        if self.retry_of is not None:
            item["retry_of"] = self.retry_of
        if self.origin is not None:
            item["origin"] = self.origin
        if self.keep_until:
            item["keep_until"] = self.keep_until
        if self.digest:
            item["digest"] = self.digest
        if self.retry_since:
            item["retry_since"] = self.retry_since
        return item


def payload_attributes(name: str, payload: Payload) -> dict[str, Value]:
    if payload.ref is not None:
        return {f"{name}_ref": payload.ref}
    return {name: payload.text or "null"}


def history_json(history: tuple[PastAttempt, ...]) -> str:
    kept = history[-MAX_HISTORY:]
    limits = [MAX_OLDER_ERROR] * (len(kept) - NEW_ERRORS) + [MAX_NEW_ERROR] * min(len(kept), NEW_ERRORS)
    rows = [[past.started, past.ended, _cut(past.error, limit)] for past, limit in zip(kept, limits, strict=True)]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _read(what: str, item: Item, build: Callable[[], _T]) -> _T:
    version = item["v"] if "v" in item else FORMAT  # noqa: SIM401
    if version != FORMAT and isinstance(version, int) and version > FORMAT:
        raise NewerRecord(
            f"The record of {what} has format {version}; this worker reads up to {FORMAT}.",
            advice="Upgrade this worker.",
        )
    try:
        return build()
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptRecord(
            f"The record of {what} cannot be read: {type(error).__name__}: {_cut(str(error), 200)}.",
            advice="It was not written by detent, or was changed by hand.",
        ) from error


def _str(item: Item, name: str) -> str:
    value = item[name]
    return value if type(value) is str else _text(name, value)


def _int(item: Item, name: str) -> int:
    value = item[name]
    return value if type(value) is int else _number(name, value)


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {type(value).__name__}, not a number")
    return value


def _bool(item: Item, name: str) -> bool:
    value = item[name]
    if type(value) is not bool:
        raise TypeError(f"{name} is {type(value).__name__}, not true or false")
    return value


def _texts(text: str) -> dict[str, str]:
    """A JSON object of strings."""
    fields = cast("dict[str, object]", json.loads(text))
    return {name: _text(name, value) for name, value in fields.items()}


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__}, not text")
    return value


def payload_of(item: Item, name: str) -> Payload | None:
    """The payload that `payload_attributes` wrote, if there is one."""
    if name in item:
        return Payload(_str(item, name))
    if f"{name}_ref" in item:
        return Payload(ref=_str(item, f"{name}_ref"))
    return None


def _error(text: str) -> ErrorInfo:
    fields = _texts(text)
    return ErrorInfo(fields["type"], fields["message"], fields.get("trace", ""))


def _history(text: str) -> tuple[PastAttempt, ...]:
    rows = cast("list[tuple[object, object, object]]", json.loads(text))
    return tuple(
        PastAttempt(_number("started", started), _number("ended", ended), _text("error", error))
        for started, ended, error in rows
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _tail(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[-(limit - 1) :]
