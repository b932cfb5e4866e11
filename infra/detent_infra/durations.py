"""How long something took or takes, as people read it: the same in logs, on the command line and in errors."""

from detent_state_machine.lines import duration_text as duration

__all__ = ["duration"]
