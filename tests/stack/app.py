"""The application that the suite deploys. Every body tells the ledger that it began, and that it had its effect."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import cache

from detent import App, Context, Failure, NonRetryable, Queue, Retry, RetryAfter, Update, Workflow
from detent_state_machine.status import Delivery

from tests.stack.edition import EDITION
from tests.stack.ledger import Ledger

EFFECTS = "effects"
"""The collection of what `exactly_once` bodies commit, by run and step."""
HOPS = 18
"""Invocations in one chain, each by a message of the one before: Lambda's loop detection ends it at about 16."""
LARGE = 300_000
"""Characters, each of one byte: far over what a record or a message holds."""
LONG = 8.0
"""Seconds that outlast two heartbeats. A dead worker's message is back in 30 s, not in 960 s."""
PATIENT = Retry(attempts=1000)

app = App("stack")


def inbox(stack: str) -> str:
    """The name of the queue whose messages start runs: none of the stack's own."""
    return f"inbox-of-{stack}"


@cache
def ledger() -> Ledger:
    return Ledger.here()


def began(ctx: Context) -> None:
    ledger().append(ctx.run_id, f"{ctx.path} began", pid=os.getpid())


def effect(ctx: Context) -> None:
    ledger().append(ctx.run_id, f"{ctx.path} done")


# ---- graphs ---------------------------------------------------------------------------------------------------


def diamond(delivery: Delivery) -> Workflow[int, int]:
    """A fork and a join in one delivery throughout. Its output is ten times its input, and three."""
    workflow = app.workflow(f"diamond-{delivery.value}", input=int, output=int)
    retry = Retry(attempts=1) if delivery is Delivery.AT_MOST_ONCE else Retry()

    def work(ctx: Context) -> None:
        began(ctx)
        effect(ctx)
        if delivery is Delivery.EXACTLY_ONCE:
            ctx.commit(Update(EFFECTS, f"{ctx.run_id}/{ctx.path}", add={"times": 1}))

    @workflow.step(delivery=delivery.value, retry=retry)
    def first(number: int, *, ctx: Context) -> int:
        work(ctx)
        return number * 5

    @workflow.step(delivery=delivery.value, retry=retry)
    def left(number: int = first.output, *, ctx: Context) -> int:
        work(ctx)
        return number + 1

    @workflow.step(delivery=delivery.value, retry=retry)
    def right(number: int = first.output, *, ctx: Context) -> int:
        work(ctx)
        return number + 2

    @workflow.step(delivery=delivery.value, retry=retry)
    def last(one: int = left.output, other: int = right.output, *, ctx: Context) -> int:
        work(ctx)
        return one + other

    return workflow


def killed(delivery: Delivery) -> Workflow[bool, str]:
    """Its worker is killed in the first attempt: by somebody else, or, if the input says so, by the body itself."""
    workflow = app.workflow(f"killed-{delivery.value}", input=bool, output=str)
    retry = Retry(attempts=1) if delivery is Delivery.AT_MOST_ONCE else Retry()

    @workflow.step(delivery=delivery.value, retry=retry, timeout=600)
    async def work(by_itself: bool, *, ctx: Context) -> str:
        began(ctx)
        if ctx.attempt == 1:
            await asyncio.sleep(LONG)
            if by_itself:
                os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.sleep(300)
        effect(ctx)
        if delivery is Delivery.EXACTLY_ONCE:
            ctx.commit(Update(EFFECTS, f"{ctx.run_id}/{ctx.path}", add={"times": 1}))
        return f"done in attempt {ctx.attempt}"

    return workflow


DIAMONDS = {delivery: diamond(delivery) for delivery in Delivery}
KILLED = {delivery: killed(delivery) for delivery in Delivery}


# ---- errors ---------------------------------------------------------------------------------------------------

flaky = app.workflow("flaky", input=str, output=str)


@flaky.step(retry=Retry(attempts=3, initial=0.2))
def try_hard(text: str, *, ctx: Context) -> str:
    began(ctx)
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt} of {text!r} did not get through")
    return f"{text} in attempt {ctx.attempt}"


stubborn = app.workflow("stubborn", input=str, output=str)


@stubborn.step(retry=Retry(attempts=HOPS, initial=0.1, backoff=1.0))
def try_on(text: str, *, ctx: Context) -> str:
    began(ctx)
    if ctx.attempt < HOPS:
        raise ConnectionError("not yet")
    return text


class CardRefused(NonRetryable):
    pass


repairable = app.workflow("repairable", input=str, output=str)


@repairable.step
def reserve(text: str, *, ctx: Context) -> str:
    effect(ctx)
    return f"{text} reserved"


@repairable.step
def charge(text: str, held: str = reserve.output, *, ctx: Context) -> str:
    if not ledger().count(text):
        raise CardRefused(f"no money for {text}")
    effect(ctx)
    return f"{held}, charged"


@repairable.on_failure
def release(text: str, failure: Failure, *, ctx: Context) -> str:
    ledger().append(ctx.run_id, f"released after {failure.step}: {failure.error.type}")
    return text


unlucky = app.workflow("unlucky", input=float, output=str)
"""Its input is the pause before its only step's second attempt, whose message nobody can handle."""


@unlucky.step
def go_on(pause: float, *, ctx: Context) -> str:
    began(ctx)
    if ctx.attempt == 1:
        raise RetryAfter(pause, "not now")
    return "all the same"


poisoned = app.workflow("poisoned", input=float, output=str)
"""The same, but that its step does not begin again after a worker that died."""


@poisoned.step(takeovers=0)
def give_up(pause: float, *, ctx: Context) -> str:
    began(ctx)
    raise RetryAfter(pause, "not now")


@poisoned.on_failure
def clean_up(pause: float, failure: Failure, *, ctx: Context) -> float:
    ledger().append(ctx.run_id, f"cleaned up after {failure.error.type}")
    return pause


# ---- time -----------------------------------------------------------------------------------------------------

endless = app.workflow("endless", input=str, output=str)


@endless.step(timeout=600)
async def sit(text: str, *, ctx: Context) -> str:
    began(ctx)
    await asyncio.sleep(300)
    return text


@endless.step
def afterwards(text: str = sit.output, *, ctx: Context) -> str:
    began(ctx)
    return text


growing = app.workflow("growing", input=str, output=str)
"""A workflow that a later edition of the application gives another step."""


@growing.step(retry=PATIENT)
def hold(gate: str, *, ctx: Context) -> list[str]:
    began(ctx)
    if not ledger().count(gate):
        raise RetryAfter(10.0, f"{gate} is not open yet")
    return ["held"]


if EDITION > 1:

    @growing.step
    def polish(so_far: list[str] = hold.output, *, ctx: Context) -> str:
        effect(ctx)
        return "polished"


@growing.step(after=["polish"] if EDITION > 1 else [])
def finish(so_far: list[str] = hold.output) -> str:
    return f"{', '.join(so_far)}, finished by edition {EDITION}"


# ---- messages -------------------------------------------------------------------------------------------------

source = Queue(inbox(os.environ.get("DETENT_STACK", "nobody")), input="name")
greeting = app.workflow("greeting", input=str, output=str, on_queue=source)


@greeting.step
def greet(name: str, *, ctx: Context) -> str:
    effect(ctx)
    return f"hello {name}"


# ---- values and lines -------------------------------------------------------------------------------------------

large = app.workflow("large", input=str, output=str)


@large.step
def stretch(text: str) -> str:
    return (text * (LARGE // len(text) + 1))[:LARGE]


@large.step
def turn(text: str = stretch.output) -> str:
    return text[::-1]


talking = app.workflow("talking", input=str, output=str)


@talking.step
def talk(text: str, *, ctx: Context) -> str:
    ctx.log("said", text=text, words=len(text.split()))
    ctx.log("worried", level="WARNING", text=text)
    return text
