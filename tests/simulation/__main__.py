"""Simulates many seeds: `python -m tests.simulation [--first 1] [--seeds 10000] [--show]`. See `make simulate`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import suppress

from detent.testing.simulation.invariants import Violation

from tests.simulation.check import EVENTS, Case, case, run, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--show", action="store_true", help="print the trace of each seed")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails, and do not shrink it")
    options = parser.parse_args()
    began = time.perf_counter()
    seen: Counter[str] = Counter()
    calls = failed = 0
    for seed in range(options.first, options.first + options.seeds):
        simulated = case(seed)
        try:
            run(simulated)
        except Violation as violation:
            failed += 1
            if options.stop:
                print(f"seed {seed}: {violation}")
                break
            print(report(seed, violation), flush=True)
        if options.show:
            print("\n".join(simulated.trace))
        seen.update(simulated.seen)
        calls += simulated.calls
        if sys.stderr.isatty() and seed % 20 == 0:
            print(f"\r{seed - options.first + 1}/{options.seeds} seeds, {failed} failed ", end="", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(f"{options.seeds} seeds and {calls:,} primitive calls in {seconds:.0f} s")
    for kind in ("fault", "message", "run", "step run", "event"):
        found = {name: n for name, n in seen.most_common() if name.startswith(f"{kind}: ")}
        print(f"{kind}s:", ", ".join(f"{n:,} {name.partition(': ')[2]}" for name, n in found.items()))
    print(f"{options.seeds - failed} passed, {failed} failed")
    return 1 if failed else 0


def report(seed: int, violation: Violation) -> str:
    """The failing seed, its smallest form, and how to see it again."""
    smallest = shrink(case_with_faults(seed), violation)
    lines = [
        f"\nseed {seed}: {violation}",
        f"replay: python -m tests.simulation --first {seed} --seeds 1 --show",
        "smallest steps:",
        *(f"  {step}" for step in smallest.steps),
        f"smallest faults: {smallest.plan}",
        f"with: {', '.join(name for name in EVENTS if getattr(smallest, name)) or 'nothing else'}",
        *smallest.trace[-80:],
    ]
    return "\n".join(lines)


def case_with_faults(seed: int) -> Case:
    """The seed's case after a run: it knows its faults."""
    again = case(seed)
    with suppress(Violation):
        run(again)
    return again


if __name__ == "__main__":
    sys.exit(main())
