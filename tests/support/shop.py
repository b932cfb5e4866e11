"""The workflow that most scenarios use: every shape the kernel has, in one shop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from detent import App, Context, Failure, NonRetryable, Put, Retry, Workflow
from pydantic import BaseModel


class Order(BaseModel):
    id: str
    cents: int = 100


class Payment(BaseModel):
    cents: int


@dataclass
class Shop:
    """An app, and how often each body ran."""

    app: App
    orders: Workflow[Order, str]
    bodies: Counter[str] = field(default_factory=Counter[str])
    failure: Failure | None = None


def open_shop(*, handler: bool = False) -> Shop:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=Order, output=str)
    shop = Shop(app, orders)
    quick = Retry(attempts=3, initial=0.05)

    @orders.step(retry=quick)
    def reserve(order: Order) -> str:
        shop.bodies["reserve"] += 1
        return f"shelf-{order.id}"

    @orders.step(retry=quick, when=orders.input.cents > 0, delivery="exactly_once")
    async def charge(order: Order, shelf: str = reserve.output, *, ctx: Context) -> Payment:
        shop.bodies["charge"] += 1
        if order.id == "refused":
            raise NonRetryable("the card was refused")
        ctx.commit(Put("ledger", order.id, {"cents": order.cents, "key": ctx.idempotency_key}))
        ctx.log("charged", cents=order.cents)
        return Payment(cents=order.cents)

    @orders.step(after=[reserve], retry=quick)
    def label(order: Order) -> str:
        shop.bodies["label"] += 1
        return f"label-{order.id}"

    @orders.step(retry=quick)
    def ship(order: Order, paid: Payment | None = charge.output, stuck: str = label.output) -> str:
        shop.bodies["ship"] += 1
        return f"{stuck} {paid.cents if paid else 'free'}"

    @orders.step(delivery="at_most_once")
    def notify(shipped: str = ship.output) -> str:
        shop.bodies["notify"] += 1
        return f"sent: {shipped}"

    if handler:

        @orders.on_failure(retry=quick)
        def release(order: Order, why: Failure, shelf: str | None = reserve.output) -> str:
            shop.bodies["release"] += 1
            shop.failure = why
            return f"released {shelf}"

        @orders.on_failure(retry=quick)
        def apologise(released: str = release.output) -> str:
            shop.bodies["apologise"] += 1
            return f"sorry, {released}"

    return shop
