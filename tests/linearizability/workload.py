"""Clients that ask a table for everything it can do, all on the same few keys, and write down what they are told.

Each client draws its requests from a seed of its own, whatever the answers. So a record needs no requests, only
moments and answers, and what a killed client was about to do can be drawn again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from detent_infra.ports import Backend, Conflict, Table
from detent_state_machine.errors import Unavailable
from detent_state_machine.writes import (
    AnyOf,
    DeleteItem,
    Equals,
    Expect,
    Item,
    Key,
    LessThan,
    Missing,
    PutItem,
    UpdateItem,
    Write,
)

from tests.linearizability.clients import Emit
from tests.linearizability.history import (
    Call,
    Done,
    Outcome,
    Read,
    Refused,
    Request,
    Single,
    Together,
    Unknown,
    outcome_line,
    read_outcome,
)

SHARED = [Key("shared", name) for name in ("a", "b", "c")]
"""Transactions write these, so they are checked as one."""
ALONE = [Key("alone", name) for name in ("x", "y")]
OWNERS = ("A", "B", "C")


@dataclass(frozen=True, slots=True)
class Workload:
    """Seeded clients of one process. `name` is theirs in the record; no two processes may share one."""

    name: str
    tasks: int
    requests: int
    seed: int

    async def play(self, backend: Backend, emit: Emit) -> None:
        await run(backend.table, self, emit)


def requests_of(workload: Workload, task: int) -> list[Request]:
    """What one task of the workload asks for, one after the other."""
    rng = random.Random(f"{workload.seed}/{workload.name}/{task}")
    return [draw(rng, f"{workload.name}/{task}/{n}") for n in range(workload.requests)]


async def run(table: Table, workload: Workload, emit: Emit) -> None:
    """Plays the workload's tasks at the same time, and emits two lines for each request."""

    async def client(task: int) -> None:
        for n, request in enumerate(requests_of(workload, task)):
            emit(f"{workload.name} {task} {n} invoked {time.monotonic_ns()}")
            outcome = await perform(table, request)
            emit(f"{workload.name} {task} {n} returned {time.monotonic_ns()} {outcome_line(outcome)}")

    await asyncio.gather(*(client(task) for task in range(workload.tasks)))


async def perform(table: Table, request: Request) -> Outcome:
    try:
        match request:
            case Read(key):
                return Done(await table.get(key))
            case Single(write):
                return Done(await table.write(write))
            case Together(writes):
                await table.transact(writes)
                return Done(None)
            case _:
                assert_never(request)
    except Conflict as refusal:
        return Refused(refusal.index, refusal.item)
    except Unavailable:
        return Unknown()


def read_record(workloads: Iterable[Workload], lines: Iterable[str]) -> Iterator[Call]:
    """The calls of a record, in which a killed client's last lines may be missing or torn."""
    asked = {(each.name, task): requests_of(each, task) for each in workloads for task in range(each.tasks)}
    invoked: dict[tuple[str, int, int], int] = {}
    for line in lines:
        if not line.endswith("\n"):
            continue  # torn
        client, task, n, event, moment, *rest = line.rstrip("\n").split(" ", 5)
        key = (client, int(task), int(n))
        if event == "invoked":
            invoked[key] = int(moment)
            continue
        outcome = read_outcome(rest[0])
        returned = None if isinstance(outcome, Unknown) else int(moment)
        yield Call(client, invoked.pop(key), returned, asked[key[:2]][key[2]], outcome)
    for (client, task_, n_), at in invoked.items():
        yield Call(client, at, None, asked[client, task_][n_], Unknown())


# ---- drawing ------------------------------------------------------------------------------------------------------


def draw(rng: random.Random, mark: str) -> Request:
    """A request. `mark` is its own, so that an item tells who wrote it last."""
    match rng.choices(["get", "write", "transact"], [4, 4, 3])[0]:
        case "get":
            return Read(rng.choice(SHARED + ALONE))
        case "write":
            return Single(_write(rng, rng.choice(SHARED + ALONE), mark, ANY))
        case _:
            keys = rng.sample(SHARED, rng.choice([2, 2, 3]))
            kinds = UNREFUSED if rng.random() < 0.5 else ANY  # else too few are done: every part may be refused
            return Together(tuple(_write(rng, key, mark, kinds) for key in keys))


ANY = range(7)
UNREFUSED = (3, 5)


def _write(rng: random.Random, key: Key, mark: str, kinds: Sequence[int]) -> Write:
    member = rng.randrange(40)
    match rng.choice(kinds):
        case 0:
            return PutItem(key, _item(rng, mark))
        case 1:  # a claim: missing, or owned by who is gone
            return UpdateItem(
                key, AnyOf((Missing(), Equals("owner", rng.choice(OWNERS)))), {"owner": rng.choice(OWNERS)}
            )
        case 2:  # a fence
            return UpdateItem(key, Equals("owner", rng.choice(OWNERS)), {"mark": mark, "owner": rng.choice(OWNERS)})
        case 3:  # an arrival at a join
            return UpdateItem(key, add={"joined": frozenset({member})})
        case 4:
            return UpdateItem(key, _unless_large(rng), add={"n": rng.choice([1, 10])})
        case 5:
            return UpdateItem(key, None, {"mark": mark}, {"n": 1, "joined": frozenset({member})}, ("owner",))
        case _:
            return DeleteItem(key, Equals("owner", rng.choice(OWNERS)))


def _item(rng: random.Random, mark: str) -> Item:
    return {"owner": rng.choice(OWNERS), "mark": mark, "n": 0, "inline": rng.random() < 0.5}


def _unless_large(rng: random.Random) -> Expect | None:
    return rng.choice([None, LessThan("n", 50), AnyOf((Missing(), LessThan("n", 100)))])
