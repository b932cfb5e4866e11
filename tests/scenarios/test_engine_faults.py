"""Every call that can fail does, once, at every place: the end and the effects are the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from detent import (
    Context,
    Put,
    Retry,
    RunFailed,
    RunHandle,
    RunStatus,
    StepStatus,
    Update,
)
from detent.testing.simulation.faults import Fault

from tests.scenarios.faulty import Faulty, Told, World, failing, world

SOON = Retry(attempts=3, initial=1.0)


def everything() -> World:
    """Every shape in one run: blob, commit, retry, skip and what it skips, heartbeats, fork, join, log."""
    w = world()
    flow, bodies = w.flow, w.bodies

    @flow.step
    def large(n: int, ctx: Context) -> str:
        bodies["large"] += 1
        ctx.log("large")
        return "x" * 20_000

    @flow.step(delivery="exactly_once")
    def charge(n: int, text: str = large.output, *, ctx: Context) -> int:
        bodies["charge"] += 1
        ctx.commit(Put("ledger", ctx.run_id, {"cents": n}), Update("ledger", "total", add={"count": 1, "cents": n}))
        return len(text)

    @flow.step(retry=SOON, after=[large])
    def flaky(n: int) -> int:
        bodies["flaky"] += 1
        if bodies["flaky"] == 1:
            raise ConnectionError("closed")
        return n

    @flow.step(when=flow.input > 100, after=[large])
    def gift(n: int) -> int:
        bodies["gift"] += 1
        return n

    @flow.step
    def wrap(n: int = gift.output) -> int:
        bodies["wrap"] += 1
        return n

    @flow.step(after=[charge])
    async def slow(n: int) -> int:
        bodies["slow"] += 1
        await asyncio.sleep(7)
        return n

    @flow.step
    def ship(
        a: int = charge.output, b: int = flaky.output, c: int | None = wrap.output, d: int = slow.output
    ) -> list[int | None]:
        bodies["ship"] += 1
        return [a, b, c, d]

    return w


def once() -> World:
    w = world()

    @w.flow.step
    def first(n: int) -> int:
        w.bodies["first"] += 1
        return n

    @w.flow.step(delivery="at_most_once")
    async def mail(n: int = first.output) -> int:
        w.bodies["mail"] += 1
        await asyncio.sleep(7)
        return n

    @w.flow.step
    def last(n: int = mail.output) -> int:
        w.bodies["last"] += 1
        return n + 1

    return w


def outcome(made: World, plan: Told, check: Callable[[World, Faulty, RunHandle[Any]], None]) -> None:
    with Faulty(made.app) as h:
        h.gate.plan = plan  # what the worker does when it starts is not what is tested here
        run = h.start(made.flow, 5)
        h.settle(run, within=5000)
        check(made, h, run)
        h.advance(150)
        assert h.queue.bodies() == []  # nothing is left over, or goes round for ever
        assert h.wait_for(h.client.aget(run.id)).status is h.settle(run)


def right(w: World, h: Faulty, run: RunHandle[Any]) -> None:
    assert h.result(run) == [20_000, 5, None, 5]
    statuses = {path: record.status for path, record in h.steps(run).items()}
    skipped = {"gift", "wrap"}
    assert statuses == {
        name: StepStatus.SKIPPED if name in skipped else StepStatus.COMPLETED
        for name in ("large", "charge", "flaky", "gift", "wrap", "slow", "ship")
    }
    assert h.value("ledger", "total") == {"count": 1, "cents": 5}
    assert h.value("ledger", run.id) == {"cents": 5}
    assert not {"gift", "wrap"} & set(w.bodies)
    assert min(w.bodies[name] for name in ("large", "charge", "flaky", "slow", "ship")) >= 1


def rightly_failed(w: World, h: Faulty, run: RunHandle[Any]) -> None:
    record = h.wait_for(h.client.aget(run.id))
    assert (record.status, record.failed_step) == (RunStatus.FAILED, "boom")
    steps = h.steps(run)
    assert h.output_of(run, "sorry") == "sorry for boom 5"
    assert h.value("ledger", "total") == {"count": 1}
    assert w.bodies["never"] == 0
    assert "never" not in steps


def at_most_once(w: World, h: Faulty, run: RunHandle[Any]) -> None:
    assert w.bodies["mail"] <= 1
    if h.settle(run) is RunStatus.COMPLETED:
        assert (h.result(run), w.bodies["mail"]) == (6, 1)
    else:
        with pytest.raises(RunFailed, match=r"Interrupted.*at_most_once body is never run again"):
            h.result(run)
        assert w.bodies["last"] == 0


def unorderable() -> World:
    """A condition that cannot be evaluated: the step fails before its body, and with it the run."""
    w = world()

    @w.flow.step
    def first(n: int) -> Any:  # of a type that says nothing, so that nobody can refuse what follows
        return n

    @w.flow.step(when=first.output > "five")
    def second(n: int) -> int:
        w.bodies["second"] += 1
        return n

    @w.flow.on_failure
    def sorry(n: int) -> str:
        return "sorry"

    return w


def rightly_refused(w: World, h: Faulty, run: RunHandle[Any]) -> None:
    with pytest.raises(RunFailed, match="'second' with InputError: The condition on first cannot order 5 and 'five'"):
        h.result(run)
    assert w.bodies["second"] == 0
    assert h.steps(run)["sorry"].status is StepStatus.COMPLETED


CHECKS = {
    "everything": (everything, right),
    "failing": (failing, rightly_failed),
    "at most once": (once, at_most_once),
    "unorderable": (unorderable, rightly_refused),
}


@pytest.mark.parametrize(("make", "check"), CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.UNKNOWN, Fault.REPEATED])
def test_one_fault_at_any_call_changes_neither_the_end_nor_the_effects(
    make: Callable[[], World], check: Callable[[World, Faulty, RunHandle[Any]], None], fault: Fault
) -> None:
    clean = Told()
    outcome(make(), clean, check)
    # Calls after a fault are others than without one, so go on until no call is left to be hit.
    position = 0
    while True:
        plan = Told(position, fault)
        try:
            outcome(make(), plan, check)
        except BaseException as error:
            error.add_note(f"{fault} at call {position}: {plan.calls[position]}")
            raise
        if len(plan.calls) <= position:
            break
        position += 1
    assert position >= len(clean.calls) - 1 >= 8


def test_these_runs_make_every_kind_of_write_there_is() -> None:
    writes: set[str] = set()
    for make, check in CHECKS.values():
        clean = Told()
        outcome(make(), clean, check)
        writes |= {
            re.sub(r"(step|join)#\w*(#\w+)?", r"\1", call.what)
            for call in clean.calls
            if call.operation in ("write", "transact")
        }
    assert writes >= {
        *(f"step := {status}" for status in ("RUNNING", "RETRYING", "COMPLETED", "SKIPPED", "FAILED", "CANCELLED")),
        *(f"run := {status}" for status in ("COMPLETED", "FAILING", "FAILED")),
        "join := expires, arrived",
    }
    assert any(what.startswith("step := COMPLETED + ") for what in writes)  # with what the step commits


def test_a_log_that_does_not_answer_holds_up_neither_steps_nor_heartbeats() -> None:
    w = everything()
    with Faulty(w.app) as h:
        h.gate.plan = lambda call: Fault.REFUSED if call.operation == "log" else None
        run = h.start(w.flow, 5)
        assert h.result(run, within=9) == [20_000, 5, None, 5]
        assert h.logs(run) == []


def test_a_cancel_is_seen_although_the_log_does_not_answer() -> None:
    w = world()

    @w.flow.step(timeout=600)
    async def slow(n: int, ctx: Context) -> int:
        ctx.log("working")
        await asyncio.sleep(500)
        return n

    with Faulty(w.app) as h:
        h.gate.plan = lambda call: Fault.REFUSED if call.operation == "log" else None
        run = h.start(w.flow, 5)
        h.advance(0.5)
        h.wait_for(run.acancel())
        h.advance(2 * h.backend.timing.heartbeat)
        assert h.steps(run)["slow"].status is StepStatus.CANCELLED
