"""Testing workflows without mocks: a harness with a clock that jumps, and a simulation that injects faults."""

from detent.testing.clock import EPOCH, VirtualLoop
from detent.testing.harness import Harness, WorkerCrashed, context

__all__ = ["EPOCH", "Harness", "VirtualLoop", "WorkerCrashed", "context"]
