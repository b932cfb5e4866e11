"""The simulation: one seed, several workers, every fault, and the invariants that hold all the same."""
