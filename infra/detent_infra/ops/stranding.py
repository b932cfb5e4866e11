"""Live runs that would find no code for a step of theirs, if other code were deployed.

A run goes on with the definition it was started with, but with the bodies that workers have. A step whose body is gone
waits for a worker that has it, for ever if need be: worth knowing before a deploy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from detent_state_machine import keys
from detent_state_machine.definition import Definition
from detent_state_machine.kinds import has_body
from detent_state_machine.records import StepRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.step_path import StepPath

from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.live import live_runs

PAGE = 100
"""Runs whose steps are read at once."""
MAX_RUNS = 10_000
"""Runs whose steps are read: those of a version with steps that the code lacks. A message says if there are more."""
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Stranded:
    """Runs that still have to do a step which the code lacks. `run_ids` are a few of them."""

    workflow: str
    version: str
    step: str
    runs: int
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """`looked` live runs were looked at. `more`: others, of versions with steps that the code lacks, were not."""

    stranded: tuple[Stranded, ...]
    looked: int
    more: bool


@dataclass(frozen=True, slots=True)
class _Live:
    """A live run as the index has it."""

    run_id: str
    workflow: str
    version: str
    failing: bool


def missing_steps(old: Definition, new: Definition | None) -> tuple[str, ...]:
    """Steps of a definition that the code which declares `new` has no body for."""
    has = {step.name for step in new.steps if has_body(step)} if new is not None else set[str]()
    return tuple(step.name for step in old.steps if has_body(step) and step.name not in has)


async def outlook(lifecycle: Lifecycle, code: Mapping[str, Definition], *, limit: int = MAX_RUNS) -> Outlook:
    """What would happen to the live runs under code that declares these definitions.

    A run counts for a step that it has not ended: one that is past it does not mind that the step is gone, nor does a
    failing run for steps that are not handlers. At most `limit` runs have their steps read; runs of a version that
    lacks nothing are free. The index may lag, so a run that was started this moment may be missing.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    looked, left = 0, limit
    async for page in _live(lifecycle):
        needing = [(run, gone) for run in page if (gone := await _gone(lifecycle, run, code))]
        for run, step in await _still_to_do(lifecycle, needing[:left]):
            found.setdefault((run.workflow, run.version, step), []).append(run.run_id)
        unread = len(needing[left:])
        looked += len(page) - unread
        if unread:
            return Outlook(_told(found), looked, more=True)
        left -= len(needing)
    return Outlook(_told(found), looked, more=False)


def _told(found: Mapping[tuple[str, str, str], list[str]]) -> tuple[Stranded, ...]:
    return tuple(
        Stranded(workflow, version, step, len(runs), tuple(runs[:EXAMPLES]))
        for (workflow, version, step), runs in sorted(found.items())
    )


async def _gone(lifecycle: Lifecycle, run: _Live, code: Mapping[str, Definition]) -> tuple[str, ...]:
    """Steps that the code lacks and that this run may still start, as far as its index entry tells."""
    graph = await lifecycle.definitions.graph(run.workflow, run.version)
    gone = missing_steps(graph.definition, code.get(run.workflow))
    return tuple(step for step in gone if graph.is_handler(step)) if run.failing else gone


async def _still_to_do(lifecycle: Lifecycle, runs: Iterable[tuple[_Live, tuple[str, ...]]]) -> list[tuple[_Live, str]]:
    """Those of the steps that their runs have not ended."""
    wanted = [(run, step) for run, steps in runs for step in steps]
    if not wanted:
        return []
    items = await lifecycle.backend.table.get_many([keys.step_key(run.run_id, StepPath(step)) for run, step in wanted])
    return [
        (run, step)
        for (run, step), item in zip(wanted, items, strict=True)
        if item is None or not StepRecord.from_item(StepPath(step), item).terminal
    ]


async def _live(lifecycle: Lifecycle) -> AsyncIterator[list[_Live]]:
    """Live runs, by workflow, in pages."""
    async for workflow, runs in live_runs(lifecycle.backend, lifecycle.definitions, page=PAGE):
        yield [
            _Live(
                keys.run_id_of(key.pk),
                workflow,
                str(item["version"]),
                failing=item["status"] == RunStatus.FAILING,
            )
            for key, item in runs
        ]
