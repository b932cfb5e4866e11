"""What the type checkers must refuse of waits: each line marked so has an error, and no other line has."""

from __future__ import annotations

from datetime import datetime, timedelta

from detent import App
from pydantic import BaseModel


class Order(BaseModel):
    id: str
    due: datetime


app = App("shop")
orders = app.workflow("orders", input=Order, output=str)
pause = orders.sleep("pause", timedelta(hours=3))

orders.until("due", "tomorrow")  # refused
orders.until("text", orders.input.id)  # refused
orders.until("seconds", 3)  # refused
orders.sleep("text", "3h")  # refused
orders.sleep("nothing")  # refused
orders.sleep("after", 3, after=[Order(id="a", due=datetime.now())])  # refused
orders.sleep("when", 3, when="cents > 0")  # refused
orders.sleep(name="named", duration=3)  # refused


@orders.step
def wrong_output(order: Order, slept: str = pause.output) -> str: ...  # refused


@orders.step
def the_wait_itself(order: Order, slept: datetime = pause) -> str: ...  # refused
