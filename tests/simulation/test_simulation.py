"""Random workflows under random faults: a bounded run of what `make simulate` does by the ten thousand."""

from __future__ import annotations

import inspect
import json
import os
import random
import subprocess
import sys
import time
import typing
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from detent import App, RunStatus, Workflow
from detent.testing.simulation.faults import Fault, FixedPlan
from detent.testing.simulation.invariants import Violation
from detent_state_machine.compiler import Scope
from detent_state_machine.messages import Message
from detent_state_machine.retry import Retry
from detent_state_machine.run_transitions import RunTransition
from detent_state_machine.status import Delivery
from detent_state_machine.transitions import Change

from tests.simulation.__main__ import report
from tests.simulation.check import EVENTS, case, run, shrink
from tests.simulation.workloads import GENERATORS, Drawn, draw, options_of

CHUNK = 50
CHUNKS = range(1, 501, CHUNK)
"""First seeds of the bounded run. `make simulate SEEDS=10000 FIRST_SEED=501` goes on from there."""


@dataclass(frozen=True)
class Chunk:
    """What was seen in some seeds, and the smallest form of the first one that failed, if one did."""

    seen: Counter[str]
    failure: str


def simulate_chunk(first: int) -> Chunk:
    seen: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        simulated = case(seed)
        try:
            run(simulated)
        except Violation as violation:
            return Chunk(seen, report(seed, violation))
        seen.update(simulated.seen)
    return Chunk(seen, "")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Chunk]:
    """A chunk of seeds, simulated once, by whichever of several test processes comes to it first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "simulated"
    folder.mkdir(exist_ok=True)

    @cache
    def of(first: int) -> Chunk:
        done, taken = folder / f"{first}.json", folder / f"{first}.taken"
        try:
            taken.touch(exist_ok=False)
        except FileExistsError:
            ends = time.monotonic() + 300
            while not done.exists() and time.monotonic() < ends:
                time.sleep(0.1)
            found = json.loads(done.read_text())
            return Chunk(Counter(found["seen"]), found["failure"])
        chunk = simulate_chunk(first)
        half = folder / f"{first}.half"
        half.write_text(json.dumps({"seen": chunk.seen, "failure": chunk.failure}))
        half.rename(done)
        return chunk

    return of


@pytest.mark.parametrize("first", CHUNKS)
def test_no_seed_loses_a_run_or_does_anything_twice(first: int, simulated: Callable[[int], Chunk]) -> None:
    chunk = simulated(first)
    if chunk.failure:
        pytest.fail(chunk.failure, pytrace=False)
    assert chunk.seen["run: finish"] > 0


@pytest.fixture(scope="session")
def seen(simulated: Callable[[int], Chunk]) -> Counter[str]:
    return sum((simulated(first).seen for first in CHUNKS), Counter[str]())


# ---- nothing is left out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", Change)
def test_every_transition_of_a_step_run_is_made_in_some_seed(change: Change, seen: Counter[str]) -> None:
    assert seen[f"step run: {change}"] > 0


@pytest.mark.parametrize("change", RunTransition)
def test_every_transition_of_a_run_is_made_in_some_seed(change: RunTransition, seen: Counter[str]) -> None:
    assert seen[f"run: {change}"] > 0


@pytest.mark.parametrize("kind", typing.get_args(Message), ids=lambda kind: str(kind.__name__))
def test_every_kind_of_message_is_sent_in_some_seed(kind: type, seen: Counter[str]) -> None:
    assert seen[f"message: {kind.__name__}"] > 0


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_happens_in_some_seed(fault: Fault, seen: Counter[str]) -> None:
    assert seen[f"fault: {fault}"] > 0


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_happens_in_some_seed(event: str, seen: Counter[str]) -> None:
    assert seen[f"event: {event}"] > 0


@cache
def drawings() -> tuple[Drawn, ...]:
    """Every step of the bounded run."""
    return tuple(step for first in CHUNKS for seed in range(first, first + CHUNK) for step in case(seed).steps)


@pytest.mark.parametrize("delivery", Delivery)
def test_every_delivery_is_drawn(delivery: Delivery) -> None:
    assert any(step.delivery is delivery for step in drawings())


@pytest.mark.parametrize("scope", typing.get_args(Scope))
def test_every_scope_is_drawn(scope: Scope) -> None:
    assert any(step.scope == scope for step in drawings())


OPTIONS = [
    name
    for name, parameter in inspect.signature(Workflow._add).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_a_step_is_drawn_with_different_values(option: str) -> None:
    """A new option of `Workflow.step` fails here until a generator draws it."""
    app = App("options", url="memory://")
    flow = app.workflow("options", input=int)
    values: set[str] = set()
    for seed in range(1, 101):
        made = {step.name: flow.step(name=f"{seed} {step.name}")(lambda n: n) for step in case(seed).steps}
        values |= {repr(options_of(step, made, flow.input).get(option)) for step in case(seed).steps}
    assert len(values) > 1


@pytest.mark.parametrize("option", Retry.model_fields)
def test_every_option_of_a_retry_policy_is_drawn_with_different_values(option: str) -> None:
    assert len({getattr(step.retry, option) for step in drawings()}) > 1


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: str(generator.__name__))
def test_every_generator_changes_what_it_is_named_for(generator: typing.Any) -> None:
    rng = random.Random(1)
    blank = Drawn("b", parents=("a",))
    changed = [generator(rng, blank) != blank for _ in range(20)]
    assert any(changed) is (generator.__name__ != "at_least_once")


# ---- a seed is all there is to know -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 14, 159])
def test_the_same_seed_does_exactly_the_same_twice(seed: int) -> None:
    first, second = case(seed), case(seed)
    run(first)
    run(second)
    assert first.trace == second.trace
    assert first.injected == second.injected


def test_a_seed_does_the_same_in_another_process_whatever_its_hashes() -> None:
    """Otherwise nobody could replay a seed that failed elsewhere."""
    drawn = {seed: case(seed) for seed in range(1, 200)}
    seed = next(seed for seed, one in drawn.items() if one.machines == 3 and one.deploys and one.invocations > 1)
    here = case(seed)
    run(here)
    code = f"from tests.simulation.check import case, run; c = case({seed}); run(c); print('\\n'.join(c.trace))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", code]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert there.stdout.splitlines() == "\n".join(here.trace).splitlines()


def test_the_faults_of_a_seed_replay_it_when_given_by_number() -> None:
    """What shrinking stands on: leave out a fault, and all before it is as it was."""
    random_faults = case(14)
    run(random_faults)
    again = case(14)
    again.plan = FixedPlan(random_faults.injected)
    run(again)
    assert again.trace == random_faults.trace
    assert len(random_faults.injected) > 0


def test_drawing_is_by_the_seed_alone() -> None:
    assert draw(random.Random("a")) == draw(random.Random("a"))
    assert draw(random.Random("a")) != draw(random.Random("b"))


def test_a_failing_seed_is_shrunk_and_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken oracle stands for a broken engine: every run that completes is called wrong."""
    from tests.simulation import check

    real = check.check_end

    def broken(*args: typing.Any, **named: typing.Any) -> None:
        real(*args, **named)
        record, _ = args[0].records(args[2])
        if record.status is RunStatus.COMPLETED:
            raise Violation(f"6: run {record.run_id} completed")

    monkeypatch.setattr(check, "check_end", broken)
    seed = next(seed for seed in range(1, 50) if len(case(seed).steps) > 4 and fails(seed))
    with pytest.raises(Violation) as caught:
        run(case(seed))
    smallest = shrink(case(seed), caught.value)
    assert len(smallest.steps) == 1
    assert smallest.runs == 1
    assert smallest.plan == FixedPlan({})
    text = report(seed, caught.value)
    assert f"python -m tests.simulation --first {seed} --seeds 1 --show" in text
    assert "6: run" in text


def fails(seed: int) -> bool:
    try:
        run(case(seed))
    except Violation:
        return True
    return False
