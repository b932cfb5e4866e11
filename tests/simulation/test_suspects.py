"""A body that kills its process fails nobody else, though messages that were received together come back together."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest
from detent import App, RunStatus
from detent.testing.simulation.plans import FixedPlan
from detent.testing.simulation.world import Simulation
from detent_infra.runs.start import NewRun

MOST_DEATHS = 2
"""Take-overs of a step run that did nothing: from the next one on it is driven beside no other suspect."""


@dataclass(frozen=True)
class Neighbours:
    """One body that kills its process, after so many seconds, beside innocent ones that take so long."""

    innocent: int
    seconds: float
    dies_after: float
    workers: int
    functions: int
    known_deaths: bool


def drawn(seed: int) -> Neighbours:
    rng = random.Random(f"neighbours {seed}")
    functions = rng.choice([0, 0, 1, 2])
    return Neighbours(
        innocent=rng.randint(1, 12),
        seconds=rng.choice([0.0, 0.5, 3.0, 20.0]),
        dies_after=rng.choice([0.0, 0.5, 2.0, 12.0]),
        workers=0 if functions else rng.choice([1, 2, 3]),
        functions=functions,
        known_deaths=not functions and rng.random() < 0.5,
    )


def two_workflows(seconds: float) -> App:
    app = App("t", url="memory://")
    bad = app.workflow("bad", input=int)
    good = app.workflow("good", input=int)

    @bad.step
    def dies(n: int) -> int:
        raise AssertionError("its process is dead by now")

    @good.step
    async def fine(n: int) -> int:
        await asyncio.sleep(seconds)
        return n

    return app


def simulated(case: Neighbours, seed: int) -> Simulation:
    app = two_workflows(case.seconds)
    simulation = Simulation(
        [app],
        seed,
        plan=FixedPlan({}),
        machines=case.workers,
        invocations=case.functions,
        known_deaths=case.known_deaths,
        deadly={"dies": case.dies_after},
    )

    async def scenario() -> None:
        names = ["bad", *["good"] * case.innocent]
        await asyncio.gather(*(simulation.start(app, NewRun("1", key=f"{n}"), name) for n, name in enumerate(names)))

    simulation.run(scenario())
    return simulation


@pytest.mark.parametrize("seed", range(24))
def test_only_the_culprit_reaches_the_cap(seed: int) -> None:
    simulation = simulated(drawn(seed), seed)
    statuses = {run: simulation.records(run)[0].status for run in simulation.runs}
    culprit, *others = (next(iter(simulation.records(run)[1].values())) for run in simulation.runs)
    assert culprit.error is not None
    assert (culprit.error.type, culprit.takeovers) == ("Interrupted", 5)
    assert [*statuses.values()] == [RunStatus.FAILED, *[RunStatus.COMPLETED] * len(others)]
    assert max(record.takeovers for record in others) <= MOST_DEATHS
