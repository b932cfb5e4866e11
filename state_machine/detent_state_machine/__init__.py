"""The part of detent that decides. Pure: no clock, no randomness, no environment, no I/O."""
