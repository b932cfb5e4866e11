"""The workflows that are measured: steps that do nothing and return a small dict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time_ns
from typing import Any

from detent import App, Context, Put, Retry, Workflow
from detent.options import DeliveryName
from detent.step import AnyStep

Small = dict[str, int]

SIZES = {"length": 10, "width": 100, "failures": 2, "turns": 10, "text": 1500, "document": 100_000}
"""Of the workloads whose cost is compared; the other engines get them as they are here."""


@dataclass
class Probe:
    """When bodies began: nanoseconds since the epoch, by path, in order. Comparable between processes."""

    began: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def note(self, path: str) -> None:
        self.began.setdefault(path, []).append(time_ns())


def chain(
    app: App,
    length: int = 10,
    *,
    sync: bool = False,
    delivery: DeliveryName = "at_least_once",
    probe: Probe | None = None,
    name: str = "chain",
) -> Workflow[Small, Any]:
    """Steps `s0`, `s1`, … in a row, each taking the output of the one before.

    With `delivery="exactly_once"` every step also commits one small entry of its own.
    """
    workflow: Workflow[Small, Any] = app.workflow(name, input=Small)
    note = probe.note if probe else _nothing
    commits = delivery == "exactly_once"
    last: AnyStep | None = None
    for number in range(length):
        body = _body(f"s{number}", last, note, sync=sync, commits=commits)
        last = workflow.step(name=f"s{number}", delivery=delivery)(body)
    return workflow


def fan_out(app: App, width: int = 100, *, probe: Probe | None = None, name: str = "fan_out") -> Workflow[Small, Any]:
    """`root`, then `width` parallel steps `c0`, `c1`, …, each taking its output, then `join` after all of them."""
    workflow: Workflow[Small, Any] = app.workflow(name, input=Small)
    note = probe.note if probe else _nothing
    root = workflow.step(name="root")(_body("root", None, note))
    children = [workflow.step(name=f"c{number}")(_body(f"c{number}", root, note)) for number in range(width)]

    @workflow.step(after=children)
    async def join() -> Small:
        note("join")
        return {"joined": width}

    return workflow


def stumbling(app: App, *, failures: int, name: str = "stumbling") -> Workflow[Small, Any]:
    """One step whose first attempts fail, `failures` of them, each retried after a pause of at most 50 ms."""
    workflow: Workflow[Small, Any] = app.workflow(name, input=Small)

    @workflow.step(retry=Retry(attempts=failures + 1, initial=0.05))
    async def stumble(value: Small, *, ctx: Context) -> Small:
        if ctx.attempt <= failures:
            raise ConnectionError("the other side is down")
        return value

    return workflow


def agent(app: App, turns: int = SIZES["turns"], text: int = SIZES["text"]) -> Workflow[Small, Any]:
    """An agent's turns: `think` and `tool` by turns, each with a text of so many characters, then `answer`.

    Unrolled, for this version of detent has no loop: the number of turns is declared.
    """
    workflow: Workflow[Small, Any] = app.workflow("agent", input=Small)
    last: AnyStep | None = None
    for name in [*(f"{kind}{turn}" for turn in range(turns) for kind in ("think", "tool")), "answer"]:
        last = workflow.step(name=name)(_speech(last, text))
    return workflow


def documents(app: App, size: int = SIZES["document"]) -> Workflow[Small, Any]:
    """Two steps that hand on a text too large for a record, and one that only measures it."""
    workflow: Workflow[Small, Any] = app.workflow("documents", input=Small)

    @workflow.step
    async def fetch(value: Small) -> str:
        return "x" * size

    @workflow.step
    async def parse(text: str = fetch.output) -> str:
        return text.upper()

    @workflow.step
    async def store(text: str = parse.output) -> int:
        return len(text)

    return workflow


def _speech(last: AnyStep | None, text: int) -> Callable[..., Any]:
    if last is None:

        async def begins(value: Small) -> dict[str, str]:
            return {"text": "t" * text}

        return begins

    async def goes_on(heard: dict[str, str] = last.output) -> dict[str, str]:
        return {"text": "t" * text}

    return goes_on


def _body(
    path: str, parent: AnyStep | None, note: Callable[[str], None], *, sync: bool = False, commits: bool = False
) -> Callable[..., Any]:
    """A body whose input is the parent's output, or the run's input."""

    def work(value: Small, ctx: Context) -> Small:
        note(path)
        if commits:
            ctx.commit(Put("bench", f"{ctx.run_id}/{path}", {"n": 1}))
        return {"n": value.get("n", 0) + 1}

    if parent is None:
        if sync:

            def first(value: Small, *, ctx: Context) -> Small:
                return work(value, ctx)

            return first

        async def first_async(value: Small, *, ctx: Context) -> Small:
            return work(value, ctx)

        return first_async
    if sync:

        def following(value: Small = parent.output, *, ctx: Context) -> Small:
            return work(value, ctx)

        return following

    async def following_async(value: Small = parent.output, *, ctx: Context) -> Small:
        return work(value, ctx)

    return following_async


def _nothing(path: str) -> None:
    """Notes nothing."""
