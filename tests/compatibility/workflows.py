"""The workflows of the stored runs. Their steps are never renamed: the runs that are kept must find them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from detent import App, Context, Failure, Put, Retry, Workflow

LARGE = "large " * 1_500
"""More than a record holds: it becomes a blob."""
WIDTH = 101
"""More parents than one arrival set takes: their join is a tree."""


@dataclass
class Kept:
    """The app of today, and which body ran how often in which run."""

    app: App
    chain: Workflow[int, Any]
    fork: Workflow[int, Any]
    wide: Workflow[int, Any]
    choice: Workflow[int, Any]
    guarded: Workflow[int, Any]
    heavy: Workflow[str, Any]
    sleeper: Workflow[int, Any]
    payer: Workflow[str, Any]
    bodies: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])

    def ran(self, ctx: Context) -> None:
        self.bodies.setdefault(ctx.run_id, Counter())[ctx.path] += 1


def open_app() -> Kept:
    """The same app for every test, for declaring it takes longer than most of them; nothing has run yet."""
    kept = _declared()
    kept.bodies.clear()
    return kept


@cache
def _declared() -> Kept:
    app = App("kept", url="memory://")
    kept = Kept(
        app,
        app.workflow("chain", input=int),
        app.workflow("fork", input=int),
        app.workflow("wide", input=int),
        app.workflow("choice", input=int),
        app.workflow("guarded", input=int),
        app.workflow("heavy", input=str),
        app.workflow("sleeper", input=int),
        app.workflow("payer", input=str),
    )
    for declare in (_chain, _fork, _wide, _choice, _guarded, _heavy, _sleeper, _payer):
        declare(kept)
    return kept


def _sleeper(kept: Kept) -> None:
    @kept.sleeper.step
    def before(n: int, ctx: Context) -> int:
        kept.ran(ctx)
        return n + 1

    pause = kept.sleeper.sleep("pause", 60, after=[before])
    until = kept.sleeper.until("until", pause.output)

    @kept.sleeper.step
    def wake(n: int, ctx: Context, since: datetime = until.output) -> str:
        kept.ran(ctx)
        return f"{n} {since.isoformat()}"


def _payer(kept: Kept) -> None:
    paid = kept.payer.event("paid", "payment", key=kept.payer.input, type=int, timeout=60)

    @kept.payer.step
    def book(n: str, cents: int | None = paid.output, *, ctx: Context) -> str:
        kept.ran(ctx)
        return f"{n} {cents}"


def _chain(kept: Kept) -> None:
    @kept.chain.step
    def first(n: int, *, ctx: Context) -> int:
        kept.ran(ctx)
        ctx.log("first", n=n)
        return n + 1

    @kept.chain.step(delivery="exactly_once")
    def second(n: int = first.output, *, ctx: Context) -> int:
        kept.ran(ctx)
        ctx.commit(Put("ledger", ctx.run_id, {"n": n, "even": n % 2 == 0, "seen": frozenset({n})}))
        return n * 10

    @kept.chain.step(retry=Retry(attempts=3, initial=5.0))
    def third(n: int = second.output, *, ctx: Context) -> int:
        kept.ran(ctx)
        return n + 1

    @kept.chain.step(delivery="at_most_once")
    def fourth(n: int = third.output, *, ctx: Context) -> str:
        kept.ran(ctx)
        return f"sent {n}"


def _fork(kept: Kept) -> None:
    @kept.fork.step
    def left(n: int, *, ctx: Context) -> int:
        kept.ran(ctx)
        return n + 1

    @kept.fork.step
    def right(n: int, *, ctx: Context) -> int:
        kept.ran(ctx)
        return n + 2

    @kept.fork.step
    def meet(a: int = left.output, b: int = right.output, *, ctx: Context) -> list[int]:
        kept.ran(ctx)
        return [a, b]


def _wide(kept: Kept) -> None:
    def part(n: int, *, ctx: Context) -> int:
        kept.ran(ctx)
        return n

    parts = [kept.wide.step(name=f"part {number}")(part) for number in range(WIDTH)]

    @kept.wide.step(after=parts)
    def meet(n: int, *, ctx: Context) -> int:
        kept.ran(ctx)
        return n * WIDTH


def _choice(kept: Kept) -> None:
    @kept.choice.step
    def weigh(n: int, *, ctx: Context) -> dict[str, int]:
        kept.ran(ctx)
        return {"weight": n}

    @kept.choice.step(when=weigh.output["weight"] > 5)
    def heavy(n: dict[str, int] = weigh.output, *, ctx: Context) -> str:
        kept.ran(ctx)
        return "heavy"

    @kept.choice.step
    def carried(how: str = heavy.output, *, ctx: Context) -> str:
        kept.ran(ctx)
        return how

    @kept.choice.step
    def end(how: str | None = carried.output, *, ctx: Context) -> str:
        kept.ran(ctx)
        return how or "light"


def _guarded(kept: Kept) -> None:
    @kept.guarded.step(retry=Retry(attempts=1))
    def work(n: int, *, ctx: Context) -> int:
        kept.ran(ctx)
        return n

    @kept.guarded.on_failure
    def release(n: int, why: Failure, *, ctx: Context) -> str:
        kept.ran(ctx)
        return f"released {n} after {why.error.type}"

    @kept.guarded.on_failure
    def apologise(released: str = release.output, *, ctx: Context) -> str:
        kept.ran(ctx)
        return f"sorry, {released}"


def _heavy(kept: Kept) -> None:
    @kept.heavy.step
    def copy(text: str, *, ctx: Context) -> str:
        kept.ran(ctx)
        return text + text

    @kept.heavy.step
    def measure(text: str = copy.output, *, ctx: Context) -> int:
        kept.ran(ctx)
        return len(text)
