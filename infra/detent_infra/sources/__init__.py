"""Queues of users: which messages start runs, and how an embedded backend keeps such a queue."""
