"""Simulates many seeds: `python -m tests.simulation [--first 1] [--seeds 10000] [--show]`. See `make simulate`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import suppress

from detent.testing.invariants import Violation

from tests.simulation.check import Case, case, run, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--show", action="store_true", help="print the trace of each seed")
    options = parser.parse_args()
    began = time.perf_counter()
    faults: Counter[str] = Counter()
    calls = failed = 0
    for seed in range(options.first, options.first + options.seeds):
        simulated = case(seed)
        try:
            run(simulated)
        except Violation as violation:
            failed += 1
            report(seed, violation)
        if options.show:
            print("\n".join(simulated.trace))
        faults.update(fault.value for fault in simulated.injected.values())
        calls += simulated.calls
        if sys.stderr.isatty() and seed % 20 == 0:
            print(f"\r{seed - options.first + 1}/{options.seeds} seeds, {failed} failed ", end="", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(f"{options.seeds} seeds, {calls} primitive calls, {sum(faults.values())} faults in {seconds:.0f} s")
    print(", ".join(f"{name} {count}" for name, count in faults.most_common()))
    print(f"{options.seeds - failed} passed, {failed} failed")
    return 1 if failed else 0


def report(seed: int, violation: Violation) -> None:
    """The failing seed, its smallest form, and how to see it again."""
    smallest = shrink(case_with_faults(seed), str(violation))
    print(f"\nseed {seed}: {violation}")
    print(f"replay: python -m tests.simulation --first {seed} --seeds 1 --show")
    print("smallest steps:", *smallest.steps, sep="\n  ")
    print("smallest faults:", smallest.plan)
    print("\n".join(smallest.trace[-80:]))


def case_with_faults(seed: int) -> Case:
    """The seed's case after a run: it knows its faults."""
    again = case(seed)
    with suppress(Violation):
        run(again)
    return again


if __name__ == "__main__":
    sys.exit(main())
