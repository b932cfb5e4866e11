"""Deterministic simulation: your workflows on the real engine, several workers, one seed, and every fault there is.

    report = simulate(app, orders, Order(id="A-17"), seeds=range(100))

For each seed, runs of the workflow are started and driven by workers that crash, pause, lose replies, see messages
twice, late and out of order. After every event the invariants are checked; once the faults stop, every run must end.
A seed that fails does exactly the same again: the error says how to call it, and which faults it takes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from detent_infra.runs.start import NewRun
from detent_state_machine.status import RunStatus

from detent.app import App
from detent.runnable import Runnable
from detent.testing.simulation.invariants import Violation
from detent.testing.simulation.plans import Fault, FixedPlan, RandomPlan, Rates
from detent.testing.simulation.shrinking import MAX_SECONDS, fewer_faults
from detent.testing.simulation.world import Simulation

TRACE = 200
"""Lines of a trace that an error shows, the last ones."""
LONGEST_VALUE = 200
"""Characters of an input that an error spells out."""


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
    workflow: Runnable[Any, Any],
    value: Any,
    *,
    seeds: Iterable[int] = range(100),
    runs: int = 3,
    rates: Rates | None = None,
) -> SimulationReport:
    """Runs the workflow under faults, once per seed, `runs` runs at a time.

    Bodies that are synchronous run on the spot; time is virtual. Faults end after 200 simulated seconds. Raises
    `Violation` if an invariant of detent does not hold, or a run does not end: it says how to call this seed alone,
    and shows the trace under the fewest faults that it takes. To find those, bodies run again, for a minute at most.
    """
    scene = _Scene(app, workflow, value, workflow.write_input(value, "The simulated input"), runs, rates)
    statuses: Counter[RunStatus] = Counter()
    bodies: Counter[str] = Counter()
    most: dict[str, int] = {}
    faults: Counter[str] = Counter()
    count = 0
    for seed in seeds:
        count += 1
        simulation = scene.of(seed)
        try:
            scene.play(simulation)
        except Violation as violation:
            raise Violation(scene.explained(simulation, violation)) from None
        statuses.update(simulation.records(run)[0].status for run in simulation.runs)
        for (_, step), times in simulation.invariants.bodies.items():
            bodies[step] += times
            most[step] = max(most.get(step, 0), times)
        faults.update(fault.value for fault in _injected(simulation).values())
    return SimulationReport(count, statuses, bodies, most, faults)


@dataclass(frozen=True)
class _Scene:
    """What is simulated, whatever the seed."""

    app: App
    workflow: Runnable[Any, Any]
    value: Any
    text: str
    """The value as JSON."""
    runs: int
    rates: Rates | None

    def of(self, seed: int, faults: Mapping[int, Fault] | None = None) -> Simulation:
        """A simulation that has not begun: of these faults, or of the seed's."""
        plan = None if faults is None else FixedPlan(faults)
        return Simulation([self.app], seed, plan=plan, rates=self.rates or Rates())

    def play(self, simulation: Simulation) -> None:
        """Raises `Violation`."""
        simulation.run(self._start(simulation))

    async def _start(self, simulation: Simulation) -> None:
        for _ in range(self.runs):
            await simulation.start(self.app, NewRun(self.text), self.workflow.name)

    def explained(self, simulation: Simulation, violation: Violation) -> str:
        """What is wrong, how to see it again, and what it takes."""
        seed, all_faults, trace = simulation.seed, _injected(simulation), simulation.gate.trace

        def fails(faults: Mapping[int, Fault]) -> bool:
            nonlocal trace
            again = self.of(seed, faults)
            try:
                self.play(again)
            except Violation as other:
                if other.invariant != violation.invariant:
                    return False
                trace = again.gate.trace
                return True
            return False

        lines = [f"seed {seed}: {violation}", f"replay: {self._call(seed)}"]
        if fails(all_faults):
            fewest = fewer_faults(all_faults, fails, ends=time.monotonic() + MAX_SECONDS)
            lines.append(f"The fewest faults of its {len(all_faults)} that do it: {len(fewest)}")
            lines += [line for line in trace if line.endswith("]") and "  [" in line]
        else:
            count = len(all_faults)
            lines.append(f"With the same {count} faults it does not fail again: its bodies remember something.")
        return "\n".join([*lines, "The end of its trace:", *trace[-TRACE:]])

    def _call(self, seed: int) -> str:
        """The call that replays the seed, as far as arguments can be spelled."""
        value = repr(self.value)
        given = [
            "app",
            f"app.workflows[{self.workflow.name!r}]",
            value if len(value) <= LONGEST_VALUE else "...",
            f"seeds=[{seed}]",
            f"runs={self.runs}",
        ]
        if self.rates is not None:
            given.append(f"rates={_spelled(self.rates)}")
        return f"simulate({', '.join(given)})"


def _spelled(rates: Rates) -> str:
    """The rates without those that are as always."""
    usual = Rates()
    unusual = [item.name for item in fields(rates) if getattr(rates, item.name) != getattr(usual, item.name)]
    return f"Rates({', '.join(f'{name}={getattr(rates, name)!r}' for name in unusual)})"


def _injected(simulation: Simulation) -> dict[int, Fault]:
    """The faults that happened, by number of their call."""
    plan = simulation.gate.plan
    return {call.number: fault for call, fault in plan.injected} if isinstance(plan, RandomPlan) else {}
