"""Whatever goes wrong between the end of a body and its record is that attempt's error, with its true text.

Each case runs on memory and on SQLite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detent import App, NonRetryable, Retry, RetryAfter, RunFailed, RunStatus
from detent.testing import Harness
from detent_infra.sqlite import sqlite_backend


class Told:
    """What became of a run whose only step has this body."""

    def __init__(self, harness: Callable[[App], Harness], body: Callable[[], Any], retry: Retry) -> None:
        app = App("t")
        flow = app.workflow("w", input=int)
        self.bodies = 0

        @flow.step(retry=retry)
        def f(n: int) -> Any:
            self.bodies += 1
            return body()

        with harness(app) as h:
            run = h.start(flow, 1)
            self.status = h.settle(run)
            step = h.steps(run)["f"]
            first = step.failed_attempts[0].ended if step.failed_attempts else step.ended
            assert step.ended is not None
            assert first is not None
            self.seconds = (step.ended - first).total_seconds()
            h.stop_worker()  # which has then written all its lines
            self.lines = [line.message for line in h.logs(run)]
            self.error = ""
            try:
                h.result(run)
            except RunFailed as failure:
                self.error = failure.message.split(" with ", 1)[1]


@pytest.fixture(params=["memory", "sqlite"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Told]:
    def harness(app: App) -> Harness:
        if request.param == "memory":
            return Harness(app)
        return Harness(app, backend=sqlite_backend(str(tmp_path / "t.db"), url="sqlite:///t.db"))

    def run(body: Callable[[], Any], retry: Retry | None = None) -> Told:
        return Told(harness, body, retry or Retry(attempts=2, initial=0))

    return run


class Named(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise OSError("no name today")

    def __getattribute__(cls, name: str) -> Any:
        raise OSError(f"no {name} today")


class Text(str):
    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        raise OSError("no encoding today")

    def __len__(self) -> int:
        raise OSError("no length today")

    def __format__(self, _: str) -> str:
        raise OSError("no format today")


class NoText(Exception):
    def __str__(self) -> str:
        raise OSError("no text today")


class NoTextAtAll(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class NumberText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class OwnText(Exception):
    def __str__(self) -> str:
        return Text("true text")


class NoNotes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise KeyboardInterrupt


class OddNotes(Exception):
    __notes__: Any = (7, NoText())


class NoAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise OSError(f"no {name} today")


class AnyAttribute(Exception):
    def __getattr__(self, name: str) -> Any:
        return lambda *_: 1 / 0


class NotEqual(Exception):
    def __eq__(self, other: object) -> bool:
        raise OSError("no comparison today")

    __hash__ = None  # type: ignore[assignment]


class OfAMetaclass(Exception, metaclass=Named):
    pass


class Late(RetryAfter):
    def __init__(self) -> None:
        """Without `super().__init__`."""


class LateText(RetryAfter):
    def __init__(self) -> None:
        Exception.__init__(self, "slow down")
        self.message, self.advice = "slow down", ""
        self.seconds = "soon"  # type: ignore[assignment]


class Stop(BaseException):
    pass


def raising(error: Callable[[], BaseException]) -> Callable[[], None]:
    def body() -> None:
        raise error()

    return body


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NoText, "NoText: (its message cannot be shown: OSError)."),
        (NoTextAtAll, "NoTextAtAll: (its message cannot be shown: SystemExit)."),
        (NumberText, "NumberText: (its message cannot be shown: TypeError)."),
        (OwnText, "OwnText: true text."),
        (lambda: NoNotes("true text"), "NoNotes: true text."),
        (lambda: OddNotes("true text"), "OddNotes: true text."),
        (lambda: NoAttributes("true text"), "NoAttributes: true text."),
        (lambda: AnyAttribute("true text"), "AnyAttribute: true text."),
        (lambda: NotEqual("true text"), "NotEqual: true text."),
        (lambda: OfAMetaclass("true text"), "OfAMetaclass: true text."),
        (Late, "Late: "),
        (LateText, "LateText: slow down."),
        (lambda: Stop("true text"), "Stop: true text."),
        (lambda: SystemExit(3), "SystemExit: 3."),
        (lambda: KeyboardInterrupt("true text"), "KeyboardInterrupt: true text."),
        (lambda: StopIteration(3), "StopIteration"),
        (lambda: StopAsyncIteration("true text"), "StopAsyncIteration: true text."),
        (lambda: GeneratorExit("true text"), "GeneratorExit: true text."),
        (lambda: asyncio.CancelledError("true text"), "CancelledError: true text."),
        (lambda: asyncio.InvalidStateError("true text"), "InvalidStateError: true text."),
        (lambda: TimeoutError("true text"), "TimeoutError: true text."),
        (lambda: ValueError("\udce9"), "ValueError: \\udce9."),
        (lambda: BaseExceptionGroup("all", [NoText(), NoAttributes("b")]), "BaseExceptionGroup|ExceptionGroup"),
    ],
)
def test_an_error_of_any_kind_is_its_attempts_error(
    told: Callable[..., Told], error: Callable[[], BaseException], text: str
) -> None:
    outcome = told(raising(error))
    assert outcome.status is RunStatus.FAILED
    assert outcome.bodies == 2, "each attempt counts as an error, none as a dead worker"
    assert any(each in outcome.error for each in text.split("|"))


# ---- groups and causes ------------------------------------------------------------------------------------------


def test_the_text_of_a_group_names_its_leaves(told: Callable[..., Told]) -> None:
    group = ExceptionGroup("two of three", [ValueError("bad"), ExceptionGroup("inner", [ConnectionError("down")])])
    outcome = told(raising(lambda: group))
    assert outcome.error.startswith(
        "ExceptionGroup: two of three (2 sub-exceptions): ValueError: bad; ConnectionError: down"
    )


def test_of_a_large_group_the_first_leaves_are_named_and_the_others_counted(told: Callable[..., Told]) -> None:
    outcome = told(raising(lambda: ExceptionGroup("many", [ValueError(str(n)) for n in range(100)])))
    assert "ValueError: 0; ValueError: 1; ValueError: 2; ValueError: 3; ValueError: 4; and 95 more" in outcome.error


@pytest.mark.parametrize(
    "group",
    [
        lambda: ExceptionGroup("a", [ValueError(), NonRetryable()]),
        lambda: ExceptionGroup("a", [ExceptionGroup("b", [NonRetryable("no")])]),
        lambda: BaseExceptionGroup("a", [SystemExit(), NonRetryable("no")]),
    ],
)
def test_a_group_with_an_error_that_is_not_to_be_retried_is_not_retried(
    told: Callable[..., Told], group: Callable[[], BaseException]
) -> None:
    assert told(raising(group)).bodies == 1


def test_a_group_with_an_error_that_the_policy_names_is_not_retried(told: Callable[..., Told]) -> None:
    policy = Retry(attempts=5, initial=0, non_retryable=(LookupError,))
    assert told(raising(lambda: ExceptionGroup("a", [ValueError(), KeyError("x")])), policy).bodies == 1


def test_a_group_waits_as_long_as_the_longest_pause_that_is_asked_for() -> None:
    group = ExceptionGroup("a", [RetryAfter(7), ExceptionGroup("b", [RetryAfter("90")]), ValueError()])
    outcome = Told(Harness, raising(lambda: group), Retry(attempts=2, initial=0))
    assert outcome.seconds >= 90


def test_what_an_error_was_raised_from_is_in_the_log_line(told: Callable[..., Told]) -> None:
    def body() -> None:
        try:
            try:
                raise ConnectionError("psp is down")
            except ConnectionError as error:
                raise LookupError("no rate") from error
        except LookupError as error:
            raise ValueError("cannot charge") from error

    outcome = told(body)
    said = "ValueError: cannot charge (caused by LookupError: no rate) (caused by ConnectionError: psp is down)"
    assert sum(said in line for line in outcome.lines) == 2
    assert said in outcome.error


def test_causes_that_go_round_in_a_circle_are_told_once(told: Callable[..., Told]) -> None:
    def body() -> None:
        first, second = ValueError("a"), ValueError("b")
        first.__cause__, second.__cause__ = second, first
        raise first

    assert "ValueError: a (caused by ValueError: b)." in told(body).error


def test_a_cause_that_is_withheld_is_not_told(told: Callable[..., Told]) -> None:
    def body() -> None:
        try:
            raise ConnectionError("secret")
        except ConnectionError:
            raise ValueError("cannot charge") from None

    assert not any("secret" in line for line in told(body).lines)


def test_the_bare_class_is_enough_to_give_up(told: Callable[..., Told]) -> None:
    outcome = told(raising(NonRetryable))
    assert (outcome.bodies, outcome.error) == (1, "NonRetryable: The step is not to be tried again.")


# ---- bodies that cancel themselves ------------------------------------------------------------------------------


def cancels_and_returns() -> Callable[[], Any]:
    async def body() -> int:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        return 1

    return body


def cancels_and_raises() -> Callable[[], Any]:
    async def body() -> int:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        raise ValueError("true text")

    return body


def cancels_and_waits() -> Callable[[], Any]:
    async def body() -> int:
        me = asyncio.current_task()
        assert me is not None
        me.cancel("true text")
        await asyncio.sleep(0)
        return 1

    return body


@pytest.mark.parametrize("body", [cancels_and_returns(), cancels_and_raises(), cancels_and_waits()])
def test_a_body_that_cancels_its_own_task_has_failed_an_attempt(
    told: Callable[..., Told], body: Callable[[], Any]
) -> None:
    outcome = told(body)
    assert (outcome.status, outcome.bodies) == (RunStatus.FAILED, 2)
    assert outcome.error.startswith("CancelledError: ")


def test_a_body_that_has_met_its_own_cancel_may_still_return(told: Callable[..., Told]) -> None:
    async def body() -> int:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return 1
        return 2

    assert told(body).status is RunStatus.COMPLETED
