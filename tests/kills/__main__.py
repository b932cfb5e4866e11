"""The program: starts, kills, waits for the end, counts, prints a table and stores it as JSON.

Exits with 1 if a promise was broken, and keeps the folder with database, ledger and logs then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

from detent import Client, RunStatus

from tests.kills.ledger import VARIABLE, Ledger
from tests.kills.places import DRAIN, PLACES, VISIBILITY, Place, Settings, kill, python
from tests.kills.tally import Report, judge, look
from tests.support.service_stack import credentials

COLUMNS = (
    "delivery      ",
    " started ",
    " finished ",
    " interrupted ",
    " unfinished ",
    " effects due ",
    " lost ",
    " duplicated ",
    " bodies ",
    " cut ",
    " repeated ",
    " dead letters ",
)
"""Of the table, which is Markdown: runs, then effects, then bodies."""
STARTER_SHARE = 0.15
"""Of the kills hit the starter."""
RATE = {"sqlite": 10.0, "ministack": 4.0}
"""Runs of each workflow a second."""


@dataclass(frozen=True)
class Plan:
    """`kill_every` is the mean pause between two kills, in seconds."""

    backend: str
    minutes: float
    settings: Settings
    rate: float
    kill_every: float
    drain: float
    seed: int


@dataclass
class Counts:
    workers_killed: int = 0
    starters_killed: int = 0
    seconds_to_drain: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    plan, where = parse(arguments)
    folder = Path(mkdtemp(prefix="detent-kills-"))
    ledger = Ledger(folder / "ledger.txt")
    with credentials(), PLACES[plan.backend](folder, ledger.file, plan.settings) as place:
        counts = Counts()
        with (folder / "starter.log").open("wb") as log:
            kill_for_a_while(plan, place, ledger, counts, log)
        client = Client(place.url)
        counts.seconds_to_drain = drain(client, plan.drain)
        entries = ledger.read()
        report = judge(entries, asyncio.run(look(Client(place.url), entries.starts)))
    show(plan, counts, report)
    store(where, plan, counts, report)
    print(f"stored in {where}")
    if report.broken:
        for each in report.broken[:20]:
            print(each)
        print(f"{len(report.broken)} promises broken; see {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def parse(arguments: Sequence[str] | None) -> tuple[Plan, Path]:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--backend", choices=sorted(PLACES), default="sqlite")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long to start and to kill (default 3)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rate", type=float, help="runs of each of the three workflows started per second")
    parser.add_argument("--kill-every", type=float, default=1.0, help="mean seconds between two kills (default 1)")
    parser.add_argument("--drain", type=float, help="seconds in which all runs must end after the last kill")
    parser.add_argument("--seed", type=int, default=1, help="of whom to kill and when; what is under way then is luck")
    parser.add_argument("--json", type=Path, help="where the counts go (default build/kills-BACKEND.json)")
    functions = parser.add_argument_group("functions on ministack")
    functions.add_argument("--visibility", type=int, default=VISIBILITY, help="of their queue (default 30 s)")
    functions.add_argument(
        "--max-receives", type=int, default=10, help="before a message is a dead letter (default 10)"
    )
    functions.add_argument("--even-starting", action="store_true", help="kill those too that have run no body yet")
    given = parser.parse_args(arguments)
    plan = Plan(
        backend=given.backend,
        minutes=given.minutes,
        settings=Settings(given.workers, given.visibility, given.even_starting, given.max_receives),
        rate=given.rate or RATE[given.backend],
        kill_every=given.kill_every,
        drain=given.drain or DRAIN[given.backend],
        seed=given.seed,
    )
    return plan, given.json or Path("build") / f"kills-{plan.backend}.json"


def kill_for_a_while(plan: Plan, place: Place, ledger: Ledger, counts: Counts, log: object) -> None:
    """Starts runs and kills workers and starters until the time is over; then the last starter ends in peace."""
    rng = random.Random(plan.seed)

    def start_starter() -> subprocess.Popen[bytes]:
        environment = {VARIABLE: str(ledger.file), "DETENT_URL": place.url}
        return python(["-m", "tests.kills.starter", str(plan.rate)], environment, log)  # type: ignore[arg-type]

    starter = start_starter()
    try:
        until = time.monotonic() + plan.minutes * 60
        while time.monotonic() < until:
            time.sleep(rng.uniform(0, 2 * plan.kill_every))
            if rng.random() < STARTER_SHARE:
                kill(starter)
                starter = start_starter()
                counts.starters_killed += 1
            else:
                counts.workers_killed += place.kill_one(rng)
        # A starter that was just killed has left starts that nobody was told of; this one starts them again.
        settle(starter, ledger)
    finally:
        kill(starter)


def settle(starter: subprocess.Popen[bytes], ledger: Ledger) -> None:
    before = len(ledger.read().starts)
    until = time.monotonic() + 30
    while len(ledger.read().starts) == before and time.monotonic() < until and starter.poll() is None:
        time.sleep(0.1)
    starter.send_signal(signal.SIGTERM)
    starter.wait(30)


def drain(client: Client, limit: float) -> float:
    """Waits until no run is live, or the time is over; returns how long it took, in seconds."""
    began = time.monotonic()
    while client.runs(statuses=[RunStatus.RUNNING, RunStatus.FAILING], limit=1):
        if time.monotonic() - began > limit:
            break
        time.sleep(0.5)
    return time.monotonic() - began


def show(plan: Plan, counts: Counts, report: Report) -> None:
    print(
        f"{plan.backend}: in {plan.minutes:g} min, {counts.workers_killed} kills of {plan.settings.workers} workers "
        f"and {counts.starters_killed} of the starter; the last run ended {counts.seconds_to_drain:.0f} s later"
    )
    print("|".join(COLUMNS))
    print("|".join("-" * (len(column) - 1) + (":" if n else "-") for n, column in enumerate(COLUMNS)))
    for row in report.rows:
        name, *figures = asdict(row).values()
        cells = [
            f"{name:<{len(COLUMNS[0])}}",
            *(f"{n:>{len(c) - 1}} " for c, n in zip(COLUMNS[1:], figures, strict=True)),
        ]
        print("|".join(cells))


def store(where: Path, plan: Plan, counts: Counts, report: Report) -> None:
    where.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()},
        "plan": asdict(plan),
        "counts": asdict(counts),
        **report.as_json(),
    }
    where.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
