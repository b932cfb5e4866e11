"""The part of detent that acts: ports, the engine loop, adapters."""
