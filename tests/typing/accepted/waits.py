"""What an author writes to wait, and what the type checkers know about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from detent import App, Wait
from pydantic import BaseModel


class Order(BaseModel):
    id: str
    cents: int
    due: datetime


app = App("shop")
orders = app.workflow("orders", input=Order, output=str)


@orders.step
def reserve(order: Order) -> datetime:
    return order.due


pause = orders.sleep("pause", timedelta(hours=3), after=[reserve, "reserve"], when=orders.input.cents > 0)
moment = orders.sleep("moment", 0.5, after=[pause])
due = orders.until("due", orders.input.due, after=[pause])
later = orders.until("later", reserve.output)
fixed = orders.until("fixed", datetime(2030, 1, 1, tzinfo=UTC), when=pause.output < orders.input.due)


@orders.step(after=[moment, fixed])
def remind(order: Order, since: datetime = due.output, slept: datetime | None = pause.output) -> str:
    return f"{since} {slept}"


def use(waits: list[Wait[Any]]) -> None:
    assert_type(pause, Wait[datetime])
    assert_type(due.output, datetime)
    assert_type(pause.name, str)
