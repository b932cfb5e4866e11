"""Sleeps as an author declares them: what compiles, and what is refused with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from detent import App, DefinitionError, Workflow
from detent_state_machine.definition import Definition
from detent_state_machine.draw import notes
from detent_state_machine.kinds.timer import MAX_SECONDS
from pydantic import BaseModel

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Order(BaseModel):
    id: str
    due: datetime
    day: date
    maybe: datetime | None = None


def orders() -> Workflow[Order, Any]:
    return App("shop", url="memory://").workflow("orders", input=Order)


def compiled(declare: Callable[[Workflow[Order, Any]], object]) -> Definition:
    flow = orders()
    declare(flow)
    return flow.definition


# ---- what compiles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declare", "due", "said"),
    [
        (lambda f: f.sleep("s", 90), {"kind": "sleep", "seconds": 90.0}, "sleeps 90 s"),
        (lambda f: f.sleep("s", 0), {"kind": "sleep", "seconds": 0.0}, "sleeps 0 s"),
        (lambda f: f.sleep("s", timedelta(hours=3)), {"kind": "sleep", "seconds": 10_800.0}, "sleeps 10800 s"),
        (lambda f: f.until("s", NOON), {"kind": "at", "time": 1_893_499_200_000}, "until 2030-01-01T12:00:00Z"),
        (
            lambda f: f.until("s", f.input.due),
            {"kind": "ref", "step": None, "path": ["due"]},
            "until input.due",
        ),
    ],
)
def test_a_sleep_is_data_in_the_definition(declare: Any, due: dict[str, Any], said: str) -> None:
    definition = compiled(declare)
    [step] = json.loads(definition.to_json())["steps"]
    assert step["kind"] == {"kind": "timer", "due": due}
    assert Definition.from_json(definition.to_json()) == definition
    assert notes(definition.steps[0])[0] == said


def test_a_workflow_with_a_sleep_needs_a_worker_that_knows_sleeps_and_no_other_workflow_does() -> None:
    assert compiled(lambda flow: flow.sleep("s", 1)).format == 3
    flow = orders()
    flow.step(name="a")(_nothing)
    assert flow.definition.format == 1
    assert "kind" not in flow.definition.to_json()


def _nothing(order: Order) -> None: ...


def test_a_sleep_follows_what_it_is_told_to_and_what_its_time_comes_from() -> None:
    flow = orders()

    @flow.step
    def plan(order: Order) -> datetime:
        return order.due

    first = flow.sleep("first", 1, after=[plan], when=flow.input.id != "")
    flow.until("second", plan.output, after=[first, "plan"])
    _, slept, until = flow.definition.steps
    assert [(parent.step, parent.need) for parent in slept.parents] == [("plan", "done")]
    assert {(parent.step, parent.need) for parent in until.parents} == {("plan", "completed"), ("first", "done")}


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declare", "said", "advice"),
    [
        (lambda f: f.sleep("s", -1), "it sleeps -1: it should be 0 or more", "timedelta"),
        (lambda f: f.sleep("s", MAX_SECONDS + 1), "at most 3,162,240,000 seconds", "timedelta"),
        (lambda f: f.sleep("s", "3h"), "it sleeps '3h': it should be a number of seconds or a `timedelta`", "hours=1"),
        (lambda f: f.sleep("s", float("nan")), "a number of seconds", "timedelta"),
        (lambda f: f.sleep("s", True), "a number of seconds", "timedelta"),
        (lambda f: f.sleep("s", f.input.due), "a number of seconds", "timedelta"),
        (lambda f: f.until("s", "tomorrow"), "waits until 'tomorrow', which is not a time", "orders.input.due"),
        (lambda f: f.until("s", date(2030, 1, 1)), "which is not a time", "datetime"),
        (lambda f: f.until("s", datetime(2030, 1, 1)), "has no offset", "tzinfo=UTC"),  # noqa: DTZ001
        (lambda f: f.until("s", f.input.id), "is str, not datetime", "Annotate it as datetime"),
        (lambda f: f.until("s", f.input.day), "is date, not datetime", "Annotate it as datetime"),
        (lambda f: f.until("s", f.input.maybe), "not datetime", "Annotate it as datetime"),
        (lambda f: f.until("s", f.input.dew), "Order has no 'dew'", "did you mean 'due'"),
        (
            lambda f: f.until("s", _other().input.due),
            "is used in workflow 'orders'",
            "Only values of the same workflow",
        ),
        (lambda f: f.sleep("", 1), "a name has 1 to 128 characters", ""),
        (lambda f: f.sleep("a/b", 1), "has none of", "Rename it"),
        (lambda f: f.sleep(7, 1), "a name is text", "quotes"),
        (lambda f: (f.sleep("s", 1), f.sleep("s", 2)), "has two steps named 's'", "rename one"),
        (lambda f: f.sleep("s", 1, after="t"), "`after=` is a list of steps", "after="),
        (lambda f: f.sleep("s", 1, after=["t"]), "'t'", ""),
        (lambda f: f.sleep("s", 1, after=[f.input]), "which is a value, not a step", "Give the step itself"),
        (lambda f: f.sleep("s", 1, when=True), "`when=` needs a condition", "orders.input.total"),
    ],
)
def test_a_wrong_sleep_is_refused_and_told_what_to_do(declare: Any, said: str, advice: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        compiled(declare)
    text = str(refused.value)
    assert said in text
    assert advice.lower() in text.lower()


def _other() -> Workflow[Order, Any]:
    return App("shop", url="memory://").workflow("other", input=Order)


def test_a_step_that_takes_a_sleep_itself_is_told_to_take_its_output() -> None:
    flow = orders()
    pause = flow.sleep("pause", 1)
    with pytest.raises(DefinitionError, match=r"`since = pause\.output`"):

        @flow.step
        def late(order: Order, since: datetime = pause) -> None: ...  # type: ignore[assignment]
