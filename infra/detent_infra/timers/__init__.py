"""Messages for later: what the queue delays, and what the timer table keeps until a tick sends it."""
