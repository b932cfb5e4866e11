"""Every crash point, one by one: `python -m tests.simulation.enumerate [--pairs] [--only NAME] [--write FILE]`.

Of each canonical workflow, a run without faults lists its primitive calls. Then every fault that can happen to a call
happens to each of them, in a run of its own; with `--pairs`, also every second fault to every call after the first.
The calls are what the engine makes, so a new call in the engine is a new crash point without anyone listing it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

from detent.testing.simulation.faults import Fault, FixedPlan, PortCall, possible
from detent.testing.simulation.invariants import Violation
from detent.testing.simulation.world import Simulation

from tests.simulation.canonical import CANONICAL, VALUE, Canonical
from tests.simulation.check import check_end
from tests.simulation.workloads import Workload, build

SEED = 1


@dataclass
class Recording:
    """A plan that remembers the calls it was asked about."""

    plan: FixedPlan
    calls: list[PortCall] = field(default_factory=list[PortCall])

    def __call__(self, call: PortCall) -> Fault | None:
        self.calls.append(call)
        return self.plan(call)


@dataclass(frozen=True)
class Result:
    """How a run with these faults ended."""

    calls: list[PortCall]
    excused: bool
    """It ended as a fault entitles it to: an at_most_once body interrupted, a payload gone."""
    bodies: Counter[str]
    trace: list[str]


@dataclass
class Report:
    """What became of a canonical workflow's crash points."""

    name: str
    calls: int = 0
    """Primitive calls of the run without faults."""
    points: int = 0
    """Runs with a fault, or with two."""
    excused: int = 0
    repeats: int = 0
    """Bodies that ran again because of a fault."""
    failures: list[str] = field(default_factory=list[str])
    missed: int = 0
    """Calls of the run without faults that no fault happened to."""
    seconds: float = 0.0


@cache
def workload_of(canonical: Canonical) -> Workload:
    return build(canonical.steps)


def perform(canonical: Canonical, faults: Mapping[int, Fault]) -> Result:
    """Runs the workflow with these faults. Raises `Violation`, with the trace, unless it ends as it must."""
    workload = workload_of(canonical)
    workload.world.forget()
    plan = Recording(FixedPlan(faults))
    simulation = Simulation(
        [workload.app],
        SEED,
        plan=plan,
        machines=1,
        max_hops=canonical.max_hops,
        max_delay=canonical.max_delay,
        skew=False,
        stand_ins=True,
    )
    try:
        done = simulation.run(canonical.script(simulation, workload))
        excused = False
        for run in done.runs:
            cancelled, fixed = run in done.cancelled, run in done.fixed
            ended = check_end(simulation, workload, run, VALUE, may_be_cancelled=cancelled, fixed=fixed)
            excused |= not ended
    except Violation as violation:
        trace = "\n".join(simulation.gate.trace)
        raise Violation(f"{canonical.name}, {dict(faults)}: {violation}\n{trace}") from None
    bodies = Counter[str]()
    for (_, step), count in simulation.invariants.bodies.items():
        bodies[step] += count
    return Result(plan.calls, excused, bodies, simulation.gate.trace)


Points: TypeAlias = Iterator[Mapping[int, Fault]]


READS = ("get", "get_many", "query", "query_index", "blob get", "receive", "log")
"""Calls that change nothing here: a received message is taken before its call counts, and no log is looked at."""
TWINS = {Fault.CRASH_AFTER: Fault.CRASH_BEFORE, Fault.UNKNOWN: Fault.REFUSED, Fault.REPEATED: None}
"""Of such a call, a fault after it does what one before it does, and a second reply does nothing. A test says so."""


def distinct(operation: str) -> list[Fault]:
    """The faults of an operation without those that are the twin of another one."""
    return [fault for fault in possible(operation) if not (operation in READS and fault in TWINS)]


def singles(canonical: Canonical) -> Points:
    """Every fault at every call of the run without faults."""
    for call in perform(canonical, {}).calls:
        for fault in possible(call.operation):
            yield {call.number: fault}


def pairs(canonical: Canonical, sample: float = 1.0) -> Points:
    """Every second fault at every call after the first one, in the run that the first one makes; twins once."""
    rng = random.Random(canonical.name)
    for cut in perform(canonical, {}).calls:
        for fault in distinct(cut.operation):
            if rng.random() >= sample**0.5:
                continue
            first = {cut.number: fault}
            for call in perform(canonical, first).calls[cut.number + 1 :]:
                for second in distinct(call.operation):
                    if rng.random() < sample**0.5:
                        yield {**first, call.number: second}


def try_all(canonical: Canonical, points: Points, *, limit: float = float("inf")) -> Report:
    """What becomes of the workflow with each of these faults; stops after `limit` seconds."""
    began = time.monotonic()
    smooth = perform(canonical, {})
    assert not smooth.excused
    report = Report(canonical.name, calls=len(smooth.calls))
    hit: set[int] = set()
    for faults in points:
        if time.monotonic() - began > limit:
            break
        hit.update(faults)
        report.points += 1
        try:
            result = perform(canonical, faults)
        except Violation as violation:
            report.failures.append(str(violation))
            continue
        report.excused += result.excused
        report.repeats += sum((result.bodies - smooth.bodies).values())
    report.missed = sum(call.number not in hit for call in smooth.calls)
    report.seconds = time.monotonic() - began
    return report


HEADER = (
    "| workflow | primitive calls | crash points | as without faults | excused | bodies run again | failed | missed |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


def row(report: Report) -> str:
    smooth = report.points - report.excused - len(report.failures)
    return (
        f"| {report.name} | {report.calls} | {report.points:,} | {smooth:,} | {report.excused:,} "
        f"| {report.repeats:,} | {len(report.failures)} | {report.missed} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.enumerate")
    parser.add_argument("--pairs", action="store_true", help="two faults, on the small workflows (takes 20 minutes)")
    parser.add_argument("--only", default="", help="workflows whose name has this in it")
    parser.add_argument("--sample", type=float, default=1.0, help="try this part of the pairs, chosen at random")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds per workflow")
    parser.add_argument("--write", type=Path, help="store the table in this file")
    options = parser.parse_args()
    chosen = [one for one in CANONICAL if options.only in one.name and (one.pairs or not options.pairs)]
    lines = [HEADER]
    print(HEADER, flush=True)
    reports: list[Report] = []
    for canonical in chosen:
        points = pairs(canonical, options.sample) if options.pairs else singles(canonical)
        report = try_all(canonical, points, limit=options.limit)
        reports.append(report)
        lines.append(row(report))
        print(row(report), flush=True)
    total, seconds = sum(one.points for one in reports), sum(one.seconds for one in reports)
    lines.append(f"\n{total:,} crash points of {len(reports)} workflows in {seconds:.0f} s.")
    print(lines[-1])
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")
    failures = [failure for one in reports for failure in one.failures]
    for failure in failures[:5]:
        print("\n" + failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
