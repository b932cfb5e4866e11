"""A task is a workflow of one step, declared by one decorator."""

from __future__ import annotations

import asyncio

import pytest
from detent import App, Context, DefinitionError, InputError, Retry, RunFailed, StepStatus
from detent.testing import Harness

from tests.scenarios.conftest import OpenHarness


def test_a_function_is_a_task_that_runs_durably_and_is_called_like_a_function(harness: OpenHarness) -> None:
    app = App(url="memory://")

    @app.task
    def thumbnail(key: str, width: int = 100) -> str:
        """Makes a small picture."""
        return f"{key}@{width}"

    assert thumbnail("a.png", width=3) == "a.png@3"
    assert harness(app).run(thumbnail, "a.png") == "a.png@100"
    assert (thumbnail.name, thumbnail.__doc__) == ("thumbnail", "Makes a small picture.")
    assert thumbnail.definition.description == "Makes a small picture."


def test_an_async_task_takes_its_context_anywhere_and_is_retried_as_its_options_say(harness: OpenHarness) -> None:
    app = App(url="memory://")

    @app.task(name="count letters", retry=Retry(attempts=2, initial=0.01))
    async def count(ctx: Context, words: list[str]) -> int:
        await asyncio.sleep(0)
        if ctx.attempt == 1:
            raise ConnectionError
        return sum(len(word) for word in words)

    h = harness(app)
    run = h.start(count, ["to", "be"], key="A-17")
    assert h.result(run) == 4
    assert h.steps(run)["count letters"].attempt == 2
    assert h.start(count, ["to", "be"], key="A-17").id == run.id


def test_a_task_without_parameters_is_started_without_an_input(harness: OpenHarness) -> None:
    app = App(url="memory://")

    @app.task
    def tick() -> str:
        return "tock"

    @app.task(retry=Retry(attempts=1))
    def look(ctx: Context) -> str:
        raise OSError(ctx.workflow)

    h = harness(app)
    assert h.run(tick) == "tock"
    assert h.result(h.wait_for(h.client.astart("tick"))) == "tock"
    run = h.start(look)
    with pytest.raises(RunFailed, match="look"):
        h.result(run)
    assert h.steps(run)["look"].status is StepStatus.FAILED


def test_an_input_of_another_type_is_refused_where_it_is_given() -> None:
    app = App(url="memory://")

    @app.task
    def double(n: int) -> int:
        return 2 * n

    @app.task
    def tick() -> None: ...

    with Harness(app) as h:
        with pytest.raises(InputError, match="double"):
            h.start(double, "seventeen")  # type: ignore[misc]
        with pytest.raises(InputError, match="double"):
            h.start(double)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="tick"):
            h.start(tick, 17)  # type: ignore[misc]


def test_an_output_of_another_type_fails_its_own_attempt() -> None:
    app = App(url="memory://")

    @app.task(retry=Retry(attempts=1))
    def double(n: int) -> int:
        return f"twice {n}"  # type: ignore[return-value]

    with Harness(app) as h, pytest.raises(RunFailed, match="returned"):
        h.run(double, 1)


def test_messages_of_a_queue_start_a_task() -> None:
    app = App(url="memory://")

    @app.task(on_queue="pictures")
    def thumbnail(key: str) -> str:
        return key.upper()

    with Harness(app) as h:
        h.send("pictures", '"a.png"')
        h.advance(5)
        [run] = h.runs(thumbnail)
        assert h.result(run) == "A.PNG"


@pytest.mark.parametrize("options", [{"timout": 3}, {"when": True}, {"after": []}])
def test_an_option_that_no_task_has_is_refused_by_name(options: dict[str, object]) -> None:
    app = App(url="memory://")
    with pytest.raises(DefinitionError, match=f"no option '{next(iter(options))}'"):
        app.task(**options)(len)  # type: ignore[call-overload]
    assert not app.workflows


def test_a_refused_task_leaves_no_workflow_behind() -> None:
    app = App(url="memory://")
    with pytest.raises(DefinitionError, match="generator"):

        @app.task
        def numbers(n: int):  # type: ignore[no-untyped-def]
            yield n

    assert not app.workflows

    @app.task
    def once(n: int) -> int:
        return n

    with pytest.raises(DefinitionError, match="two workflows named 'once'"):
        app.task(name="once")(once.function)

    @app.task
    def two(a: int, b: int) -> int:
        return a + b

    with pytest.raises(DefinitionError, match="two inputs: 'a' and 'b'"):
        _ = two.definition
