"""The app that is killed: a fork and a join, once in each delivery, whose bodies leave a trace that outlives them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping

from detent import App, Context, Retry, Update, Workflow
from detent_state_machine.status import Delivery

from tests.kills.ledger import Ledger

LONGEST = 0.2
"""Seconds a body takes at most before its effect, and again after it, so that a kill finds many of them under way."""
EFFECTS = "effects"
"""The collection of what `exactly_once` bodies commit, by run and step."""
PATHS = ("first", "left", "right", "last")

app = App("kills")


def diamond(delivery: Delivery) -> Workflow[int, int]:
    """A workflow of this delivery throughout. Its output is ten times its input, and three."""
    workflow = app.workflow(delivery.value, input=int, output=int)
    retry = Retry(attempts=1 if delivery is Delivery.AT_MOST_ONCE else 3, initial=0.2)

    async def effect(ctx: Context) -> None:
        ledger = Ledger.from_environment()
        ledger.append("begun", ctx.run_id, ctx.path, os.getpid())
        await asyncio.sleep(random.uniform(0, LONGEST))
        ledger.append("done", ctx.run_id, ctx.path, os.getpid())
        if delivery is Delivery.EXACTLY_ONCE:
            ctx.commit(Update(EFFECTS, f"{ctx.run_id}/{ctx.path}", add={"times": 1}))
        await asyncio.sleep(random.uniform(0, LONGEST))

    @workflow.step(delivery=delivery.value, retry=retry)
    async def first(number: int, *, ctx: Context) -> int:
        await effect(ctx)
        return number * 5

    @workflow.step(delivery=delivery.value, retry=retry)
    async def left(number: int = first.output, *, ctx: Context) -> int:
        await effect(ctx)
        return number + 1

    @workflow.step(delivery=delivery.value, retry=retry)
    async def right(number: int = first.output, *, ctx: Context) -> int:
        await effect(ctx)
        return number + 2

    @workflow.step(delivery=delivery.value, retry=retry)
    async def last(one: int = left.output, other: int = right.output, *, ctx: Context) -> int:
        await effect(ctx)
        return one + other

    return workflow


def expected_output(number: int) -> int:
    return 10 * number + 3


WORKFLOWS: Mapping[str, Workflow[int, int]] = {delivery.value: diamond(delivery) for delivery in Delivery}
