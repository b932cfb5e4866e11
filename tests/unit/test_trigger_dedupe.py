"""However a source delivers, a message starts one run: duplicates, any order, partial batches, crashes, long pauses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import pytest
from detent import App, Queue, RunStatus
from detent.testing import EPOCH, Harness
from detent_infra.memory import memory_backend
from detent_infra.ports import Arrived, Backend, MessageQueue, Table
from detent_infra.redelivery import HIDDEN
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.sources.triggers import KEEP_DAYS, Done, Kept, Refused, Triggers, Verdict
from detent_state_machine import keys
from detent_state_machine.envelopes import SourceMessage
from detent_state_machine.errors import KeyConflict, Unavailable
from detent_state_machine.messages import Start, decode
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

_T = TypeVar("_T")
DAY = 86_400

app = App("shop", url="memory://")
orders = app.workflow("orders", input=int, on_queue=Queue("inbox", input="n"), retention_days=1)
books = app.workflow("books", input=int, on_queue=Queue("inbox", input="n", key="to_string(n)", when="n > `5`"))
ran: list[int] = []


@orders.step
def order(n: int) -> int:
    ran.append(n)
    return n


@books.step(delivery="at_most_once")
def book(n: int) -> int:
    return n


def message(number: int, body: str | None = None) -> SourceMessage:
    return SourceMessage(f"m-{number}", "inbox", json.dumps({"n": number}) if body is None else body)


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Faulty:
    """A port whose calls, counted together with those of the others, fail as planned: 1-based number to fault."""

    inner: Any
    plan: Plan

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in ("write", "send"):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            return await self.plan.call(lambda: method(*args, **options))

        return call


@dataclass
class Plan:
    faults: dict[int, str]
    calls: int = 0

    async def call(self, act: Any) -> Any:
        self.calls += 1
        match self.faults.get(self.calls):
            case "refused":
                raise Unavailable("refused")
            case "crash before":
                raise Crash
            case "lost":
                await act()
                raise Unavailable("the reply was lost")
            case "crash after":
                await act()
                raise Crash
            case _:
                return await act()


FAULTS = st.dictionaries(
    st.integers(1, 25), st.sampled_from(["refused", "crash before", "lost", "crash after"]), max_size=6
)


class World:
    """A backend, and a source that delivers what it likes."""

    def __init__(self, faults: dict[int, str] | None = None) -> None:
        self.now = EPOCH
        self.backend = memory_backend(clock=lambda: self.now)
        self.plan = Plan(faults or {})
        self.faulty: Backend = replace(
            self.backend,
            table=cast("Table", Faulty(self.backend.table, self.plan)),
            queue=cast("MessageQueue", Faulty(self.backend.queue, self.plan)),
        )

    async def deliver(self, batch: Sequence[SourceMessage], code: App = app) -> list[Verdict] | None:
        """One delivery to a new process; None: it crashed."""
        triggers = Triggers(Lifecycle(self.faulty), code.subscriptions)
        try:
            return await triggers.handle(batch)
        except Crash:
            return None

    def runs(self) -> list[str]:
        store = cast("Any", self.backend.table)._store
        return [key.pk.removeprefix("run#") for key in store.items if key.sk == keys.RUN]

    def sent(self) -> list[Start]:
        queue = cast("Any", self.backend.queue)
        found = [decode(each.body) for each in queue._messages.values()]
        return [each for each in found if isinstance(each, Start)]


def play(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=8),
    FAULTS,
)
def test_each_acknowledged_message_has_its_runs_each_with_a_message_and_no_message_has_two(
    batches: list[list[int]], faults: dict[int, str]
) -> None:
    world = World(faults)
    acknowledged: set[int] = set()

    async def scenario() -> None:
        for batch in batches:  # duplicates and any order, within a batch and between batches
            verdicts = await world.deliver([message(number) for number in batch])
            for number, verdict in zip(batch, verdicts or [], strict=False):
                assert isinstance(verdict, Done | Kept)
                if isinstance(verdict, Done):
                    acknowledged.add(number)
                    assert len(verdict.fresh) + len(verdict.known) == (2 if number > 5 else 1)
        world.plan.faults.clear()
        for number in {n for batch in batches for n in batch} - acknowledged:  # what was kept comes back
            [verdict] = await world.deliver([message(number)]) or []
            assert isinstance(verdict, Done)

    play(scenario())
    numbers = {n for batch in batches for n in batch}
    assert len(world.runs()) == len(numbers) + sum(n > 5 for n in numbers)
    assert {start.run_id for start in world.sent()} == set(world.runs()), "a run without a message would not move"


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_in_a_batch_what_is_refused_does_not_touch_what_is_not(order: list[int], bad: set[int]) -> None:
    world = World()
    batch = [message(number, "hello" if number in bad else None) for number in order]
    verdicts = play(world.deliver(batch)) or []
    assert {n for n, verdict in zip(order, verdicts, strict=True) if isinstance(verdict, Refused)} == bad
    assert len(world.runs()) == 6 - len(bad)


def test_a_batch_of_ten_costs_a_write_and_a_share_of_one_send_for_each_run() -> None:
    world = World()
    play(world.deliver([message(0)]))  # the definitions are registered
    triggers = Triggers(Lifecycle(world.faulty), app.subscriptions)

    async def twice() -> None:
        await triggers.handle([message(0)])
        world.plan.calls = 0
        await triggers.handle([message(number, json.dumps({"n": number - 50})) for number in range(10, 20)])

    play(twice())
    assert world.plan.calls == 10 + 1


# ---- known again, and what is not the same ----------------------------------------------------------------------


def mapped(queue: Queue) -> App:
    """The shop, with its messages read in another way."""
    other = App("shop", url="memory://")
    other.workflow("orders", input=int, on_queue=queue).step(name="order")(lambda n: n)
    return other


BEFORE, AFTER = "n", "length(keys(@))"
"""Two readings of a message that find different inputs."""


@pytest.mark.parametrize("key", [None, "'k'"])
def test_a_message_that_later_code_reads_otherwise_has_its_run(key: str | None) -> None:
    world = World()

    async def scenario() -> None:
        await world.deliver([message(7)], mapped(Queue("inbox", input=BEFORE, key=key)))
        again = await world.deliver([message(7)], mapped(Queue("inbox", input=BEFORE, key=key)))
        changed = await world.deliver([message(7)], mapped(Queue("inbox", input=AFTER, key=key)))
        assert again == changed == [Done(known=tuple(world.runs()))]

    play(scenario())
    assert len(world.runs()) == 1


def test_a_run_that_was_stored_before_a_crash_gets_its_message_by_code_that_reads_the_message_otherwise() -> None:
    before, after = mapped(Queue("inbox", input=BEFORE)), mapped(Queue("inbox", input=AFTER))
    whole = World()
    play(whole.deliver([message(7)], before))
    world = World({whole.plan.calls: "crash before"})  # sending is the last call

    async def scenario() -> None:
        assert await world.deliver([message(7)], before) is None
        assert (len(world.runs()), world.sent()) == (1, [])
        await world.deliver([message(7)], after)

    play(scenario())
    assert [start.run_id for start in world.sent()] == world.runs()


def test_another_content_under_a_known_id_is_refused_and_not_taken_for_the_same_message() -> None:
    world = World()

    async def scenario() -> None:
        await world.deliver([message(1)])
        [verdict] = await world.deliver([message(1, '{"n": 2}')]) or []
        assert isinstance(verdict, Refused)
        assert verdict.refusal.error == KeyConflict.__name__

    play(scenario())
    assert len(world.runs()) == 1


# ---- one message and the others of its batch ------------------------------------------------------------------


class Odd(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        if n == 7_777:
            raise KeyError(n)
        return n


def test_a_message_that_the_code_stumbles_over_is_kept_alone_and_its_content_is_not_told() -> None:
    odd = App("odd", url="memory://")
    odd.workflow("odd", input=Odd, on_queue="inbox").step(name="step")(lambda odd: odd.n)
    world = World()
    first, kept, last = play(world.deliver([message(1), message(7_777), message(2)], odd)) or []
    assert isinstance(first, Done)
    assert isinstance(last, Done)
    assert isinstance(kept, Kept)
    assert "raised KeyError in check, " in str(kept.error)
    assert "7777" not in str(kept.error)
    assert len(world.runs()) == 2


Told = list[tuple[str, bool]]


def arrived(name: str, group: str) -> Arrived:
    body = '"refused"' if name.startswith("bad") else '{"n": 1}'
    return Arrived(SourceMessage(name, "inbox.fifo", body, group=group), "0/0", 1)


def test_of_a_fifo_queue_a_message_that_is_kept_holds_up_its_group_and_no_other() -> None:
    world, told = World(), Told()
    fifo = mapped(Queue("inbox.fifo", input="n"))

    async def settled(one: Arrived, _: Verdict, handled: bool) -> None:
        told.append((one.message.id, handled))

    async def scenario() -> None:
        batch = [arrived("a1", "a"), arrived("b1", "b"), arrived("a2", "a"), arrived("bad", "b"), arrived("b3", "b")]
        triggers = Triggers(Lifecycle(world.faulty), fifo.subscriptions)
        await triggers.handle([arrived("a0", "a").message])  # registers the definition
        world.plan.calls, world.plan.faults = 0, {1: "refused"}  # the write of a1
        await triggers.take(world.backend.source("inbox.fifo"), batch, settled)

    play(scenario())
    assert sorted(told) == [("a1", False), ("b1", True), ("b3", True), ("bad", True)]


def test_what_was_settled_is_told_before_the_next_message_of_its_group_is_begun() -> None:
    world, told = World(), Told()
    fifo = mapped(Queue("inbox.fifo", input="n"))
    begun = asyncio.Event()

    async def settled(one: Arrived, _: Verdict, handled: bool) -> None:
        told.append((one.message.id, handled))

    async def never(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        world.backend.queue.__dict__["send"] = never
        taking = asyncio.create_task(
            Triggers(Lifecycle(world.backend), fifo.subscriptions).take(
                world.backend.source("inbox.fifo"), [arrived("bad", "a"), arrived("a2", "a")], settled
            )
        )
        await begun.wait()
        taking.cancel()
        await asyncio.wait({taking})

    play(scenario())
    assert told == [("bad", True)]


# ---- long after -----------------------------------------------------------------------------------------------


def later(h: Harness, days: float) -> None:
    """Lets days pass with no worker, which would wake every few seconds of them; then what expired is dropped."""
    h.stop_worker()
    h.advance(days * DAY)
    h.wait_for(h.backend.sweep())
    h.start_worker()


@pytest.mark.parametrize("ends", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
def test_a_message_that_comes_again_long_after_its_run_ended_and_expired_starts_nothing(ends: RunStatus) -> None:
    ran.clear()
    with Harness(app) as h:
        if ends is not RunStatus.COMPLETED:
            h.fail("order", ValueError("no"), times=3 if ends is RunStatus.FAILED else 1)
        h.send("inbox", {"n": 1}, id="m-1")
        h.advance(0.2)
        [run] = h.runs(orders)
        if ends is RunStatus.CANCELLED:
            h.wait_for(run.acancel())
        assert h.settle(run) is ends
        attempts = len(ran)
        for days in (2, 12, KEEP_DAYS - 15):
            later(h, days)
            h.send("inbox", {"n": 1}, id="m-1")
            h.advance(1)
            assert [each.id for each in h.runs(orders)] == [run.id]
            assert ends is RunStatus.CANCELLED or h.steps(run) == {}, "steps go after the day the workflow asks for"
        assert len(ran) == attempts
        later(h, 2)
        assert h.runs(orders) == [], "the record goes as well, once no source can know the message"


def test_a_workflow_that_keeps_its_runs_for_longer_keeps_them_for_as_long_as_it_says() -> None:
    long = App("long", url="memory://")
    flow = long.workflow("flow", input=int, on_queue="inbox", retention_days=60)
    flow.step(name="step")(lambda n: n)
    with Harness(long) as h:
        h.send("inbox", 1)
        h.advance(1)
        later(h, 59)
        assert len(h.runs(flow)) == 1
        later(h, 2)
        assert h.runs(flow) == []


def test_a_run_that_no_message_started_is_kept_for_as_long_as_its_workflow_says() -> None:
    with Harness(app) as h:
        h.run(orders, 1)
        later(h, 2)
        assert h.runs(orders) == []


def test_pauses_double_up_to_a_quarter_of_an_hour() -> None:
    assert [HIDDEN.pause(count) for count in (0, 1, 2, 3, 7, 8, 10**9)] == [10, 10, 20, 40, 640, 900, 900]
