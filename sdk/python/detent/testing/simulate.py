"""Deterministic simulation: your workflows on the real engine, several workers, one seed, and every fault there is.

    report = simulate(app, orders, Order(id="A-17"), seeds=range(100))

For each seed, runs of the workflow are started and driven by workers that crash, pause, lose replies, see messages
twice, late and out of order. After every event the invariants are checked; once the faults stop, every run must end.
A seed that fails is named in the error, and does exactly the same again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from detent_infra.lifecycle import NewRun
from detent_state_machine.status import RunStatus

from detent.app import App
from detent.testing.faults import RandomPlan, Rates
from detent.testing.invariants import Violation
from detent.testing.simulation import Simulation
from detent.workflow import Workflow


@dataclass(frozen=True)
class SimulationReport:
    """What `simulate` saw. Printed, it is a small table."""

    seeds: int
    runs: Counter[RunStatus]
    """How many runs ended how."""
    bodies: Counter[str]
    """How often each step's body began, over all runs."""
    most: Mapping[str, int]
    """How often each step's body began in the run where it began most often: what its effects must bear."""
    faults: Counter[str]

    def __str__(self) -> str:
        ends = ", ".join(f"{count:,} {status.value}" for status, count in self.runs.most_common())
        width = max(map(len, self.bodies), default=0)
        lines = [f"{self.seeds:,} seeds, {self.faults.total():,} faults; runs: {ends}"]
        for step, count in sorted(self.bodies.items()):
            lines.append(f"{step:<{width}}  began {count:,} times, at most {self.most[step]} in one run")
        return "\n".join(lines)


def simulate(
    app: App,
    workflow: Workflow[Any, Any],
    value: Any,
    *,
    seeds: Iterable[int] = range(100),
    runs: int = 3,
    rates: Rates | None = None,
) -> SimulationReport:
    """Runs the workflow under faults, once per seed, `runs` runs at a time.

    Bodies that are synchronous run on the spot; time is virtual. Raises `Violation`, which names the seed and shows
    the trace, if an invariant of detent does not hold, or a run does not end. Faults end after 200 simulated seconds.
    """
    text = workflow.input_json.write(value, "The simulated input")
    statuses: Counter[RunStatus] = Counter()
    bodies: Counter[str] = Counter()
    most: dict[str, int] = {}
    faults: Counter[str] = Counter()
    count = 0
    for seed in seeds:
        count += 1
        simulation = Simulation([app], seed, rates=rates or Rates())
        try:
            simulation.run(_start(simulation, app, NewRun(text), workflow.name, runs))
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}\n" + "\n".join(simulation.gate.trace[-200:])) from None
        statuses.update(simulation.records(run)[0].status for run in simulation.runs)
        for (_, step), times in simulation.invariants.bodies.items():
            bodies[step] += times
            most[step] = max(most.get(step, 0), times)
        if isinstance(simulation.gate.plan, RandomPlan):
            faults.update(fault.value for _, fault in simulation.gate.plan.injected)
    return SimulationReport(count, statuses, bodies, most, faults)


async def _start(simulation: Simulation, app: App, new: NewRun, workflow: str, runs: int) -> None:
    for _ in range(runs):
        await simulation.start(app, new, workflow)
