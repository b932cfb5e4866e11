"""What the type checkers must refuse: each line marked so has an error, and no other line has."""

from __future__ import annotations

from detent import App, Retry
from pydantic import BaseModel


class Order(BaseModel):
    id: str
    total: float


class Held(BaseModel):
    shelf: str


class Payment(BaseModel):
    cents: int


app = App("shop")
orders = app.workflow("orders", input=Order, output=Payment)


@orders.step
def reserve(order: Order) -> Held:
    return Held(shelf=order.id)


@orders.step
async def charge(order: Order, held: Held = reserve.output) -> Payment:
    return Payment(cents=1)


@orders.step
def wrong_output(order: Order, paid: Payment = reserve.output) -> None: ...  # refused


@orders.step
def wrong_async_output(order: Order, paid: Held = charge.output) -> None: ...  # refused


@orders.step(timout=3)  # refused
def wrong_option(order: Order) -> None: ...


@orders.step(delivery="exactly_twice")  # refused
def wrong_delivery(order: Order) -> None: ...


@orders.step(retry="3")  # refused
def wrong_retry(order: Order) -> None: ...


@orders.step(when=orders.input.totl > 0)  # refused
def wrong_field(order: Order) -> None: ...


@orders.step(when="total > 0")  # refused
def wrong_condition(order: Order) -> None: ...


@orders.step(after=[Retry()])  # refused
def wrong_after(order: Order) -> None: ...


app.workflow("other", input=Order, on_queue=7)  # refused
orders.start("A-17")  # refused
orders.start_many([Order(id="a", total=1), 7])  # refused
reserve("A-17")  # refused
result: str = orders.run(Order(id="a", total=1))  # refused
