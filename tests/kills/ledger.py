"""What bodies did to the world and what starters were told, one line each, whatever became of their process.

Every line is one write to a file that is open for appending, which is atomic: a killed process leaves whole lines.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "KILLS_LEDGER"
"""The environment variable that names the file."""


@dataclass(frozen=True, slots=True)
class Ledger:
    file: Path

    @staticmethod
    def from_environment() -> Ledger:
        return Ledger(Path(os.environ[VARIABLE]))

    def append(self, *words: object) -> None:
        line = " ".join(map(str, words)) + "\n"
        file = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def read(self) -> Entries:
        return Entries.of(self.file.read_text().splitlines() if self.file.exists() else [])


@dataclass(frozen=True, slots=True)
class Start:
    """A start that was acknowledged: the run's number is its input."""

    workflow: str
    number: int
    run_id: str


@dataclass(slots=True)
class Entries:
    """`begun` and `done` count bodies by run and path: those that began, and those that came to their effect."""

    starts: list[Start] = field(default_factory=list[Start])
    begun: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    done: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    at_work: Counter[int] = field(default_factory=Counter[int])
    """Bodies that are under way, by process; zero for one that has had some."""

    @staticmethod
    def of(lines: Iterable[str]) -> Entries:
        found = Entries()
        for line in lines:
            match line.split():
                case ["started", workflow, number, run_id]:
                    found.starts.append(Start(workflow, int(number), run_id))
                case ["begun", run_id, path, pid]:
                    found.begun[run_id][path] += 1
                    found.at_work[int(pid)] += 1
                case ["done", run_id, path, pid]:
                    found.done[run_id][path] += 1
                    found.at_work[int(pid)] -= 1
                case _:
                    raise ValueError(f"{line!r} is not a line of a ledger")
        return found
