"""Lambda handlers: parse the event, call the engine, reply."""
