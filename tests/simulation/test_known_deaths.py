"""Workers whose death becomes known, as on SQLite: at once or late, never early. Every invariant holds as without."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.simulation.check import case, run

SEEDS = 40


@pytest.mark.parametrize("first", [1, 1 + SEEDS])
def test_invariants_hold_when_a_death_is_known_before_the_lease_runs_out(first: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + SEEDS):
        # Workers alone: of a function that dies nobody knows.
        simulated = replace(case(seed), known_deaths=True, invocations=0)
        run(simulated)
        seen.update(simulated.seen)
    assert seen["messages of the dead"] > 50
    assert seen["step run: take over"] > 10
