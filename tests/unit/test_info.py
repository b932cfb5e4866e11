"""What public calls return: values of Python's own types, of classes that `detent` exports."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import detent
import detent.testing
import pytest
from detent import App, Context, LogEntry, NonRetryable, Retry, RunStatus, StepStatus, UnknownStep
from detent.testing import Harness

EXPORTED = {getattr(module, name) for module in (detent, detent.testing) for name in module.__all__}
INNER = {"App.backend", "App.executor", "App.subscriptions", "Client.lifecycle", "Step.json", "Workflow.subscription"}
"""For the command line and the Lambda handlers."""
DECORATORS = {"App.task"}


def public_calls() -> Iterator[tuple[str, object]]:
    for cls in sorted((each for each in EXPORTED if inspect.isclass(each)), key=lambda each: each.__name__):
        for name, member in vars(cls).items():
            body = getattr(member, "fget", None) or getattr(member, "func", None) or member
            if (
                inspect.isfunction(body)
                and not name.startswith("_")
                and f"{cls.__name__}.{name}" not in INNER | DECORATORS
            ):
                yield f"{cls.__name__}.{name}", typing.get_type_hints(body, localns=vars(detent)).get("return")


def classes_in(annotation: object) -> Iterator[type]:
    if inspect.isclass(annotation) and not typing.get_origin(annotation):
        yield annotation
    for part in typing.get_args(annotation):
        yield from classes_in(part)
    if inspect.isclass(origin := typing.get_origin(annotation)):
        yield origin


@pytest.mark.parametrize(
    ("call", "returned"), list(public_calls()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_a_public_call_returns_is_exported(call: str, returned: object) -> None:
    ours = {each for each in classes_in(returned) if each.__module__.startswith("detent")}
    assert ours <= EXPORTED, call


def open_shop() -> App:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=int, output=int)

    @orders.step(retry=Retry(attempts=2, initial=60, jitter=False))
    def charge(cents: int, ctx: Context) -> int:
        ctx.log.info("charging", cents=cents, card={"last": "4242"})
        if cents < 0:
            raise NonRetryable("a refund is not an order")
        if ctx.attempt == 1:
            raise ConnectionError("the bank does not answer")
        return cents

    @orders.step
    def ship(paid: int = charge.output) -> int:
        return paid

    return app


def test_times_are_datetimes_in_utc_and_durations_are_timedeltas() -> None:
    app = open_shop()
    with Harness(app) as harness:
        run = harness.start(app.workflows["orders"], 5, metadata={"team": "red"})
        assert harness.result(run) == 5
        info, charge = harness.wait_for(harness.client.aget(run.id)), harness.steps(run)["charge"]

        async def history() -> list[detent.StepChange]:
            return [change async for change in run.ahistory()]

        retried, *_ = harness.wait_for(history())
        line = harness.logs(run, "charging")[0]
    assert info.ended is not None
    assert info.created.tzinfo is info.ended.tzinfo is line.time.tzinfo is retried.time.tzinfo is UTC
    assert info.ended - info.created >= timedelta(minutes=1)
    assert (info.metadata, info.key, info.error) == ({"team": "red"}, None, None)
    [failed] = charge.failed_attempts
    assert charge.started is not None
    assert charge.started - failed.ended == retried.pause
    assert (failed.attempt, failed.error) == (1, "ConnectionError: the bank does not answer")
    assert (retried.status, retried.attempt, retried.time) == (StepStatus.RETRYING, 1, failed.ended)


def test_fields_of_a_log_line_are_a_mapping_of_json_values() -> None:
    app = open_shop()
    with Harness(app) as harness:
        run = harness.start(app.workflows["orders"], 5)
        harness.result(run)
        line = harness.logs(run, "charging")[0]
    assert line.fields == {"cents": 5, "card": {"last": "4242"}}
    assert json.loads(json.dumps(line.fields)) == line.fields


def test_log_lines_are_read_from_a_time_on() -> None:
    app = open_shop()
    with Harness(app) as harness:
        run = harness.start(app.workflows["orders"], 5)
        harness.result(run)

        async def since(time: datetime) -> list[LogEntry]:
            return [line async for line in harness.client.alogs(run.id, since=time, pattern="charging")]

        first, second = harness.logs(run, "charging")
        assert harness.wait_for(since(first.time)) == [first, second]
        assert harness.wait_for(since(first.time + timedelta(seconds=1))) == [second]


def test_a_run_tells_its_input_and_what_each_step_returned() -> None:
    app = open_shop()
    with Harness(app) as harness:
        run = harness.start(app.workflows["orders"], 5)
        assert harness.wait_for(run.ainput()) == 5
        assert harness.output_of(run, "ship") is None
        harness.result(run)
        assert harness.output_of(run, "charge") == harness.output_of(run, "ship") == 5
        with pytest.raises(UnknownStep, match="no step 'sell'"):
            harness.output_of(run, "sell")


def test_every_step_of_a_run_is_told_also_one_that_has_not_begun() -> None:
    app = open_shop()
    with Harness(app) as harness:
        run = harness.start(app.workflows["orders"], -5)
        assert harness.settle(run) is RunStatus.FAILED
        info = harness.wait_for(harness.client.aget(run.id))
        charge, ship = harness.wait_for(harness.client.asteps(run.id))
    assert (charge.path, charge.status, charge.attempt, charge.errors) == ("charge", StepStatus.FAILED, 1, 1)
    assert (ship.path, ship.status, ship.attempt, ship.started, ship.ended) == ("ship", None, 0, None, None)
    assert info.failed_step == "charge"
    assert info.error is not None
    assert (info.error.type, info.error.message) == ("NonRetryable", "a refund is not an order")
