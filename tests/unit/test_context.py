"""What a step sees of its run, and that looking at it never breaks the body."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from detent import App, Context, LogEntry, Retry, RunFailed, RunStatus, StepStatus, Workflow
from detent.testing import EPOCH, Harness, context
from detent_infra.executor import Attempt, Control
from detent_infra.logs.lines import MAX_MESSAGE, fields_text
from detent_infra.ports import Timing
from detent_infra.sqlite import sqlite_backend
from detent_state_machine.definition import StepDefinition

AnyWorkflow = Workflow[Any, Any]
ONCE = Retry(attempts=1)


def flow() -> AnyWorkflow:
    return App("test", url="memory://").workflow("w", input=int)


def test_it_names_the_run_the_step_and_the_attempt() -> None:
    workflow = flow()
    seen: list[tuple[object, ...]] = []

    @workflow.step(name="look at it", retry=Retry(attempts=3, initial=0.0))
    def look(n: int, ctx: Context) -> int:
        seen.append((ctx.run_id, ctx.workflow, ctx.path, ctx.attempt, dict(ctx.metadata)))
        if ctx.attempt < 3:
            raise ConnectionError
        return n

    with Harness(workflow.app) as h:
        run = h.start(workflow, 1, metadata={"team": "blue"})
        h.result(run)
    assert seen == [(run.id, "w", "look at it", attempt, {"team": "blue"}) for attempt in (1, 2, 3)]


def test_take_overs_count_as_attempts() -> None:
    workflow = flow()
    attempts: list[int] = []

    @workflow.step(delivery="exactly_once")
    def look(n: int, ctx: Context) -> int:
        attempts.append(ctx.attempt)
        return n

    with Harness(workflow.app) as h:
        h.crash("look", times=2)
        h.run(workflow, 1)
    assert attempts == [3]


def test_the_idempotency_key_is_the_same_for_every_attempt_take_over_and_retry_of_the_run() -> None:
    workflow = flow()
    keys: list[str] = []
    broken = [True]

    @workflow.step
    def before(n: int) -> int:
        return n

    @workflow.step(retry=Retry(attempts=2, initial=0.0), delivery="exactly_once")
    def call(n: int = before.output, *, ctx: Context) -> int:
        keys.append(ctx.idempotency_key)
        if broken[0]:
            raise ConnectionError
        return n

    with Harness(workflow.app) as h:
        first = h.start(workflow, 1)
        assert h.settle(first) is RunStatus.FAILED
        second = h.wait_for(h.client.aretry(first.id))
        assert h.settle(second) is RunStatus.FAILED
        broken.clear()
        broken.append(False)
        h.crash("call")
        third = h.wait_for(h.client.aretry(second.id))
        assert h.result(third) == 1
        other = h.start(workflow, 1)
        h.result(other)
    assert len({first.id, second.id, third.id}) == 3
    assert keys == [f"{first.id}/call"] * 5 + [f"{other.id}/call"]


def test_remaining_counts_down_to_the_attempts_timeout_and_not_below() -> None:
    workflow = flow()
    left: list[float] = []

    @workflow.step(timeout=10)
    async def wait(n: int, ctx: Context) -> int:
        for _ in range(3):
            left.append(ctx.remaining)
            await asyncio.sleep(3)
        return n

    with Harness(workflow.app) as h:
        h.run(workflow, 1)
    assert left == [10.0, 7.0, 4.0]
    control = Control(log=lambda line: None, now=lambda: EPOCH + 60_000, deadline=EPOCH)
    attempt = Attempt("r", "w", "s", StepDefinition(name="s"), 1, "r/s", "null", {}, control)
    assert Context(attempt).remaining == 0.0


def test_a_timed_out_body_sees_that_nobody_waits_for_it() -> None:
    workflow = flow()
    seen: list[bool] = []

    @workflow.step(timeout=2, retry=ONCE)
    async def slow(n: int, ctx: Context) -> int:
        seen.append(ctx.is_cancelled)
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(ctx.is_cancelled)
        return n

    with Harness(workflow.app) as h, pytest.raises(RunFailed, match="StepTimeout"):
        h.run(workflow, 1)
    assert seen == [False, True]


def test_a_body_whose_run_was_cancelled_sees_it_at_the_next_heartbeat() -> None:
    workflow = flow()
    seen: list[tuple[bool, bool]] = []

    @workflow.step(timeout=3600)
    async def slow(n: int, ctx: Context) -> int:
        for _ in range(100):
            seen.append((cancelled[0], ctx.is_cancelled))
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                assert ctx.is_cancelled
                raise
        return n

    cancelled = [False]
    with Harness(workflow.app) as h:
        run = h.start(workflow, 1)
        h.advance(10.5)
        h.wait_for(run.acancel())
        cancelled[0] = True
        h.advance(h.backend.timing.heartbeat + 1)
        late = len(seen)
        h.advance(60)
        assert len(seen) == late  # the body was stopped
        assert late <= 11 + h.backend.timing.heartbeat + 1
        assert h.steps(run)["slow"].status is StepStatus.CANCELLED


OWN = "{ $.engine NOT EXISTS }"
"""The lines of steps, without those of the engine."""

# ---- log -------------------------------------------------------------------------------------------------------


def test_a_line_carries_where_it_comes_from_and_its_fields() -> None:
    lines: list[LogEntry] = []
    ctx = context(run_id="r1", step="charge", attempt=2, lines=lines)
    ctx.log("charged", level="WARN", cents=5, who={"name": "Ä"}, when=[1, None])
    [line] = lines
    assert (line.run_id, line.path, line.attempt, line.level, line.message) == ("r1", "charge", 2, "WARN", "charged")
    assert line.time == datetime.fromtimestamp(EPOCH / 1000, UTC)
    assert line.fields == {"cents": 5, "who": {"name": "Ä"}, "when": [1, None]}


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


looped: list[object] = []
looped.append(looped)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, {(1, 2): 3}, looped, Unprintable(), float("nan"), "caf\udce9", b"\xff", Path("x"), 10**400],
    ids=lambda value: type(value).__name__,
)
def test_logging_never_raises_and_is_always_json(value: Any) -> None:
    lines: list[LogEntry] = []
    ctx = context(lines=lines)
    ctx.log("look", value=value, other=1)
    ctx.log(value)
    assert set(lines[0].fields) == {"value", "other"}
    assert isinstance(lines[1].message, str)
    for line in lines:
        json.dumps(line.fields, allow_nan=False)
        (line.message + fields_text({"value": value})).encode()  # valid Unicode, as every store wants it


def test_a_long_line_is_cut() -> None:
    lines: list[LogEntry] = []
    context(lines=lines).log("x" * (MAX_MESSAGE + 5))
    assert len(lines[0].message) == MAX_MESSAGE
    assert lines[0].message.endswith("x…")


def test_lines_of_a_long_body_arrive_whenever_they_are_written() -> None:
    workflow = flow()

    @workflow.step(timeout=600)
    async def slow(n: int, ctx: Context) -> int:
        for minute in range(3):
            ctx.log(f"minute {minute}")
            await asyncio.sleep(60)
        return n

    with Harness(workflow.app) as h:
        run = h.start(workflow, 1)
        h.advance(70)
        so_far = [line.message for line in h.logs(run, OWN)]
        h.result(run)
        assert so_far == ["minute 0", "minute 1"]
        assert [line.message for line in h.logs(run, OWN)] == ["minute 0", "minute 1", "minute 2"]


def test_pythons_own_logging_inside_a_step_lands_in_the_log_of_its_run(caplog: pytest.LogCaptureFixture) -> None:
    workflow = flow()
    log = logging.getLogger("shop.payments")
    caplog.set_level(logging.INFO)

    def deep() -> None:
        log.info("charged %d cents", 5)
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("it failed")
        logging.getLogger("detent.inner").info("not for users")

    @workflow.step
    def sync(n: int) -> int:
        deep()
        return n

    @workflow.step
    async def asynchronous(n: int = sync.output) -> int:
        await asyncio.sleep(0)
        log.warning("careful")
        return n

    with Harness(workflow.app) as h:
        log.info("outside of any step")
        run, other = h.start(workflow, 1), h.start(workflow, 2)
        h.result(run), h.result(other)
        lines = h.logs(run, OWN)
    said = [(line.path, line.level, line.message.splitlines()[0], line.fields) for line in lines]
    name = {"logger": "shop.payments"}
    assert said == [
        ("sync", "INFO", "charged 5 cents", name),
        ("sync", "ERROR", "it failed", name),
        ("asynchronous", "WARN", "careful", name),
    ]
    assert "ValueError: no" in lines[1].message


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_pythons_logging_reaches_the_run_from_threads_too(tmp_path: Path, kind: str) -> None:
    workflow = flow()
    log = logging.getLogger("shop.threads")

    if kind == "sync":

        @workflow.step
        def body(n: int) -> int:
            log.warning("from a thread")
            return n
    else:

        @workflow.step(name="body")
        async def body_async(n: int) -> int:
            await asyncio.to_thread(log.warning, "from a thread")
            return n

    backend = sqlite_backend(tmp_path / "detent.db")
    with Harness(workflow.app, backend=backend) as h:
        run = h.start(workflow, 1)
        h.result(run, within=20)
        h.advance(0.5)  # lines are handed over just after the end
        assert [(line.path, line.message) for line in h.logs(run, OWN)] == [("body", "from a thread")]


# ---- what has no place in a store --------------------------------------------------------------------------------


def test_an_error_or_a_line_that_is_not_valid_unicode_ends_its_step_like_any_other(tmp_path: Path) -> None:
    workflow = flow()

    @workflow.step(retry=ONCE)
    def read(n: int, ctx: Context) -> int:
        ctx.log("reading caf\udce9.txt")
        raise FileNotFoundError("caf\udce9.txt")

    timing = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=1.0, visibility=1.0)
    with Harness(workflow.app, backend=sqlite_backend(tmp_path / "detent.db", timing=timing)) as h:
        run = h.start(workflow, 1)
        with pytest.raises(RunFailed, match=r"FileNotFoundError: caf\\udce9.txt"):
            h.result(run, within=10)
        h.advance(0.5)  # lines are handed over just after the end
        assert h.logs(run, "reading")[0].message == r"reading caf\udce9.txt"


def test_a_context_for_a_unit_test_needs_nothing() -> None:
    ctx = context(metadata={"a": "b"})
    assert (ctx.run_id, ctx.path, ctx.attempt, ctx.idempotency_key) == ("run", "step", 1, "run/step")
    assert (ctx.remaining, ctx.is_cancelled, ctx.committed, dict(ctx.metadata)) == (60.0, False, (), {"a": "b"})
    ctx.log("goes nowhere")
