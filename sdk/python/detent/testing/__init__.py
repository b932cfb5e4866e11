"""Testing workflows without mocks: a harness with a clock that jumps, and a simulation that injects faults."""

from detent_infra.virtual_time import EPOCH, VirtualLoop

from detent.testing.harness import Harness, WorkerCrashed, context
from detent.testing.simulation.invariants import Violation
from detent.testing.simulation.plans import Rates
from detent.testing.simulation.simulate import SimulationReport, simulate

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
