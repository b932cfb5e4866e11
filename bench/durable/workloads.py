"""The same work as in bench/workflows.py and examples/orders, written as Lambda durable functions.

Each is what AWS's guide shows for its kind of work: a step per piece of work, `map` for a fan-out, a retry strategy on
the step, at-most-once where detent is told so. Runs in .venv-durable, which has no detent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aws_durable_execution_sdk_python import DurableContext, durable_execution
from aws_durable_execution_sdk_python.config import (
    CompletionConfig,
    Duration,
    MapConfig,
    NestingType,
    StepConfig,
    StepSemantics,
)
from aws_durable_execution_sdk_python.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy

from examples.orders import outside

Handler = Callable[[Any, Any], Any]

ONCE = StepConfig(retry_strategy=RetryPresets.none(), step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)


def retrying(attempts: int) -> StepConfig:
    return StepConfig(
        retry_strategy=create_retry_strategy(
            RetryStrategyConfig(max_attempts=attempts, initial_delay=Duration.from_seconds(1))
        )
    )


def chain(length: int, config: StepConfig | None = None) -> Handler:
    @durable_execution
    def handler(event: dict[str, int], context: DurableContext) -> dict[str, int]:
        value = event
        for number in range(length):
            value = context.step(
                lambda _, value=value: {"n": value.get("n", 0) + 1}, name=f"s{number}", config=config or StepConfig()
            )
        return value

    return handler


def fan_out(width: int) -> Handler:
    """Flat: the cheaper of the two nestings."""

    @durable_execution
    def handler(event: dict[str, int], context: DurableContext) -> dict[str, int]:
        root = context.step(lambda _: {"n": 1}, name="root")
        children = context.map(
            list(range(width)),
            lambda child, number, *_: child.step(lambda _: {"n": root["n"] + 1}, name=f"c{number}"),
            name="children",
            config=MapConfig(
                max_concurrency=10,
                nesting_type=NestingType.FLAT,
                completion_config=CompletionConfig.all_successful(),
            ),
        )
        done = len(children.get_results())
        return context.step(lambda _: {"joined": done}, name="join")

    return handler


def stumbling(failures: int) -> Handler:
    @durable_execution
    def handler(event: dict[str, int], context: DurableContext) -> dict[str, int]:
        def stumble(step: Any) -> dict[str, int]:
            if step.attempt <= failures:
                raise ConnectionError("the other side is down")
            return {"n": 1}

        return context.step(stumble, name="stumble", config=retrying(failures + 1))

    return handler


def agent(turns: int, text: int) -> Handler:
    @durable_execution
    def handler(event: dict[str, int], context: DurableContext) -> dict[str, str]:
        for turn in range(turns):
            context.step(lambda _: {"text": "t" * text}, name=f"think{turn}")
            context.step(lambda _: {"text": "o" * text}, name=f"tool{turn}")
        return context.step(lambda _: {"text": "a" * text}, name="answer")

    return handler


def documents(size: int) -> Handler:
    @durable_execution
    def handler(event: dict[str, int], context: DurableContext) -> int:
        fetched = context.step(lambda _: "x" * size, name="fetch")
        parsed = context.step(lambda _: fetched.upper(), name="parse")
        return context.step(lambda _: len(parsed), name="store")

    return handler


class Refused(Exception):
    """The bank said no."""


@durable_execution
def order(event: Mapping[str, Any], context: DurableContext) -> dict[str, Any]:
    """examples/orders: reserve, charge, ship, notify, and release if the card is refused."""
    key, cents = f"cdnow-{event['number']}", round(float(event["amount_usd"]) * 100)
    valid = context.step(
        lambda _: {"key": key, "customer": event["customer_id"], "day": event["date"], "cents": cents}, name="validate"
    )
    context.step(lambda _: {"cds": int(event["quantity"])}, name="reserve", config=ONCE)

    def charge(_: Any) -> dict[str, Any]:
        if outside.refuses_card(valid["customer"]):
            raise Refused(f"The bank refused {cents / 100:.2f} USD on the card of customer {valid['customer']}.")
        return {"reference": f"{key}/charge", "cents": cents}

    def ship(step: Any) -> dict[str, str]:
        if step.attempt == 1 and outside.closed_at_first(key):
            raise ConnectionError(f"No answer for the {event['quantity']} CDs of {key}.")
        return {"parcel": f"P{event['number']:08x}"}

    try:
        if cents > 0:
            context.step(charge, name="charge", config=ONCE)
    except Exception as error:
        context.step(lambda _: "CDs back in stock", name="release", config=ONCE)
        raise RuntimeError("the order failed") from error
    label = context.step(ship, name="ship", config=retrying(5))
    return context.step(lambda _: {"order": key, **label, "cents": cents}, name="notify", config=ONCE)


def handlers(sizes: Mapping[str, int]) -> dict[str, Handler]:
    """Each workload by its name in bench/cost.py. `sizes` is `bench.workflows.SIZES`."""
    return {
        "chain": chain(sizes["length"]),
        "at_most_once": chain(sizes["length"], ONCE),
        "exactly_once": chain(sizes["length"], ONCE),
        "fan_out": fan_out(sizes["width"]),
        "retries": stumbling(sizes["failures"]),
        "agent": agent(sizes["turns"], sizes["text"]),
        "documents": documents(sizes["document"]),
        "orders": order,
    }
