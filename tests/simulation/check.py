"""Runs a drawn workload under a plan of faults, and holds its end to the oracle."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from detent import RunStatus, StepStatus
from detent.testing.faults import Fault, FixedPlan, Plan, RandomPlan, Rates
from detent.testing.invariants import Violation
from detent.testing.simulate import Simulation
from detent_infra.lifecycle import NewRun
from detent_infra.payloads import load
from detent_state_machine.keys import data_key
from detent_state_machine.status import Delivery

from tests.simulation.workloads import Drawn, Workload, build, draw

VALUES = (0, 7, 200)
EXCUSES = ("Interrupted", "DeadLetter")
"""Errors that faults may give a step: at_most_once after a crash, a dead letter after endless refusals."""


@dataclass
class Case:
    """One seed: what is run, under which faults, and what happens in the middle."""

    seed: int
    steps: tuple[Drawn, ...]
    runs: int = 2
    rates: Rates = Rates()
    plan: Plan | None = None
    machines: int = 3
    cancels: bool = False
    deploys: bool = False
    reaps: bool = False
    injected: dict[int, Fault] = field(default_factory=dict[int, Fault])
    trace: list[str] = field(default_factory=list[str])
    calls: int = 0


def case(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(f"case {seed}")
    return Case(
        seed=seed,
        steps=draw(rng),
        runs=rng.choice([1, 2, 3]),
        rates=Rates().scaled(rng.choice([0.3, 1.0, 1.0, 3.0])),
        machines=rng.choice([1, 2, 3]),
        cancels=rng.random() < 0.2,
        deploys=rng.random() < 0.2,
        reaps=rng.random() < 0.2,
    )


def run(case: Case) -> None:
    """Raises `Violation` if anything promised does not hold. Leaves trace and faults on the case."""
    workload = build(case.steps)
    later = build((*case.steps, Drawn("added")))  # a newer version of the same workflow
    apps = [workload.app, later.app] if case.deploys else [workload.app]
    if case.deploys:
        later.world.raised, later.world.hung = workload.world.raised, workload.world.hung
    simulation = Simulation(apps, case.seed, plan=case.plan, rates=case.rates, machines=case.machines)
    rng = random.Random(f"scenario {case.seed}")
    cancelled: set[str] = set()

    async def scenario() -> None:
        for number in range(case.runs):
            await simulation.start(workload.app, NewRun(json.dumps(VALUES[number])), workload.name)
            await asyncio.sleep(rng.random() * 3)
        if case.deploys:
            await asyncio.sleep(rng.random() * 30)
            simulation.deploy()
        if case.reaps:
            for _ in range(3):
                await asyncio.sleep(rng.random() * 20)
                await simulation.reap()
        if case.cancels:
            await asyncio.sleep(rng.random() * 20)
            cancelled.add(simulation.runs[0])
            await simulation.cancel(simulation.runs[0])

    try:
        simulation.run(scenario())
        for number, run_id in enumerate(simulation.runs):
            _check_end(simulation, workload, run_id, VALUES[number], may_be_cancelled=run_id in cancelled)
    finally:
        case.trace = simulation.gate.trace
        case.calls = simulation.gate.calls
        if isinstance(simulation.gate.plan, RandomPlan):
            case.injected = {call.number: fault for call, fault in simulation.gate.plan.injected}


def _check_end(simulation: Simulation, workload: Workload, run_id: str, value: int, *, may_be_cancelled: bool) -> None:
    record, steps = simulation.records(run_id)
    expected = workload.expected(value)
    excused = any(step.error is not None and step.error.type in EXCUSES for step in steps.values())
    cancelled = may_be_cancelled and record.status is RunStatus.CANCELLED
    if not excused and not cancelled and record.status is not expected.status:
        raise Violation(f"6: run {run_id} ended {record.status}, expected {expected.status}")
    for drawn in workload.steps:
        step = steps.get(drawn.name)
        key = data_key("effects", f"{run_id}/{drawn.name}")
        effect = (simulation.store.items.get(key) or {}).get("times", 0)
        completed = step is not None and step.status is StepStatus.COMPLETED
        if drawn.delivery is Delivery.EXACTLY_ONCE and effect != int(completed):
            raise Violation(f"5: the effect of {drawn.name} in {run_id} was applied {effect} times")
        if completed and simulation.invariants.bodies[run_id, drawn.name] < 1:
            raise Violation(f"5: {drawn.name} of {run_id} completed, and its body never began")
        if drawn.scope != "main":
            continue
        status, output = expected.steps[drawn.name]
        judged = step is not None and step.status.terminal and step.status is not StepStatus.CANCELLED
        if judged and step is not None and step.status is not status and not excused:
            raise Violation(f"6: {drawn.name} of {run_id} is {step.status}, expected {status}")
        if completed and step is not None and step.output is not None:
            text = asyncio.run(load(simulation.backend.blobs, step.output))
            if json.loads(text)["n"] != output and not excused:
                raise Violation(f"6: {drawn.name} of {run_id} has the wrong output")
        if record.status is RunStatus.COMPLETED and not (step is not None and step.status.terminal):
            raise Violation(f"6: {run_id} is COMPLETED, and {drawn.name} has not ended")


def shrink(case: Case, message: str) -> Case:
    """A smaller case that fails the same invariant: fewer steps, fewer runs, fewer faults."""
    kind = message.split(":")[0]
    best = _but(case, plan=FixedPlan(dict(case.injected)))
    if not _fails(best, kind):
        return case
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(best):
            if _fails(smaller, kind):
                best, progress = smaller, True
                break
    return best


def _fails(case: Case, kind: str) -> bool:
    try:
        run(case)
    except Violation as violation:
        return str(violation).split(":")[0] == kind
    except Exception:  # noqa: BLE001 - a smaller drawing may not compile
        return False
    return False


def _smaller(case: Case) -> Sequence[Case]:
    faults = case.plan.faults if isinstance(case.plan, FixedPlan) else {}
    fewer = [{n: fault for n, fault in faults.items() if n != number} for number in faults]
    found = [_but(case, plan=FixedPlan(left)) for left in fewer]
    found += [_but(case, steps=case.steps[:i] + case.steps[i + 1 :]) for i in reversed(range(len(case.steps)))]
    if case.runs > 1:
        found.append(_but(case, runs=case.runs - 1))
    found += [_but(case, **{name: False}) for name in ("cancels", "deploys", "reaps") if getattr(case, name)]
    return found


def _but(case: Case, **changes: object) -> Case:
    return replace(case, **changes, injected={}, trace=[])  # type: ignore[arg-type]
