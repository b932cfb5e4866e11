"""A shop's orders, each one a durable workflow.

    validate ─ reserve ─ charge ─ ship ─ notify          if a step fails for good: release

It uses every delivery there is, each where it belongs: money moves exactly once, an e-mail leaves at most once, and
whatever may harmlessly be done again is done at least once.

    DETENT_APP=examples.orders.app:app detent worker
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Annotated

from detent import App, Context, Equals, Failure, NonRetryable, Put, Retry, Update
from pydantic import BaseModel, Field, ValidationError

from examples.orders import outside


class Line(BaseModel):
    """An order as it comes in: a line of the CSV, nothing interpreted yet."""

    number: int
    customer_id: str
    date: str
    quantity: str
    amount_usd: str

    @property
    def key(self) -> str:
        """The idempotency key: starting a line twice starts one run."""
        return f"cdnow-{self.number}"


class Order(BaseModel):
    """A valid order. Money is whole cents, never a float; ten billion dollars is nobody's order."""

    key: str
    customer: Annotated[str, Field(pattern=r"^\d{5}$")]
    day: date
    cds: Annotated[int, Field(ge=1)]
    cents: Annotated[int, Field(ge=0, le=10**12)]


class Reservation(BaseModel):
    cds: int


class Payment(BaseModel):
    reference: str
    cents: int


class Label(BaseModel):
    parcel: str


class Receipt(BaseModel):
    """What a run ends with."""

    order: str
    parcel: str
    cents: int


class InvalidOrder(NonRetryable):
    """The line is not an order; trying again would not make it one."""


class CardRefused(NonRetryable):
    """The bank said no; asking again would not change its mind."""


app = App("orders")
orders = app.workflow("orders", input=Line, output=Receipt, description="One order of the CD shop, from line to mail")


def cents(amount: str) -> int:
    """Dollars as written, in whole cents. Raises `ValueError` for anything that is not an exact amount of money."""
    try:
        exact = Decimal(amount) * 100
        if exact == exact.to_integral_value():
            return int(exact)
    except (InvalidOperation, OverflowError, ValueError):
        pass
    raise ValueError(f"{amount!r} is not an amount in dollars and cents")


@orders.step
async def validate(line: Line) -> Order:
    """Turns the line into an order, or refuses it."""
    try:
        return Order.model_validate(
            {
                "key": line.key,
                "customer": line.customer_id,
                "day": line.date,
                "cds": line.quantity,
                "cents": cents(line.amount_usd),
            }
        )
    except (ValueError, ValidationError) as error:
        raise InvalidOrder(f"Line {line.number} is not an order: {error}") from error


@orders.step(delivery="exactly_once")
async def reserve(order: Order = validate.output, *, ctx: Context) -> Reservation:
    """Puts the CDs aside."""
    ctx.commit(Put("stock", order.key, {"cds": order.cds, "state": "reserved"}))
    return Reservation(cds=order.cds)


@orders.step(when=validate.output.cents > 0, delivery="exactly_once", retry=Retry(attempts=4, initial=0.2))
async def charge(order: Order = validate.output, held: Reservation = reserve.output, *, ctx: Context) -> Payment:
    """Takes the money. An order of 0.00 skips this step.

    The bank knows the charge by its idempotency key, so asking again after a crash moves no money twice; and the
    books are written in the same transaction as this step's completion, so they cannot disagree with it.
    """
    if not await outside.bank_accepts(order.customer, order.cents, key=ctx.idempotency_key):
        raise CardRefused(f"The bank refused {order.cents / 100:.2f} USD on the card of customer {order.customer}.")
    ctx.commit(
        Put("ledger", order.key, {"customer": order.customer, "cents": order.cents}),
        Update("accounts", order.customer, add={"cents": order.cents, "charges": 1}),
    )
    ctx.log("charged", customer=order.customer, cents=order.cents, cds=held.cds)
    return Payment(reference=ctx.idempotency_key, cents=order.cents)


@orders.step(retry=Retry(attempts=5, initial=0.2))
async def ship(
    order: Order = validate.output,
    held: Reservation = reserve.output,
    paid: Payment | None = charge.output,
    *,
    ctx: Context,
) -> Label:
    """Hands the parcel to the warehouse, which is sometimes down for a moment: `retry` sees to that."""
    parcel = await outside.warehouse_packs(order.key, held.cds, attempt=ctx.attempt)
    ctx.log("shipped", parcel=parcel, paid=0 if paid is None else paid.cents)
    return Label(parcel=parcel)


@orders.step(delivery="at_most_once")
async def notify(order: Order = validate.output, label: Label = ship.output) -> Receipt:
    """Tells the customer, once. If the worker dies in here the run ends as FAILED (Interrupted): nobody can know
    whether the mail has left, so whether to send it again is for a person to say: `detent retry RUN`.
    """
    await outside.send_mail(order.key, f"Dear customer {order.customer}, parcel {label.parcel} is on its way.")
    return Receipt(order=order.key, parcel=label.parcel, cents=order.cents)


@orders.on_failure(delivery="exactly_once")
async def release(
    why: Failure,
    order: Order | None = validate.output,
    held: Reservation | None = reserve.output,
    paid: Payment | None = charge.output,
    label: Label | None = ship.output,
    *,
    ctx: Context,
) -> str:
    """Gives back what a failed order holds. A parcel that has left is not called back."""
    if order is None or held is None or label is not None:
        return f"nothing to give back after {why.error.type} in {why.step}"
    ctx.commit(Update("stock", order.key, set={"state": "released"}, expect=Equals("state", "reserved")))
    if paid is None:
        return f"{held.cds} CDs back in stock"
    ctx.commit(
        Update("ledger", order.key, set={"refunded": True}, expect=Equals("cents", paid.cents)),
        Update("accounts", order.customer, add={"cents": -paid.cents, "refunds": 1}),
    )
    return f"{held.cds} CDs back in stock, {paid.cents / 100:.2f} USD refunded"
