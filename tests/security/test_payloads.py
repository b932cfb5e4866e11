"""Values that are bombs, handed in or returned: typed errors, bounded memory, and a worker that goes on."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from detent import App, Context, InputError, RunStatus
from detent.testing import Harness
from detent_state_machine.errors import PayloadTooLarge

MEGABYTE = 1024 * 1024


def nested(levels: int, inside: object = None) -> list[Any]:
    value: Any = inside
    for _ in range(levels):
        value = [value]
    return [value]


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


BOMBS: dict[str, Callable[[], Any]] = {
    "deep": lambda: nested(100_000),
    "deep with a word": lambda: nested(100_000, "null"),
    "less deep": lambda: nested(230, "null"),
    "circular": circular,
    "number": lambda: 10**100_000 - 1,
    "surrogate": lambda: "\ud800",
    "not a number": lambda: [float("nan")],
    "object": object,
    "large": lambda: "x" * (65 * MEGABYTE),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_body_that_returns_a_bomb_fails_or_is_stored_and_the_worker_goes_on(bomb: str) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=bool)

    @flow.step
    def make(explode: bool) -> Any:
        return BOMBS[bomb]() if explode else 1

    @flow.step(when=make.output["a"] == 1)
    def look(made: Any = make.output) -> int:
        return 1

    @flow.step
    def last(looked: int | None = look.output) -> str:
        return "ended"

    with Harness(app) as h:
        run = h.start(flow, True)
        status = h.settle(run)
        assert status in (RunStatus.FAILED, RunStatus.COMPLETED)
        if status is RunStatus.FAILED:
            [failed] = [record for record in h.steps(run).values() if record.error is not None]
            assert failed.error is not None
            assert failed.error.type in ("NotSerializable", "InputError", "PayloadTooLarge", "CorruptRecord")
            assert failed.errors <= 1, "what does not fit once never fits"
        assert h.run(flow, False) == "ended"


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_handed_in_is_refused_or_started_with_a_typed_error_only(bomb: str) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=object)

    @flow.step
    def take(value: Any) -> int:
        return 1

    with Harness(app) as h:
        value = BOMBS[bomb]()
        for start in (h.client.astart(flow, value), h.client.astart("w", value)):
            try:
                run = h.wait_for(start)
            except InputError:
                continue
            assert h.settle(run) in (RunStatus.COMPLETED, RunStatus.FAILED)


@pytest.mark.parametrize("bomb", [bomb for bomb in BOMBS if bomb != "large"])
def test_a_bomb_in_a_log_line_costs_the_line_at_most(bomb: str) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step
    def speak(n: int, *, ctx: Context) -> int:
        ctx.log("before")
        ctx.log("bomb", bomb=BOMBS[bomb]())
        ctx.log("after")
        return n

    with Harness(app) as h:
        run = h.start(flow, 1)
        assert h.result(run) == 1
        assert {"before", "after"} <= {line.message for line in h.logs(run)}
        assert h.logs(run, "{ $.message = after }")


def test_a_payload_beyond_the_limit_is_refused_without_many_copies_of_it() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=str)
    flow.step(name="take")(lambda text: 1)
    with Harness(app) as h:
        text = "x" * (65 * MEGABYTE)
        tracemalloc.start()
        try:
            with pytest.raises(PayloadTooLarge):
                h.start(flow, text)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * len(text)
