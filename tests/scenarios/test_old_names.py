"""A run of a definition that an older detent stored, with step names that look like the paths of step runs today."""

from __future__ import annotations

import pytest
from detent import App, Context, Failure, Retry, RunFailed, RunStatus, StepStatus, Workflow
from detent_state_machine import compiler

from tests.scenarios.conftest import OpenHarness


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no character was reserved."""
    monkeypatch.setattr(compiler, "RESERVED", "")


def named(app: App) -> tuple[Workflow[int, int], dict[str, list[int]]]:
    """`w`: `a/b#2[3]`, then `a` and `b[0]`, joined in `@c`; a failure goes to `on/failure#1`."""
    flow = app.workflow("w", input=int, output=int)
    begun: dict[str, list[int]] = {}

    def note(name: str, n: int, ctx: Context) -> int:
        begun.setdefault(name, []).append(ctx.attempt)
        if n < 0 and name == "b[0]":
            raise ConnectionError("no line")
        if ctx.attempt == 1 and name == "a/b#2[3]":
            raise ConnectionError("not yet")
        return n + 1

    def first(n: int, ctx: Context) -> int:
        return note("a/b#2[3]", n, ctx)

    first.__name__ = "a/b#2[3]"
    begin = flow.step(retry=Retry(attempts=2, initial=0.01))(first)

    def left(ctx: Context, n: int = begin.output) -> int:
        return note("a", n, ctx)

    def right(ctx: Context, n: int = begin.output) -> int:
        return note("b[0]", n, ctx)

    left.__name__, right.__name__ = "a", "b[0]"
    to_left, to_right = flow.step(left), flow.step(retry=None)(right)

    def join(ctx: Context, one: int = to_left.output, other: int = to_right.output) -> int:
        return note("c@2", one * other, ctx)

    join.__name__ = "c@2"
    flow.step(join)

    def undo(failure: Failure, ctx: Context) -> None:
        note("on/failure#1", 0, ctx)
        assert failure.step == "b[0]"

    undo.__name__ = "on/failure#1"
    flow.on_failure(undo)
    return flow, begun


@pytest.mark.usefixtures("older")
def test_a_run_with_such_names_is_driven_to_its_end(harness: OpenHarness) -> None:
    app = App("t")
    flow, begun = named(app)
    h = harness(app)
    run = h.start(flow, 5)
    assert h.result(run) == 50
    steps = h.steps(run)
    done = ["a/b#2[3]", "a", "b[0]", "c@2"]
    assert [name for name, step in steps.items() if step.status is StepStatus.COMPLETED] == done
    assert begun == {"a/b#2[3]": [1, 2], "a": [1], "b[0]": [1], "c@2": [1]}
    told = {line.path for line in h.logs(run) if line.path}
    assert told == set(done)


@pytest.mark.usefixtures("older")
def test_a_failure_goes_to_such_a_handler_and_a_retry_goes_on_where_it_failed(harness: OpenHarness) -> None:
    app = App("t")
    flow, begun = named(app)
    h = harness(app)
    run = h.start(flow, -5)
    with pytest.raises(RunFailed) as failed:
        h.result(run)
    assert failed.value.step == "b[0]"
    assert begun["on/failure#1"] == [1]
    again = h.wait_for(h.client.aretry(run.id))
    assert h.settle(again) is RunStatus.FAILED
    assert begun["a/b#2[3]"] == [1, 2]
