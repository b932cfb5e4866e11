"""Tasks, as an author writes them, and what the type checkers know about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from detent import App, Client, Context, Retry, RunHandle
from detent.testing import Harness


@dataclass
class Order:
    id: str


app = App("shop")


@app.task
def thumbnail(key: str) -> str:
    return key


@app.task
async def athumbnail(key: str) -> str:
    return key


@app.task(retry=Retry(attempts=5), timeout=30)
def resized(key: str, width: int = 100) -> bytes:
    return b""


@app.task
def with_context(key: str, ctx: Context) -> int:
    return len(key)


@app.task
def context_first(ctx: Context, key: str) -> int:
    return len(key)


@app.task(timeout=3)
async def context_keyword(order: Order, *, ctx: Context) -> int:
    return len(order.id)


@app.task
def anything(payload: Any) -> int:
    return 1


@app.task
def an_object(payload: object) -> int:
    return 1


@app.task
def a_dict(payload: dict[str, Any]) -> int:
    return 1


@app.task
def a_list(keys: list[str]) -> int:
    return 1


@app.task
def nothing() -> int:
    return 1


@app.task(timeout=3)
async def only_context(ctx: Context) -> str:
    return ""


async def use_tasks(order: Order, ctx: Context, client: Client, harness: Harness) -> None:
    assert_type(thumbnail("a.png"), str)
    assert_type(thumbnail.start("a.png"), RunHandle[str])
    assert_type(thumbnail.run("a.png", timeout=3), str)
    assert_type(thumbnail.start_many(["a.png"]), list[RunHandle[str]])
    assert_type(athumbnail.start("a.png", key="k"), RunHandle[str])
    assert_type(await athumbnail("a.png"), str)
    assert_type(await athumbnail.arun("a.png"), str)
    assert_type(resized("a.png", 3), bytes)
    assert_type(resized("a.png", width=3), bytes)
    assert_type(resized.run("a.png"), bytes)
    assert_type(with_context.run("a.png"), int)
    assert_type(with_context("a.png", ctx=ctx), int)
    assert_type(context_first.run("a.png"), int)
    assert_type(context_first(ctx, "a.png"), int)
    assert_type(await context_keyword(order, ctx=ctx), int)
    anything.run({"a": 1})  # int for pyright, Any for mypy
    assert_type(an_object.run({"a": 1}), int)
    assert_type(a_dict.run({"a": 1}), int)
    assert_type(a_list.run(["a"]), int)
    assert_type(nothing.run(), int)
    assert_type(nothing.start(), RunHandle[int])
    assert_type(nothing(), int)
    assert_type(only_context.run(), str)
    assert_type(await only_context(ctx), str)
    assert_type(client.start(nothing), RunHandle[int])
    assert_type(client.start(context_keyword, order), RunHandle[int])
    assert_type(harness.run(nothing), int)
    assert_type(harness.run(thumbnail, "a.png"), str)
