"""A workflow with every kind of declaration in it; test_definition.py runs it in several processes."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import enum
from typing import Literal

from detent import App, Context, Failure, Retry, not_
from pydantic import BaseModel


class Kind(enum.Enum):
    GIFT = "gift"
    SALE = "sale"


class Order(BaseModel):
    id: str
    total: float = 0
    tags: set[str] = set()
    kind: Literal["b", "a"] | Kind | None = None
    lines: dict[str, list[int]] = {}


app = App("shop", url="memory://")
orders = app.workflow("orders", input=Order, output=dict[str, int | None], description="all of it")


@orders.step(retry=Retry(attempts=5, non_retryable=("ValueError", "KeyError", "TypeError")))
def reserve(order: Order) -> frozenset[str]:
    """Takes it from the shelf."""


@orders.step(when=(orders.input.total > 0) & not_(orders.input.kind == Kind.GIFT), timeout=30, delivery="exactly_once")
async def charge(order: Order, held: frozenset[str] = reserve.output, *, ctx: Context) -> int: ...


@orders.step(after=[reserve], name="la~bel..x")
def label(order: Order) -> None: ...


@orders.step(after=[label], takeovers=1)
def ship(paid: int | None = charge.output) -> dict[str, int | None]: ...


@orders.on_failure
def undo(why: Failure, held: frozenset[str] | None = reserve.output) -> None: ...


if __name__ == "__main__":
    print(orders.definition.version)
    print(orders.definition.to_json(), end="")
