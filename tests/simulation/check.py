"""Runs a drawn workload under a plan of faults, and holds its end to the oracle."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from unittest.mock import patch

from detent import RunStatus, StepStatus
from detent.testing.simulation.faults import Fault, FixedPlan, Plan, RandomPlan, Rates
from detent.testing.simulation.invariants import Violation
from detent.testing.simulation.shrinking import MAX_SECONDS, fewer_faults
from detent.testing.simulation.world import Simulation
from detent_infra.events import publish
from detent_infra.events.publish import NewEvent
from detent_infra.runs.start import NewRun
from detent_state_machine.events import EventAddress
from detent_state_machine.keys import RUN, data_key, event_sort, step_key
from detent_state_machine.records import StepRecord
from detent_state_machine.status import Delivery
from detent_state_machine.step_path import StepPath

from tests.simulation.workloads import KEY, LONG_AGO, Drawn, Workload, build, draw, line

VALUES = (0, 7, 200)
INBOX = "inbox"
LONGEST_INVOKED = 5.0
"""Seconds of a body where some machines are functions, whose invocations last 60 s and more."""
GAVE_UP = ("Interrupted", "DeadLetter")
"""Errors of steps that no worker ended: at_most_once after a crash, or all take-overs used up. And only of those."""


@dataclass
class Case:
    """One seed: what is run, under which faults, and what happens in the middle."""

    seed: int
    steps: tuple[Drawn, ...]
    runs: int = 2
    rates: Rates = Rates()
    plan: Plan | None = None
    machines: int = 3
    invocations: int = 0
    """Machines that are functions, beside its workers. No body of the case takes long then."""
    max_receives: int = 30
    max_hops: int = 3
    """Steps driven inline by one delivery: low on purpose, inline chains and messages alternate."""
    large_input: bool = False
    cancels: bool = False
    deploys: bool = False
    reaps: bool = False
    purges: bool = False
    retries: bool = False
    triggered: bool = False
    """Its runs are started by messages, which are sent twice."""
    brisk: bool = False
    """Its run is a line of steps too short for a heartbeat, and cancelled soon: only a look between them sees it."""
    known_deaths: bool = False
    """The death of a worker becomes known, as on SQLite."""
    injected: dict[int, Fault] = field(default_factory=dict[int, Fault])
    trace: list[str] = field(default_factory=list[str])
    calls: int = 0
    seen: Counter[str] = field(default_factory=Counter[str])
    """What happened in it, by name: faults, messages, transitions."""


EVENTS = ("large_input", "cancels", "deploys", "reaps", "purges", "retries", "triggered", "brisk", "invocations")
"""What may happen in the middle of a case, or be odd about it: fields of `Case`."""


def case(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(f"case {seed}")
    drawn = Case(
        seed=seed,
        steps=draw(rng),
        runs=rng.choice([1, 2, 3]),
        rates=replace(Rates().scaled(rng.choice([0.3, 1.0, 1.0, 3.0])), missing=rng.choice([0.0, 0.0, 0.1])),
        machines=rng.choice([1, 2, 3]),
        large_input=rng.random() < 0.2,
        cancels=rng.random() < 0.2,
        deploys=rng.random() < 0.2,
        reaps=rng.random() < 0.2,
        purges=rng.random() < 0.1,
        retries=rng.random() < 0.2,
        max_receives=rng.choice([2, 5, 30]),
        triggered=rng.random() < 0.2,
    )
    if drawn.cancels and rng.random() < 0.5:
        return replace(drawn, steps=line(rng), runs=1, max_hops=25, brisk=True)
    if rng.random() < 0.4:
        return replace(drawn, steps=tuple(map(_invoked, drawn.steps)), invocations=rng.choice([1, 2, 3]))
    return drawn


def _invoked(step: Drawn) -> Drawn:
    """The step where some machines are functions: what hangs does until its invocation ends, the rest is short."""
    timeout = 300.0 if step.hangs else step.timeout
    return replace(step, seconds=min(step.seconds, LONGEST_INVOKED), timeout=timeout)


def run(case: Case) -> None:
    """Raises `Violation` if anything promised does not hold. Leaves what happened on the case."""
    on_queue = INBOX if case.triggered else None
    workload = build(case.steps, on_queue=on_queue)
    apps = [workload.app]
    if case.deploys:
        later = build((*case.steps, Drawn("added")), on_queue=on_queue)  # a newer version of the same workflow
        later.world.raised, later.world.hung = workload.world.raised, workload.world.hung
        apps.append(later.app)
    simulation = Simulation(
        apps,
        case.seed,
        plan=case.plan,
        rates=case.rates,
        machines=case.machines,
        invocations=case.invocations,
        max_receives=case.max_receives,
        max_hops=case.max_hops,
        known_deaths=case.known_deaths,
    )
    try:
        with patch.object(publish, "GROUP", 2):  # so that three waiters take more than one message
            ended = simulation.run(scenario(case, simulation, workload))
        for run_id, value in ended.values.items():
            check_end(simulation, workload, run_id, value, may_be_cancelled=run_id in ended.cancelled)
        items = simulation.store.items.items()
        keyed = {key.pk.removeprefix("run#") for key, item in items if key.sk == RUN and "key" in item}
        if more := keyed - set(simulation.runs):  # a retry has no key
            raise Violation(f"6: runs that nobody asked for: {sorted(more)}")
    finally:
        case.trace = simulation.gate.trace
        case.calls = simulation.gate.calls
        if isinstance(simulation.gate.plan, RandomPlan):
            case.injected = {call.number: fault for call, fault in simulation.gate.plan.injected}
        case.seen.update(f"fault: {fault}" for fault in case.injected.values())
        case.seen.update({f"message: {kind.__name__}": n for kind, n in simulation.queues[0].sent.items()})
        case.seen.update(simulation.invariants.changes)
        case.seen["messages of the dead"] = len(simulation.gate.orphans)
        case.seen.update(f"event: {name}" for name in EVENTS if getattr(case, name))


@dataclass
class Scenario:
    """The runs of a case, by id."""

    values: dict[str, int] = field(default_factory=dict[str, int])
    cancelled: set[str] = field(default_factory=set[str])


async def scenario(case: Case, simulation: Simulation, workload: Workload) -> Scenario:
    """Starts the case's runs, and does to them what the case says."""
    rng = random.Random(f"scenario {case.seed}")
    done = Scenario()
    awaited = [drawn for drawn in case.steps if drawn.awaits]
    events = [asyncio.ensure_future(_published(simulation, drawn, rng.random())) for drawn in awaited]
    for value in VALUES[: case.runs]:
        text = json.dumps(value) + " " * (10_000 if case.large_input else 0)
        done.values[await _started(case, simulation, workload, text, f"m{value}")] = value
        await asyncio.sleep(rng.random() * 3)
    first = simulation.runs[0]
    if case.deploys:
        await asyncio.sleep(rng.random() * 30)
        simulation.deploy(graceful=rng.random() < 0.5)
    if case.purges:
        if rng.random() < 0.5:
            simulation.outage("query_index", rng.random() * 3000)
        await asyncio.sleep(rng.random() * 5)
        simulation.purge()
    if case.reaps:
        for _ in range(3):
            await asyncio.sleep(rng.random() * 20)
            await simulation.reap()
    if case.cancels:
        await asyncio.sleep(0.0 if case.brisk else rng.random() * 20)
        done.cancelled.add(first)
        await simulation.cancel(first)
    await asyncio.gather(*events)
    await asyncio.gather(*(_published_for(simulation, drawn) for drawn in awaited))
    if case.retries:
        await simulation.ended(first)
        again = await simulation.retry(first)
        if again is not None:
            done.values[again] = done.values[first]
    await asyncio.gather(*(_published_for(simulation, drawn) for drawn in awaited))
    return done


async def _published(simulation: Simulation, drawn: Drawn, chance: float) -> None:
    """Its event comes before, during or after it waits; from somebody who repeats it, or dies and never does."""
    rng = random.Random(chance)
    for number in range(rng.choice([0, 1, 2])):
        await asyncio.sleep(rng.random() * rng.choice([1, 30]))
        id = rng.choice([None, f"{drawn.name}{number}"])
        new = NewEvent(EventAddress(drawn.name, KEY), drawn.payload, id)
        await simulation.publish(new, once=rng.random() < 0.7)


async def _published_for(simulation: Simulation, drawn: Drawn) -> None:
    """An event that every run hears of: the one that was published, if it was after they began."""
    created = max(simulation.records(run)[0].since for run in simulation.runs if run)
    partition = EventAddress(drawn.name, KEY).partition
    heard = [key for key in simulation.invariants.published if key.pk == partition and key.sk > event_sort(created, "")]
    if not heard:
        await simulation.publish(NewEvent(EventAddress(drawn.name, KEY), drawn.payload, f"{drawn.name}!"))


async def _started(case: Case, simulation: Simulation, workload: Workload, text: str, id: str) -> str:
    if not case.triggered:
        return await simulation.start(workload.app, NewRun(text), workload.name)
    run_id = await simulation.send(INBOX, text, workload.name, id=id)
    await simulation.send_again(INBOX, text, id=id)
    return run_id


def check_end(
    simulation: Simulation,
    workload: Workload,
    run_id: str,
    value: int,
    *,
    may_be_cancelled: bool = False,
    fixed: bool = False,
) -> bool:
    """Holds what is stored of an ended run, and what its bodies did, to the oracle; whether it needed no excuse."""
    record, steps = simulation.records(run_id)
    expected = workload.expected(value, fixed=fixed)
    excused = {drawn.name for drawn in workload.steps if drawn.name in steps and _excused(drawn, steps[drawn.name])}
    cancelled = may_be_cancelled and record.status is RunStatus.CANCELLED
    end = RunStatus.FAILED if excused else expected.status  # Excused or not, a step that failed fails its run.
    if not cancelled and record.status is not end:
        raise Violation(f"6: run {run_id} ended {record.status}, expected {end}")
    origin = record.origin or run_id
    chain = _chain(simulation, origin)
    for drawn in workload.steps:
        step = steps.get(drawn.name)
        completed = step is not None and step.status is StepStatus.COMPLETED
        effect = simulation.store.items.get(data_key("effects", f"{origin}/{drawn.name}")) or {}
        once = any(
            simulation.store.items.get(step_key(run, StepPath(drawn.name)), {}).get("status") == StepStatus.COMPLETED
            for run in chain
        )
        if drawn.delivery is Delivery.EXACTLY_ONCE and effect.get("times", 0) != int(once):
            raise Violation(f"5: the effect of {drawn.name} in {run_id} was applied {effect.get('times', 0)} times")
        if completed and not drawn.waits and not any(simulation.invariants.bodies[run, drawn.name] for run in chain):
            raise Violation(f"5: {drawn.name} of {run_id} completed, and its body never began")
        if drawn.name not in expected.steps:
            continue
        status, output = expected.steps[drawn.name]
        judged = step is not None and step.status.terminal and step.status is not StepStatus.CANCELLED
        if judged and step is not None and step.status is not status and drawn.name not in excused:
            raise Violation(f"6: {drawn.name} of {run_id} is {step.status}, expected {status}")
        if completed and step is not None and step.output is not None:
            ref = step.output.ref
            text = step.output.text if ref is None else simulation.store.blobs[ref].decode()
            told = json.loads(text or "null")
            if not _right(drawn, told, output):
                raise Violation(f"6: {drawn.name} of {run_id} has the wrong output")
        if record.status is RunStatus.COMPLETED and not (step is not None and step.status.terminal):
            raise Violation(f"6: {run_id} is COMPLETED, and {drawn.name} has not ended")
    return not excused


def _right(drawn: Drawn, told: Any, output: int | None) -> bool:
    """Whether the step's output is what it should be."""
    if drawn.awaits:
        return told == output or (told is None and drawn.limit is not None)
    return datetime.fromisoformat(told) >= LONG_AGO if drawn.waits else bool(told["n"] == output)


def _excused(drawn: Drawn, step: StepRecord) -> bool:
    """Whether faults entitled the step to the error it ended with: a payload that is gone, or a worker too many."""
    if step.error is None or step.status is not StepStatus.FAILED:
        return False
    if step.error.type in GAVE_UP:
        return drawn.delivery is Delivery.AT_MOST_ONCE or step.takeovers >= drawn.takeovers
    return step.error.type == "CorruptRecord"


def _chain(simulation: Simulation, origin: str) -> list[str]:
    """The run and its retries: they share their steps' idempotency keys."""
    items = simulation.store.items.items()
    retries = [key.pk.removeprefix("run#") for key, item in items if key.sk == RUN and item.get("origin") == origin]
    return [origin, *retries]


def shrink(case: Case, violation: Violation) -> Case:
    """A smaller case that fails the same invariant: fewer steps, fewer runs, fewer faults."""
    best = _but(case, plan=FixedPlan(dict(case.injected)))
    if not _fails(best, violation):
        return case
    ends = time.monotonic() + MAX_SECONDS
    progress = True
    while progress:
        best, progress = _with_fewer_faults(best, violation, ends), False
        for smaller in _smaller(best):
            if time.monotonic() > ends:
                return best
            if _fails(smaller, violation):
                best, progress = smaller, True
                break
    return best


def _with_fewer_faults(case: Case, violation: Violation, ends: float) -> Case:
    assert isinstance(case.plan, FixedPlan)

    def fails(faults: Mapping[int, Fault]) -> bool:
        return _fails(_but(case, plan=FixedPlan(faults)), violation)

    fewest = _but(case, plan=FixedPlan(fewer_faults(case.plan.faults, fails, ends=ends)))
    assert _fails(fewest, violation), "what shrinking found is not what it saw"
    return fewest


def _fails(case: Case, as_before: Violation) -> bool:
    try:
        run(case)
    except Violation as violation:
        return violation.invariant == as_before.invariant
    except Exception:  # noqa: BLE001 - a smaller drawing may not compile
        return False
    return False


def _smaller(case: Case) -> Sequence[Case]:
    found = [_but(case, steps=case.steps[:i] + case.steps[i + 1 :]) for i in reversed(range(len(case.steps)))]
    if case.runs > 1:
        found.append(_but(case, runs=case.runs - 1))
    found += [_but(case, **{name: False}) for name in EVENTS if getattr(case, name)]
    return found


def _but(case: Case, **changes: object) -> Case:
    return replace(case, **changes, injected={}, trace=[], seen=Counter())  # type: ignore[arg-type]
