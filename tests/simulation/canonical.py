"""Small workflows that, between them, have every shape of the kernel: what crash points are enumerated on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from detent import Retry
from detent.testing.simulation.world import Simulation
from detent_infra.runs.start import NewRun
from detent_state_machine.status import Delivery

from tests.simulation.workloads import FOREVER, Drawn, Workload

VALUE = 7
AMO, EO = Delivery.AT_MOST_ONCE, Delivery.EXACTLY_ONCE


@dataclass
class Done:
    """The runs a script started. A cancelled one may have ended before; a fixed one is held to its fixed oracle."""

    runs: list[str] = field(default_factory=list[str])
    cancelled: set[str] = field(default_factory=set[str])
    fixed: set[str] = field(default_factory=set[str])


Script: TypeAlias = Callable[[Simulation, Workload], Coroutine[Any, Any, Done]]


async def once(simulation: Simulation, workload: Workload) -> Done:
    """One run."""
    return Done([await simulation.start(workload.app, NewRun(json.dumps(VALUE)), workload.name)])


async def large(simulation: Simulation, workload: Workload) -> Done:
    """One run whose input is a blob."""
    return Done([await simulation.start(workload.app, NewRun(json.dumps(VALUE) + " " * 10_000), workload.name)])


async def cancelled(simulation: Simulation, workload: Workload) -> Done:
    """One run, cancelled in its third second."""
    done = await once(simulation, workload)
    await asyncio.sleep(2.0)
    await simulation.cancel(done.runs[0])
    done.cancelled.update(done.runs)
    return done


async def one_key_twice(simulation: Simulation, workload: Workload) -> Done:
    """Two clients start a run with one key at the same time, a third one later."""
    new = NewRun(json.dumps(VALUE), key="order-17")
    first, second = await asyncio.gather(
        simulation.start(workload.app, new, workload.name), simulation.start(workload.app, new, workload.name)
    )
    await asyncio.sleep(0.1)
    assert {first, second, await simulation.start(workload.app, new, workload.name)} == {first}
    return Done([first])


async def fixed_and_retried(simulation: Simulation, workload: Workload) -> Done:
    """A run fails, what broke it is fixed, and the run is retried."""
    done = await once(simulation, workload)
    await simulation.ended(done.runs[0])
    workload.world.fixed = True
    again = await simulation.retry(done.runs[0])
    assert again is not None
    done.runs.append(again)
    done.fixed.add(again)
    return done


@dataclass(frozen=True)
class Canonical:
    """A workflow, what is done with it, and whether every pair of faults is tried too."""

    name: str
    steps: tuple[Drawn, ...]
    script: Script = once
    pairs: bool = False
    max_hops: int = 3
    max_delay: float = 900.0


def chain(*names: str, **kinds: Drawn) -> tuple[Drawn, ...]:
    """Steps that follow each other; `kinds` says what is special about one."""
    found: list[Drawn] = []
    for index, name in enumerate(names):
        kind = kinds.get(name, Drawn(name))
        found.append(Drawn(**{**vars(kind), "name": name, "parents": names[max(0, index - 1) : index]}))
    return tuple(found)


LONG = Drawn("", seconds=12.0, timeout=60.0)
ONE_RETRY = Drawn("", errors=1)
FAILS = Drawn("", errors=FOREVER, fatal=True)
FAILS_LATER = Drawn("", errors=FOREVER, retry=Retry(attempts=2, initial=0.5))

SKIPPED = Drawn("", runs_when=100)
SLEEP = (Drawn("a"), Drawn("t", after=("a",), sleeps=5.0), Drawn("b", ("t",)))
TIMED = (Drawn("a"), Drawn("t", after=("a",), sleeps=130.0), Drawn("b", ("t",)))
"""Its sleep is due two ticks after it began, the first of which sends its message."""
UNTIL = (Drawn("t", until="a"), Drawn("u", until="b"), Drawn("c", ("t", "u"), optional=frozenset({"u"})))

CANONICAL = (
    Canonical("one step", (Drawn("a"),), pairs=True),
    Canonical("chain", chain("a", "b", "c", "d"), pairs=True),
    Canonical("chain without inline steps", chain("a", "b", "c"), max_hops=0, pairs=True),
    Canonical("long in the middle", chain("a", "b", "c", b=LONG), pairs=True),
    Canonical("retry", chain("a", "b", "c", b=ONE_RETRY), pairs=True),
    Canonical(
        "diamond",
        (Drawn("a"), Drawn("b", ("a",)), Drawn("c", ("a",), errors=1), Drawn("j", ("b", "c")), Drawn("k", ("j",))),
    ),
    Canonical(
        "deep fork",
        (
            Drawn("a"),
            Drawn("b", ("a",)),
            Drawn("c", ("b",)),
            Drawn("x", ("a",)),
            Drawn("y", ("b",)),
            Drawn("j", ("c", "x", "y")),
        ),
    ),
    Canonical("several sinks", (Drawn("a"), Drawn("b", ("a",)), Drawn("c", ("a",), errors=1)), pairs=True),
    Canonical("several roots", (Drawn("a"), Drawn("b"), Drawn("j", ("a", "b"))), pairs=True),
    Canonical("many roots", (*(Drawn(f"r{n}") for n in range(8)), Drawn("j", tuple(f"r{n}" for n in range(8))))),
    Canonical("at most once", chain("a", "b", "c", b=Drawn("", delivery=AMO)), pairs=True),
    Canonical("exactly once", chain("a", "b", "c", "d", b=Drawn("", delivery=EO, errors=1), c=Drawn("", delivery=EO))),
    Canonical(
        "skip",
        (
            Drawn("a"),
            Drawn("b", ("a",), runs_when=100),
            Drawn("c", ("b",)),
            Drawn("e", ("a",)),
            Drawn("j", ("c", "e"), optional=frozenset({"c"})),
        ),
    ),
    Canonical("fail fast", (Drawn("a"), Drawn("b", ("a",), errors=FOREVER), Drawn("c", ("a",), seconds=2.0))),
    Canonical("handler", (*chain("a", "b", b=FAILS), Drawn("h", scope="on_failure", errors=1)), pairs=True),
    Canonical(
        "handlers in a row, a long step beside the failed one",
        (
            Drawn("a"),
            Drawn("x", ("a",), seconds=8.0),
            *(Drawn(**{**vars(FAILS_LATER), "name": "b", "parents": ("a",)}),),
            Drawn("h", scope="on_failure"),
            Drawn("i", ("h",), scope="on_failure", delivery=EO),
        ),
    ),
    Canonical("a handler that fails", (*chain("a", "b", b=FAILS), Drawn("h", scope="on_failure", errors=FOREVER))),
    Canonical("on success", (Drawn("a"), Drawn("b"), Drawn("z", scope="on_success"), Drawn("y", scope="on_success"))),
    Canonical("timeout", chain("a", "b", "c", b=Drawn("", hangs=1, timeout=3.0))),
    Canonical("large payloads", chain("a", "b", "c", a=Drawn("", large=True), b=Drawn("", large=True)), script=large),
    Canonical("cancelled in the middle", chain("a", "b", "c", b=LONG), script=cancelled),
    Canonical("sleep", SLEEP, pairs=True),
    Canonical("sleep without inline steps", SLEEP, max_hops=0, pairs=True),
    Canonical("a sleep longer than the queue delays", SLEEP, max_delay=2.0),
    Canonical("a sleep in the timer table", TIMED, max_delay=120.0, pairs=True),
    Canonical("sleep until an output, and skip one", (*chain("a", "b", b=SKIPPED), *UNTIL), pairs=True),
    Canonical(
        "sleeps beside a step, and a join",
        (
            Drawn("s", sleeps=3.0),
            Drawn("t", sleeps=0.0),
            Drawn("a"),
            Drawn("j", ("s", "a"), after=("t",)),
        ),
        pairs=True,
    ),
    Canonical("cancelled asleep", (*SLEEP, Drawn("u", sleeps=30.0)), script=cancelled),
    Canonical("fails beside a sleep", (Drawn("u", sleeps=30.0), *chain("a", "b", b=FAILS_LATER)), pairs=True),
    Canonical(
        "a handler beside a sleep",
        (Drawn("u", sleeps=30.0), *chain("a", "b", b=FAILS), Drawn("h", scope="on_failure")),
    ),
    Canonical("fixed and retried beside a sleep", (*SLEEP, Drawn("c", ("b",), errors=FOREVER)), fixed_and_retried),
    Canonical("one key twice", chain("a", "b"), script=one_key_twice, pairs=True),
    Canonical("fixed and retried", chain("a", "b", "c", b=FAILS), script=fixed_and_retried),
)
