"""What a mutant is, and where the rules stand that mutants break."""

from __future__ import annotations

from dataclasses import dataclass

ENGINE = "infra/detent_infra/engine/"
CORE = "state_machine/detent_state_machine/"
TRANSITIONS = CORE + "transitions.py"
FOLLOW = CORE + "follow.py"
BEGIN = CORE + "begin.py"
CALL = CORE + "kinds/call.py"
TIMER = CORE + "kinds/timer.py"
SEEDS = "seeds 1 to 300"


@dataclass(frozen=True)
class Mutant:
    """A rule, a change that breaks it, and who must notice: tests by name, or the random simulation (`SEEDS`)."""

    rule: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]
