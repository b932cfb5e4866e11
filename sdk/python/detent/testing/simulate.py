"""Deterministic simulation: your workflows on the real engine, several workers, one seed, and every fault there is.

    report = simulate(app, orders, Order(id="A-17"), seeds=range(100))

For each seed, runs of the workflow are started and driven by workers that crash, pause, lose replies, see messages
twice, late and out of order. After every event the invariants are checked; once the faults stop, every run must end.
A seed that fails is named in the error, and does exactly the same again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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
    """What `simulate` saw."""

    seeds: int
    runs: Counter[RunStatus]
    bodies: Counter[str]
    """How often each step's body began, over all runs."""
    faults: Counter[str]


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
    statuses: Counter[RunStatus] = Counter()
    bodies: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    count = 0
    for seed in seeds:
        count += 1
        simulation = Simulation([app], seed, rates=rates or Rates())
        text = workflow.input_json.write(value, "The simulated input")

        async def scenario(simulation: Simulation = simulation, text: str = text) -> None:
            for _ in range(runs):
                await simulation.start(app, NewRun(text), workflow.name)

        try:
            simulation.run(scenario())
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}\n" + "\n".join(simulation.gate.trace[-200:])) from None
        statuses.update(simulation.records(run)[0].status for run in simulation.runs)
        bodies.update({step: n for (_, step), n in simulation.invariants.bodies.items()})
        if isinstance(simulation.gate.plan, RandomPlan):
            faults.update(fault.value for _, fault in simulation.gate.plan.injected)
    return SimulationReport(count, statuses, bodies, faults)
