"""What became of every run that a starter was told had started, and of every effect it should have had."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from detent import Client, UnknownRun
from detent_state_machine.status import Delivery, RunStatus, StepStatus

from tests.kills.app import EFFECTS, PATHS, expected_output
from tests.kills.ledger import Entries, Start

AT_ONCE = 50
"""Runs looked at at the same time."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What the backend says of a run in the end. `status` is None for a run it does not know."""

    start: Start
    status: RunStatus | None
    output: object = None
    error: str | None = None
    completed: frozenset[str] = frozenset()
    """Its steps that are COMPLETED."""
    dead_letters: int = 0
    committed: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each step's own table write was applied, of the steps that have one."""


@dataclass(slots=True)
class Row:
    """One delivery. Runs, then effects: one is due for each step that the backend calls COMPLETED.

    An effect is a line in the ledger, or for `exactly_once` the write that the step commits.
    """

    delivery: str
    started: int = 0
    finished: int = 0
    interrupted: int = 0
    unfinished: int = 0
    effects_due: int = 0
    effects_lost: int = 0
    effects_duplicated: int = 0
    bodies: int = 0
    bodies_cut: int = 0
    """Bodies that began and were killed before they were done."""
    bodies_repeated: int = 0
    dead_letters: int = 0
    """Messages that were received too often, after which their steps began again or failed."""


@dataclass(slots=True)
class Report:
    rows: list[Row]
    broken: list[str] = field(default_factory=list[str])
    """Promises that were not kept, in words."""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def judge(entries: Entries, fates: Iterable[Fate]) -> Report:
    rows = {delivery.value: Row(delivery.value) for delivery in Delivery}
    report = Report(list(rows.values()))
    for fate in fates:
        row = rows[fate.start.workflow]
        _judge_run(row, fate, report.broken)
        _judge_effects(row, fate, entries, report.broken)
    return report


def _judge_run(row: Row, fate: Fate, broken: list[str]) -> None:
    name = f"{row.delivery} run {fate.start.run_id}"
    row.started += 1
    row.dead_letters += fate.dead_letters
    if fate.status is None or fate.status.live:
        row.unfinished += 1
        broken.append(f"{name} was started and never ended ({fate.status or 'it is unknown'})")
    elif fate.status is RunStatus.COMPLETED:
        row.finished += 1
        if fate.output != expected_output(fate.start.number) or fate.completed != frozenset(PATHS):
            broken.append(f"{name} ended with {fate.output!r}, having completed {sorted(fate.completed)}")
    else:
        row.interrupted += 1
        if fate.error not in ("Interrupted", "DeadLetter"):
            broken.append(f"{name} is {fate.status} with {fate.error}")
        elif row.delivery != Delivery.AT_MOST_ONCE:
            broken.append(f"{name} gave up: its workers were killed too often")


def _judge_effects(row: Row, fate: Fate, entries: Entries, broken: list[str]) -> None:
    run_id = fate.start.run_id
    begun, done = entries.begun[run_id], entries.done[run_id]
    row.bodies += begun.total()
    row.bodies_cut += begun.total() - done.total()
    row.bodies_repeated += sum(times - 1 for times in begun.values() if times > 1)
    match Delivery(row.delivery):
        case Delivery.EXACTLY_ONCE:
            times: Mapping[str, int] = fate.committed
        case Delivery.AT_LEAST_ONCE:
            times = done
        case Delivery.AT_MOST_ONCE:
            times = begun
    row.effects_due += len(fate.completed)
    lost = [path for path in fate.completed if not times.get(path)]
    twice = [path for path, n in times.items() if n > 1]
    row.effects_lost += len(lost)
    row.effects_duplicated += len(twice)
    broken += [f"{row.delivery} run {run_id}: {path} is COMPLETED without its effect" for path in lost]
    if row.delivery != Delivery.AT_LEAST_ONCE:
        broken += [f"{row.delivery} run {run_id}: {path} had its effect {times[path]} times" for path in twice]
    if row.delivery == Delivery.EXACTLY_ONCE:
        early = sorted(times.keys() - fate.completed)
        broken += [f"{row.delivery} run {run_id}: {path} had its effect and is not COMPLETED" for path in early]


async def look(client: Client, starts: Sequence[Start]) -> list[Fate]:
    """Asks the backend about every run."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(start: Start) -> Fate:
        async with slots:
            return await _fate(client, start)

    return list(await asyncio.gather(*map(one, starts)))


async def _fate(client: Client, start: Start) -> Fate:
    try:
        run = await client.aget(start.run_id)
    except UnknownRun:
        return Fate(start, None)
    steps = await client.lifecycle.steps(start.run_id)
    output = await client.handle(start.run_id).aresult() if run.status is RunStatus.COMPLETED else None
    committed: dict[str, int] = {}
    for path in PATHS if start.workflow == Delivery.EXACTLY_ONCE else ():
        if (item := await client.aread(EFFECTS, f"{start.run_id}/{path}")) is not None:
            committed[path] = int(str(item["times"]))
    return Fate(
        start,
        run.status,
        output,
        None if run.error is None else run.error.type,
        frozenset(step.path for step in steps if step.status is StepStatus.COMPLETED),
        sum(past.error.startswith("DeadLetter") for step in steps for past in step.history),
        committed,
    )
