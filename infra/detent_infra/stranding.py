"""Live runs that would find no code for a step of theirs, if other code were deployed.

A run goes on with the definition it was started with, but with the bodies that workers have. A step whose body is gone
waits for a worker that has it, for ever if need be: worth knowing before a deploy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from detent_state_machine import keys
from detent_state_machine.definition import Definition
from detent_state_machine.records import StepRecord

from detent_infra.lifecycle import Lifecycle

PAGE = 50
MAX_RUNS = 10_000
"""Live runs that are looked at. Those beyond are told of as not looked at."""
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
    """`looked` live runs were looked at; `more`: there are others."""

    stranded: tuple[Stranded, ...]
    looked: int
    more: bool


def missing_steps(old: Definition, new: Definition | None) -> tuple[str, ...]:
    """Steps of a definition that the code which declares `new` has no body for."""
    has = {step.name for step in new.steps} if new is not None else set[str]()
    return tuple(step.name for step in old.steps if step.name not in has)


async def outlook(lifecycle: Lifecycle, code: Mapping[str, Definition], *, limit: int = MAX_RUNS) -> Outlook:
    """What would become of the live runs under code that declares these definitions.

    A run counts for a step that it has not ended: one that is past it does not mind that the step is gone. The index
    may lag, so a run that was started this moment may be missing.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    looked = 0
    async for workflow, page in _live(lifecycle):
        for run_id, version in page:
            if looked == limit:
                return Outlook(_told(found), looked, more=True)
            looked += 1
            old = (await lifecycle.definitions.graph(workflow, version)).definition
            gone = missing_steps(old, code.get(workflow))
            for step in await _still_to_do(lifecycle, run_id, gone):
                found.setdefault((workflow, version, step), []).append(run_id)
    return Outlook(_told(found), looked, more=False)


def _told(found: Mapping[tuple[str, str, str], list[str]]) -> tuple[Stranded, ...]:
    return tuple(
        Stranded(workflow, version, step, len(runs), tuple(runs[:EXAMPLES]))
        for (workflow, version, step), runs in sorted(found.items())
    )


async def _still_to_do(lifecycle: Lifecycle, run_id: str, steps: tuple[str, ...]) -> list[str]:
    if not steps:
        return []
    items = await lifecycle.backend.table.get_many([keys.step_key(run_id, step) for step in steps])
    return [
        step
        for step, item in zip(steps, items, strict=True)
        if item is None or not StepRecord.from_item(step, item).status.terminal
    ]


async def _live(lifecycle: Lifecycle) -> AsyncIterator[tuple[str, list[tuple[str, str]]]]:
    """Live runs with their versions, by workflow, in pages."""
    for workflow in await lifecycle.definitions.names():
        for shard in range(keys.SHARDS):
            after: str | None = None
            while True:
                page = await lifecycle.backend.table.query_index(
                    keys.index_partition(workflow, shard),
                    start=keys.index_sort(live=True, created=0, run_id=""),
                    end=keys.index_sort(live=True, created=10**15 - 1, run_id=""),
                    limit=PAGE,
                    after=after,
                )
                yield workflow, [(key.pk.removeprefix("run#"), str(item["version"])) for key, item in page.items]
                after = page.next
                if after is None:
                    break
