"""What an author writes, and what the type checkers know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from detent import App, Context, Failure, Put, Queue, Retry, RunHandle, RunStatus, not_
from pydantic import BaseModel


class Order(BaseModel):
    id: str
    total: float


@dataclass
class Held:
    shelf: str


class Label(BaseModel):
    url: str


app = App("shop")
orders = app.workflow("orders", input=Order, output=Label)
untyped = app.workflow("untyped", on_queue="inbox")
refunds = app.workflow("refunds", input=Order, output=Label, on_queue=Queue("refunds", input="detail", key="id"))


@orders.step
def reserve(order: Order) -> Held:
    return Held(order.id)


@orders.step(
    retry=Retry(attempts=5, backoff=2.0), timeout=30, delivery="exactly_once", when=orders.input.total > 0
)
async def charge(order: Order, held: Held = reserve.output, *, ctx: Context) -> int:
    ctx.commit(Put("ledger", order.id, {"cents": 1}))
    return int(order.total)


@orders.step(after=[reserve], when=(reserve.output.shelf != "") & not_(orders.input.id == "x"))
def check(order: Order) -> bool:
    return True


@orders.step(when=check.output)
def ship(order: Order, held: Held = reserve.output, paid: int | None = charge.output) -> Label:
    return Label(url=f"{held.shelf}/{paid}")


@orders.on_failure
def release(order: Order, why: Failure, held: Held | None = reserve.output) -> str:
    return why.step


@orders.on_success
async def tell(label: Label | None = ship.output) -> None: ...


async def use(order: Order) -> None:
    assert_type(reserve.output, Held)
    assert_type(charge.output, int)
    assert_type(reserve(order), Held)
    assert_type(ship(order, Held("s"), 3), Label)
    assert_type(orders.start(order), RunHandle[Label])
    assert_type(await orders.astart(order, key="k", metadata={"a": "b"}), RunHandle[Label])
    assert_type(orders.start(order).result(), Label)
    assert_type(orders.run(order, timeout=3), Label)
    assert_type(await orders.arun(order), Label)
    assert_type(orders.start_many([order], key=lambda order: order.id), list[RunHandle[Label]])
    assert_type(orders.start(order).status(), RunStatus)
    untyped.start({"anything": 1})
