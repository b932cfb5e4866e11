"""Records runs in every state that this version of detent can leave behind: `python -m tests.compatibility.record`.

The files go to `records/v<n>`, one folder per set of formats that a detent has written. What is there is never
overwritten: it stands for data that users have. A raised format gets a folder of its own, and a new situation is
added to the newest folder. docs/internals/compatibility.md says when to do which.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

from detent import NonRetryable, Workflow
from detent.testing import WorkerCrashed
from detent.testing.harness import PlannedErrors, on_the_spot
from detent_infra.engine import Engine, LogSettings, Origin
from detent_infra.events.publish import NewEvent, publish
from detent_infra.memory import memory_backend
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.reaper import reap
from detent_infra.runs.start import NewRun
from detent_infra.sqlite import sqlite_backend
from detent_state_machine.events import EventAddress
from detent_state_machine.messages import Drive, encode

from tests.compatibility.workflows import LARGE, WIDTH, open_app
from tests.support.snapshot import FORMATS, RECORDS, Expected, Snapshot, put_back, taken_of, to_text

THEN = 1_767_225_600_000
"""When everything happened: 2026-01-01T00:00:00Z, in milliseconds. A test that puts it back does so later."""
DATABASE = "database.sql"


class Recorder:
    """Drives the real engine by hand, one delivery at a time, on a memory backend whose clock stands still."""

    def __init__(self, name: str) -> None:
        self.kept = open_app()
        self._now = THEN
        numbers, prefix = itertools.count(1), blake2b(name.encode(), digest_size=4).hexdigest()
        self.backend = memory_backend(clock=lambda: self._now, ids=lambda: f"{prefix}{next(numbers):018d}")
        self.lifecycle = Lifecycle(self.backend)
        self._executor = PlannedErrors(self.kept.app.executor.with_sync(on_the_spot))
        here = LogSettings(Origin("worker-1", "request-1", "1-5759e988-bd862e3fe1be46a994272793"))
        self._engine = Engine(self.backend, self._executor, jitter=lambda: 0.5, log_settings=here)

    async def start(self, workflow: Workflow[Any, Any], value: object, key: str | None = None) -> str:
        new = NewRun(json.dumps(value), key, {"customer": "Zoë"})
        return await self.lifecycle.start(workflow.definition, new)

    def die_in(self, step: str) -> None:
        self._executor.planned[step].append(WorkerCrashed())

    def fail_in(self, step: str, error: Exception) -> None:
        self._executor.planned[step].append(error)

    async def deliver(self, times: int = 1) -> None:
        """Each delivery a millisecond after the other."""
        for _ in range(times):
            self._now += 1
            [message] = await self.backend.queue.receive(1, wait=0, visibility=30)
            try:
                done = await self._engine.handle(message)
            except WorkerCrashed:
                continue
            if done:
                await self.backend.queue.delete(message.receipt)

    async def drop_messages(self) -> None:
        for message in await self.backend.queue.receive(1000, wait=0, visibility=30):
            await self.backend.queue.delete(message.receipt)

    def pass_time(self, seconds: float) -> None:
        self._now += int(seconds * 1000)


Situation = Callable[[Recorder], Coroutine[Any, Any, Expected]]
SITUATIONS: dict[str, Situation] = {}


def situation(record: Situation) -> Situation:
    SITUATIONS[record.__name__] = record
    return record


# ---- on the way ---------------------------------------------------------------------------------------------------

CHAIN = ("first", "second", "third", "fourth")


@situation
async def just_started(r: Recorder) -> Expected:
    return Expected(await r.start(r.kept.chain, 1), "COMPLETED", "sent 21", bodies=CHAIN)


@situation
async def died_in_an_inline_step_without_a_record(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 2)
    r.die_in("third")
    await r.deliver()
    return Expected(run, "COMPLETED", "sent 31", bodies=("third", "fourth"))


@situation
async def died_in_an_inline_step_it_had_claimed(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 3)
    r.die_in("second")
    await r.deliver()
    return Expected(run, "COMPLETED", "sent 41", bodies=("second", "third", "fourth"))


@situation
async def died_in_an_at_most_once_step(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 4)
    r.die_in("fourth")
    await r.deliver()
    return Expected(run, "FAILED", failed_step="fourth")


@situation
async def retrying(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 5)
    r.fail_in("third", ConnectionError("the network is down"))
    await r.deliver()
    return Expected(run, "COMPLETED", "sent 61", bodies=("third", "fourth"))


@situation
async def died_behind_a_commit_of_its_own(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 19)
    r.die_in("third")
    await r.deliver()
    return Expected(run, "COMPLETED", "sent 201", bodies=("third", "fourth"))


@situation
async def taken_over_from_a_dead_worker_and_died_again(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 6)
    r.fail_in("third", ConnectionError("the network is down"))
    await r.deliver()
    for _ in range(2):
        r.pass_time(60)
        r.die_in("third")
        await r.deliver()
    return Expected(run, "COMPLETED", "sent 71", bodies=("third", "fourth"))


@situation
async def failing_with_a_handler_at_work(r: Recorder) -> Expected:
    run = await r.start(r.kept.guarded, 7)
    r.fail_in("work", ValueError("no"))
    r.die_in("apologise")
    await r.deliver()
    return Expected(run, "FAILED", failed_step="work", bodies=("apologise",))


@situation
async def join_half_arrived(r: Recorder) -> Expected:
    run = await r.start(r.kept.fork, 8)
    r.die_in("right")
    await r.deliver(2)
    return Expected(run, "COMPLETED", [9, 10], bodies=("right", "meet"))


@situation
async def join_tree_half_arrived(r: Recorder) -> Expected:
    run = await r.start(r.kept.wide, 9)
    await r.deliver(51)
    later = tuple(f"part {number}" for number in range(51, WIDTH))
    return Expected(run, "COMPLETED", 9 * WIDTH, bodies=(*later, "meet"))


@situation
async def asleep(r: Recorder) -> Expected:
    run = await r.start(r.kept.sleeper, 1)
    await r.deliver()
    return Expected(run, "COMPLETED", "1 2026-01-01T00:01:00.001000+00:00", bodies=("wake",))


@situation
async def awaiting_an_event_that_does_not_come(r: Recorder) -> Expected:
    run = await r.start(r.kept.payer, "A-17")
    await r.deliver()
    return Expected(run, "COMPLETED", "A-17 None", bodies=("book",))


@situation
async def awaiting_an_event_that_is_published(r: Recorder) -> Expected:
    run = await r.start(r.kept.payer, "A-18")
    await r.deliver()
    await publish(r.backend, NewEvent(EventAddress("payment", "A-18"), "5", f"bank-{run}"))
    return Expected(run, "COMPLETED", "A-18 5", bodies=("book",))


@situation
async def skipped(r: Recorder) -> Expected:
    run = await r.start(r.kept.choice, 1)
    r.die_in("end")
    await r.deliver()
    return Expected(run, "COMPLETED", "light", bodies=("end",))


@situation
async def large_payloads(r: Recorder) -> Expected:
    run = await r.start(r.kept.heavy, LARGE)
    r.die_in("measure")
    await r.deliver()
    return Expected(run, "COMPLETED", 2 * len(LARGE), bodies=("measure",))


@situation
async def started_with_a_key(r: Recorder) -> Expected:
    run = await r.start(r.kept.fork, 10, key="A-17")
    return Expected(run, "COMPLETED", [11, 12], bodies=("left", "right", "meet"), key="A-17")


@situation
async def retry_of_a_failed_run(r: Recorder) -> Expected:
    failed_run = await r.start(r.kept.chain, 11)
    r.fail_in("third", NonRetryable("no"))
    await r.deliver()
    return Expected(await r.lifecycle.retry(failed_run), "COMPLETED", "sent 121", bodies=("third", "fourth"))


@situation
async def lost_its_message(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 12)
    await r.drop_messages()
    return Expected(run, "COMPLETED", "sent 131", bodies=CHAIN)


@situation
async def found_by_the_reaper(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 18)
    await r.drop_messages()
    r.pass_time(3_600)
    await reap(r.backend)
    return Expected(run, "COMPLETED", "sent 191", bodies=CHAIN)


@situation
async def in_the_dead_letters(r: Recorder) -> Expected:
    run = await r.start(r.kept.fork, 13)
    r.die_in("right")
    await r.deliver(2)
    r.pass_time(60)
    await r.drop_messages()
    await r.backend.dead_letters.send([encode(Drive(run, "right"))])
    return Expected(run, "COMPLETED", [14, 15], bodies=("right", "meet"))


# ---- ended --------------------------------------------------------------------------------------------------------


@situation
async def completed(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 14)
    await r.deliver()
    return Expected(run, "COMPLETED", "sent 151")


@situation
async def completed_with_a_log_of_the_engines_own(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 14)
    r.fail_in("third", ConnectionError("the network is down"))
    await r.deliver()
    r.pass_time(60)
    await r.deliver()
    return Expected(run, "COMPLETED", "sent 151")


@situation
async def failed_for_good(r: Recorder) -> Expected:
    run = await r.start(r.kept.chain, 15)
    r.fail_in("third", NonRetryable("the card was refused"))
    await r.deliver()
    return Expected(run, "FAILED", failed_step="third")


@situation
async def failed_and_handled(r: Recorder) -> Expected:
    run = await r.start(r.kept.guarded, 16)
    r.fail_in("work", ValueError("no"))
    await r.deliver()
    return Expected(run, "FAILED", failed_step="work")


@situation
async def cancelled(r: Recorder) -> Expected:
    run = await r.start(r.kept.fork, 17)
    r.die_in("right")
    await r.deliver(2)
    await r.lifecycle.cancel(run)
    return Expected(run, "CANCELLED")


# ---- files --------------------------------------------------------------------------------------------------------


def record(name: str) -> Snapshot:
    """The situation as this version of detent leaves it behind."""

    async def work() -> Snapshot:
        recorder = Recorder(name)
        expected = await SITUATIONS[name](recorder)
        return taken_of(recorder.backend, name.replace("_", " "), expected)

    return asyncio.run(work())


def database(snapshots: Sequence[Snapshot]) -> str:
    """A SQLite file with these snapshots as this version of detent makes it, as SQL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detent.db"
        backend = sqlite_backend(path, clock=lambda: THEN)
        asyncio.run(put_back(backend, snapshots))
        backend.close()
        with closing(sqlite3.connect(path)) as connection:
            pragmas = [
                f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
                for name in ("application_id", "user_version")
            ]
            lines = [*pragmas, *connection.iterdump()]
            return "\n".join(lines) + "\n"


def newest() -> tuple[int, dict[str, int] | None]:
    """The number of the newest folder, and the formats it stands for; 0 and None if there is none."""
    numbers = [int(folder.name.removeprefix("v")) for folder in RECORDS.glob("v*")]
    if not numbers:
        return 0, None
    return max(numbers), json.loads((RECORDS / f"v{max(numbers)}" / "formats.json").read_text())


def main() -> None:
    number, formats = newest()
    folder = RECORDS / f"v{number if formats == FORMATS else number + 1}"
    folder.mkdir(parents=True, exist_ok=True)
    snapshots = {name: record(name) for name in SITUATIONS}
    files = {f"{name}.json": to_text(snapshot) for name, snapshot in snapshots.items()}
    files[DATABASE] = database([snapshots["join_half_arrived"], snapshots["large_payloads"]])
    files["formats.json"] = json.dumps(FORMATS, indent=1) + "\n"
    for name, text in files.items():
        path = folder / name
        if path.exists():
            sys.stdout.write(f"kept      {path.relative_to(RECORDS)}: what users may have is never overwritten\n")
            continue
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"recorded  {path.relative_to(RECORDS)}\n")


if __name__ == "__main__":
    main()
