"""Testing workflows without mocks: a harness with a clock that jumps, and a simulation that injects faults."""

from detent.testing.clock import EPOCH, VirtualLoop
from detent.testing.harness import Harness, WorkerCrashed, context
from detent.testing.invariants import Violation
from detent.testing.plans import Rates
from detent.testing.simulate import SimulationReport, simulate

__all__ = [
    "EPOCH",
    "Harness",
    "Rates",
    "SimulationReport",
    "Violation",
    "VirtualLoop",
    "WorkerCrashed",
    "context",
    "simulate",
]
