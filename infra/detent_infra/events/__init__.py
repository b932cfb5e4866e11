"""Events: stored under a name and a key, and brought to whoever waits for them."""
