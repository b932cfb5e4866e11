"""Log lines: what they look like, how a run's are read, and those of the standard library on their way in."""
