"""Runs go on while the code changes: each follows its own definition, and waits for a step that no code has."""

from __future__ import annotations

import pytest
from detent import (
    App,
    RunFailed,
    RunStatus,
    StepStatus,
)
from detent.testing import Harness
from detent_infra.memory import memory_backend
from detent_infra.ports import Timing

from tests.support.waiting import until_step


def test_a_message_for_a_step_this_code_does_not_have_waits_for_code_that_does() -> None:
    old, new = App(url="memory://"), App(url="memory://")
    for app, steps in ((old, 1), (new, 2)):
        flow = app.workflow("w", input=int)

        @flow.step
        def one(n: int) -> int:
            return n

        if steps == 2:

            @flow.step
            def two(n: int = one.output) -> int:
                return n + 1

    from detent_infra.memory import memory_backend

    backend = memory_backend(timing=Timing(lease=0.5, visibility=0.5, heartbeat=0.1, first_heartbeat=0.1))
    with Harness(old, backend=backend) as before:
        flow2 = new.workflows["w"]
        run = before.start(flow2, 1)  # started by new code, driven by old code
        until_step(before, run, "one", StepStatus.COMPLETED)
        assert "two" not in before.steps(run)
        before.stop_worker()
        with Harness(new, backend=backend) as after:
            assert after.result(run) == 2


def test_a_run_in_flight_follows_the_definition_it_was_started_with() -> None:
    from detent_infra.memory import memory_backend

    backend = memory_backend()
    old, new = App(url="memory://"), App(url="memory://")
    flow = old.workflow("w", input=int)

    @flow.step
    def one(n: int) -> int:
        return n

    changed = new.workflow("w", input=int)

    @changed.step(name="one")
    def one_now(n: int) -> int:
        return n

    @changed.step
    def two(n: int = one_now.output) -> int:
        return n + 1

    with Harness(old, backend=backend) as before:
        before.stop_worker()
        run = before.start(flow, 1)
        with Harness(new, backend=backend) as after:
            assert after.result(run) == 1
            assert set(after.steps(run)) == {"one"}
            assert after.result(after.start(changed, 1)) == 2


QUICK = Timing(first_heartbeat=0.1, heartbeat=0.2, lease=0.6, visibility=0.6)


def test_a_step_no_running_code_has_waits_for_as_long_as_it_takes() -> None:
    old, new = App(url="memory://"), App(url="memory://")
    flow = new.workflow("w", input=int, output=int)

    @flow.step
    def only(n: int) -> int:
        return n

    standing = old.workflow("unrelated", input=int)

    @standing.step
    def nothing(n: int) -> int:
        return n

    with Harness(old) as h:
        run = h.start(flow, 1)
        h.advance(4 * 3600.0)  # long past what a dead-letter queue allows
        assert h.wait_for(run.astatus()) is RunStatus.RUNNING
        assert len(h.wait_for(h.backend.dead_letters.receive(10, wait=0.0, visibility=1.0))) == 0


def test_code_that_changed_a_signature_gets_an_error_not_a_none() -> None:
    old, new = App(url="memory://"), App(url="memory://")
    before = old.workflow("w", input=int, output=str)

    @before.step
    def ship(n: int) -> str:
        return f"{n}"

    after = new.workflow("w", input=int, output=str)

    @after.step
    def price(n: int) -> int:
        return n

    @after.step(name="ship")
    def ship_now(n: int, p: int = price.output) -> str:
        return f"{n} for {p}"

    backend = memory_backend(timing=QUICK)
    with Harness(new, backend=backend) as h, pytest.raises(RunFailed, match="another version of the code"):
        h.result(h.start(before, 1))
