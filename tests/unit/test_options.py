"""An option that cannot mean what its author thinks is refused by name, on every decorator and call.

Durations are seconds or a `timedelta`, wherever there is one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from detent import (
    App,
    Client,
    ConfigurationError,
    DefinitionError,
    InputError,
    KeyConflict,
    Queue,
    Retry,
    RetryAfter,
    RunFailed,
    RunHandle,
    RunStatus,
)
from detent.testing import Harness
from detent_state_machine.retry import MAX_DELAY

from tests.unit.authoring import AnyWorkflow, refusal, workflow

NO_NUMBERS: list[Any] = [True, False, None, "", "60", math.nan, math.inf, -math.inf, [3], int, {}, 10**400]
NO_TEXT: list[Any] = [0, False, True, 5, 1.5, [], {}, str, b"a"]


def said_of(option: str, given: object, decorator: str = "step") -> str:
    """What the author of a step with this option reads."""

    def declare(flow: AnyWorkflow) -> None:
        def ship(order: Any) -> None: ...

        getattr(flow, decorator)(**{option: given})(ship)

    return refusal(declare)


# ---- options of steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decorator", ["step", "on_failure", "on_success"])
@pytest.mark.parametrize("given", [*NO_NUMBERS, 0, -1, 0.0, 86_401, timedelta(0), timedelta(days=2), timedelta(-1)])
def test_a_timeout_that_is_no_positive_duration_is_refused_on_every_decorator(decorator: str, given: Any) -> None:
    assert said_of("timeout", given, decorator).startswith("Workflow 'orders', step 'ship': `timeout=")


@pytest.mark.parametrize("given", [0, False, True, -1, 1.0, "3", "", 1001, Retry, [3], {"attempts": 3}, timedelta(1)])
def test_a_retry_that_is_neither_a_policy_nor_a_number_of_attempts_is_refused(given: Any) -> None:
    assert said_of("retry", given).startswith("Workflow 'orders', step 'ship': `retry=")


def test_the_refusal_of_no_attempts_at_all_says_how_one_is_written() -> None:
    assert "`retry=1`" in said_of("retry", 0)
    assert "`retry=1`" in said_of("retry", False)
    assert "`retry=Retry()`" in said_of("retry", Retry)


@pytest.mark.parametrize("given", [True, False, None, "5", "", 1.0, -1, 101, math.nan, timedelta(1)])
def test_take_overs_are_a_whole_number(given: Any) -> None:
    assert said_of("takeovers", given).startswith("Workflow 'orders', step 'ship': `takeovers=")


@pytest.mark.parametrize("given", [*NO_TEXT, ""])
def test_a_name_is_text_and_not_empty(given: Any) -> None:
    assert "name" in said_of("name", given)


@pytest.mark.parametrize("given", ["", 0, None, True, "exactly-once", "Exactly Once", "once", [], str])
def test_a_delivery_that_there_is_not_is_refused(given: Any) -> None:
    assert "there is no delivery" in said_of("delivery", given)


def test_a_delivery_in_another_spelling_is_refused_with_the_right_one() -> None:
    assert "Write 'exactly_once'." in said_of("delivery", "exactly-once")


@pytest.mark.parametrize("given", [0, False, "", None, "reserve", {"reserve"}, {"reserve": 1}, str])
def test_what_a_step_follows_is_a_list_and_not_a_set(given: Any) -> None:
    assert "`after=` is a list of steps" in said_of("after", given)


def test_a_set_of_steps_is_refused_with_the_list_for_a_set_has_another_order_in_each_process() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def reserve(order: Any) -> None: ...

        @flow.step
        def charge(order: Any) -> None: ...

        unordered: Any = {reserve, charge}

        @flow.step(after=unordered)
        def ship(order: Any) -> None: ...

    assert "Write it as `after=[charge, reserve]`." in refusal(declare)


def test_a_value_is_not_a_step_to_follow() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def reserve(order: Any) -> None: ...

        @flow.step(after=[reserve.output])  # type: ignore[list-item]
        def ship(order: Any) -> None: ...

    assert "which is a value, not a step. Give the step itself" in refusal(declare)


@pytest.mark.parametrize("given", [0, False, True, "", "yes", [], str])
def test_when_is_a_condition(given: Any) -> None:
    assert "`when=` needs a condition" in said_of("when", given)


def test_a_number_of_attempts_is_short_for_a_policy() -> None:
    flow = workflow()

    @flow.step(retry=3)
    def ship(order: Any) -> None: ...

    assert flow.definition.steps[0].retry == Retry(attempts=3)


def test_a_timedelta_is_a_duration_wherever_seconds_are() -> None:
    flow = workflow()

    @flow.step(timeout=timedelta(minutes=2), retry=Retry(initial=timedelta(seconds=3), max_delay=timedelta(minutes=5)))
    def ship(order: Any) -> None: ...

    step = flow.definition.steps[0]
    assert (step.timeout, step.retry.initial, step.retry.max_delay) == (120.0, 3.0, 300.0)
    assert RetryAfter(timedelta(minutes=1)).seconds == 60.0


# ---- Retry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["initial", "max_delay"])
@pytest.mark.parametrize("given", [*NO_NUMBERS, -1, -0.5, MAX_DELAY + 1, timedelta(-1), timedelta(days=2)])
def test_a_pause_that_is_no_duration_is_refused(option: str, given: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"`Retry\({option}="):
        Retry(**{option: given})


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("attempts", True),
        ("attempts", "3"),
        ("attempts", 3.0),
        ("attempts", None),
        ("backoff", True),
        ("backoff", "2"),
        ("backoff", math.inf),
        ("jitter", 0),
        ("jitter", "no"),
        ("jitter", None),
    ],
)
def test_an_option_of_another_kind_is_refused(option: str, given: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"`Retry\({option}="):
        Retry(**{option: given})


def test_options_of_a_policy_have_names() -> None:
    make: Any = Retry
    with pytest.raises(DefinitionError, match=r"Write it as `Retry\(attempts=3\)`"):
        make(3)


class Declined(Exception):
    pass


class lowered(Exception):
    pass


def test_errors_that_are_not_tried_again_are_named_by_their_classes_or_their_names() -> None:
    assert Retry(non_retryable=(Declined, lowered, "ValueError")).non_retryable == ("Declined", "lowered", "ValueError")
    assert Retry(non_retryable=[Declined]).non_retryable == ("Declined",)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("myapp.Declined", "Write 'Declined', or give the class itself."),
        ("Declined ", "Write 'Declined', or give the class itself."),
        ("declined", "Write 'Declined', or give the class itself."),
        ("", "Give the class itself."),
        ("object", "Give the class itself."),
        ("None", "Give the class itself."),
        ("Declined()", "Give the class itself."),
        ("Declined, KeyError", "Give the class itself."),
        ("*", "Give the class itself."),
    ],
)
def test_a_name_that_no_error_can_have_is_refused_with_the_fix(name: str, fix: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        Retry(non_retryable=(name,))
    assert str(refused.value).endswith(fix)


@pytest.mark.parametrize("given", [(int,), (object,), (5,), (None,), ((ValueError,),), (ValueError(),), {ValueError}])
def test_what_is_no_exception_class_is_refused(given: Any) -> None:
    with pytest.raises(DefinitionError, match="`Retry\\(non_retryable="):
        Retry(non_retryable=given)


def test_a_class_that_is_named_is_not_tried_again() -> None:
    flow = App("t").workflow("w", input=int)
    ran: list[int] = []

    @flow.step(retry=Retry(attempts=5, non_retryable=(lowered,)))
    def call(n: int) -> None:
        ran.append(n)
        raise lowered

    with Harness(flow.app) as h, pytest.raises(RunFailed):
        h.run(flow, 1)
    assert ran == [1]


# ---- workflows and apps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [*NO_TEXT, App, None])
def test_the_name_of_a_workflow_is_text(given: Any) -> None:
    with pytest.raises(DefinitionError, match="a name is text"):
        App("shop").workflow(given)


@pytest.mark.parametrize(
    "options",
    [
        {"retention_days": 0},
        {"retention_days": True},
        {"retention_days": "30"},
        {"retention_days": 30.0},
        {"retention_days": timedelta(days=30)},
        {"retention_days": math.nan},
        {"description": 5},
        {"description": None},
        {"input": "Order"},
        {"input": len},
        {"input": lambda: None},
        {"input": 5},
        {"output": "Label"},
        {"on_queue": ""},
        {"on_queue": 0},
        {"on_queue": False},
        {"on_queue": Queue},
        {"on_queue": ["inbox"]},
        {"on_queue": Queue(5)},  # type: ignore[arg-type]
        {"on_queue": Queue("inbox", when="")},
        {"on_queue": Queue("inbox", key=5)},  # type: ignore[arg-type]
        {"on_queue": Queue("inbox", input=True)},  # type: ignore[arg-type]
        {"on_queue": Queue("inbox", metadata="id")},  # type: ignore[arg-type]
        {"on_queue": Queue("inbox", metadata={"id": 5})},  # type: ignore[dict-item]
        {"on_queue": Queue("inbox", metadata={5: "id"})},  # type: ignore[dict-item]
    ],
)
def test_an_option_of_a_workflow_is_refused_with_its_name(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="orders"):
        App("shop").workflow("orders", **options)


@pytest.mark.parametrize("make", [lambda given: App("shop", url=given), lambda given: Client(given)])
@pytest.mark.parametrize("given", ["", 0, False, [], App])
def test_a_url_is_text_or_left_out(make: Callable[[Any], object], given: Any) -> None:
    with pytest.raises(ConfigurationError, match="url="):
        make(given)


@pytest.mark.parametrize("given", ["", 0, None, App])
def test_the_name_of_an_app_is_text(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="App"):
        App(given)


# ---- RetryAfter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "pause"), [("30", 30.0), (" 1.5 ", 1.5), (0, 0.0), (7, 7.0)])
def test_a_pause_that_a_server_names_as_text_is_a_number(given: Any, pause: float) -> None:
    assert RetryAfter(given).seconds == pause


@pytest.mark.parametrize(
    "given",
    ["", "soon", "30 s", "Wed, 21 Oct 2026 07:28:00 GMT", "nan", "inf", -1, "-1", None, True, math.nan, math.inf, [3]],
)
def test_what_is_no_pause_is_refused_in_the_constructor(given: Any) -> None:
    with pytest.raises(InputError, match=r"`RetryAfter\("):
        RetryAfter(given)


# ---- calls ------------------------------------------------------------------------------------------------------


def started(h: Harness) -> RunHandle[Any]:
    return h.start(h.app.workflows["w"], 1)


def app() -> App:
    made = App("t")
    flow = made.workflow("w", input=int)

    @flow.step
    def same(n: int) -> int:
        return n

    return made


CALLS: list[Callable[[Harness, Any], object]] = [
    lambda h, given: h.wait_for(started(h).aresult(given)),
    lambda h, given: h.wait_for(h.app.work(asyncio.Event(), grace=given)),
    lambda h, given: h.advance(given),
    lambda h, given: h.settle(started(h), within=given),
    lambda h, given: h.result(started(h), within=given),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("given", [True, False, "", "60", math.nan, math.inf, -1, [3], int, timedelta(-1)])
def test_a_duration_of_a_call_that_is_none_is_refused(call: Callable[[Harness, Any], object], given: Any) -> None:
    with Harness(app()) as h, pytest.raises(InputError, match="it should be"):
        call(h, given)


def test_a_timedelta_bounds_a_call() -> None:
    with Harness(app()) as h:
        assert h.result(started(h), within=timedelta(seconds=5)) == 1
        assert h.settle(started(h), within=timedelta(seconds=5)) is RunStatus.COMPLETED
        h.advance(timedelta(hours=1))
        assert h.wait_for(started(h).aresult(timedelta(seconds=5))) == 1


def test_a_result_that_is_waited_for_no_time_is_looked_for_once() -> None:
    with Harness(app()) as h:
        run = started(h)
        with pytest.raises(TimeoutError, match=f"{run.id} has not ended"):
            h.wait_for(run.aresult(0))
        h.settle(run)
        assert h.wait_for(run.aresult(0)) == 1


START: list[dict[str, Any]] = [
    *({"key": given} for given in [5, 0, False, True, "", b"a", ["a"], str]),
    *({"metadata": given} for given in ["team", ["team"], 5, {"team": 5}, {5: "team"}, {"team": None}]),
]


@pytest.mark.parametrize("options", START)
@pytest.mark.parametrize("name", [False, True])
def test_an_option_of_a_start_is_refused(options: dict[str, Any], name: bool) -> None:
    with Harness(app()) as h, pytest.raises(InputError, match=r"key|metadata"):
        h.wait_for(h.client.astart("w" if name else h.app.workflows["w"], 1, **options))


@pytest.mark.parametrize(
    "arguments",
    [
        {"values": "abc"},
        {"values": 5},
        {"values": {1: 2}},
        {"values": iter([1])},
        {"values": [1], "key": "a"},
        {"values": [1], "key": 5},
        {"values": [1], "key": lambda n: n},
        {"values": [1], "metadata": "a"},
    ],
)
def test_an_argument_of_many_starts_is_refused_before_the_first(arguments: dict[str, Any]) -> None:
    with Harness(app()) as h:
        with pytest.raises(InputError):
            h.wait_for(h.client.astart_many(h.app.workflows["w"], **arguments))
        assert h.runs(h.app.workflows["w"]) == []


@pytest.mark.parametrize("given", [5, None, app, int])
def test_what_is_no_workflow_is_not_started(given: Any) -> None:
    with Harness(app()) as h, pytest.raises(InputError, match="is not a workflow"):
        h.wait_for(h.client.astart(given, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"statuses": "FAILED"},
        {"statuses": RunStatus.FAILED},
        {"statuses": ["done"]},
        {"statuses": [5]},
        {"statuses": [None]},
        {"statuses": 5},
        {"limit": 0},
        {"limit": -1},
        {"limit": True},
        {"limit": "5"},
        {"limit": None},
        {"since": 5},
        {"since": "2026-01-01"},
        {"since": True},
        {"metadata": "team"},
        {"metadata": {"team": 5}},
        {"workflow": 5},
        {"workflow": ""},
        {"workflow": int},
    ],
)
def test_what_a_list_of_runs_is_asked_for_is_refused_by_name(options: dict[str, Any]) -> None:
    with Harness(app()) as h, pytest.raises(InputError, match=rf"`runs\({next(iter(options))}="):
        h.wait_for(h.client.aruns(**options))


@pytest.mark.parametrize("given", ["COMPLETED", "completed", RunStatus.COMPLETED])
def test_a_status_may_be_given_by_name(given: Any) -> None:
    with Harness(app()) as h:
        run = started(h)
        h.settle(run)
        assert [found.run_id for found in h.wait_for(h.client.aruns(statuses=[given]))] == [run.id]
        assert h.wait_for(h.client.aruns(statuses=["FAILED"])) == []


def test_since_is_a_moment_or_how_long_ago() -> None:
    with Harness(app()) as h:
        run = started(h)
        h.advance(3_600)
        late = started(h)
        ago = h.wait_for(h.client.aruns(since=timedelta(minutes=5)))
        then = h.wait_for(h.client.aruns(since=datetime(2026, 1, 1, 0, 30, tzinfo=UTC)))
        assert [one.run_id for one in ago] == [one.run_id for one in then] == [late.id]
        assert {one.run_id for one in h.wait_for(h.client.aruns())} == {run.id, late.id}


@pytest.mark.parametrize("given", ["", 5, None, int, True])
def test_the_id_of_a_run_is_text(given: Any) -> None:
    with Harness(app()) as h:
        for call in (h.client.aget, h.client.acancel, h.client.aretry, h.client.asteps):
            with pytest.raises(InputError, match="run_id="):
                h.wait_for(call(given))
        with pytest.raises(InputError, match="run_id="):
            h.client.handle(given)
        with pytest.raises(InputError, match="collection="):
            h.wait_for(h.client.aread(given, "key"))
        with pytest.raises(InputError, match="key="):
            h.wait_for(h.client.aread("stock", given))


@pytest.mark.parametrize("given", [0, -1, True, 1.0, "5", None])
def test_how_many_messages_a_worker_drives_is_a_whole_number(given: Any) -> None:
    with Harness(app()) as h, pytest.raises(InputError, match="concurrency="):
        h.wait_for(h.app.work(asyncio.Event(), concurrency=given))


@pytest.mark.parametrize("given", [ValueError, "no", None])
def test_a_planned_error_is_an_error(given: Any) -> None:
    with Harness(app()) as h, pytest.raises(InputError, match="it should be an error"):
        h.fail("same", given)


def test_a_key_that_is_taken_names_the_run_that_has_it() -> None:
    with Harness(app()) as h:
        first = h.start(h.app.workflows["w"], 1, key="A-17")
        with pytest.raises(KeyConflict) as taken:
            h.start(h.app.workflows["w"], 2, key="A-17")
        assert taken.value.run_id == first.id
