"""Reads back what the store holds of the orders, and holds it against the CSV, to the cent.

Nothing here is counted while the workflows run: runs and steps come from their records, money from the ledger and
the customers' accounts that `charge` wrote, so the figures are the same after a crash, or tomorrow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from detent import Client, RunInfo, RunStatus, StepInfo, StepStatus

from examples.orders.app import CardRefused, Line, cents


class Fate(StrEnum):
    """What became of an order's money."""

    CHARGED = "charged"
    REFUNDED = "charged and refunded"
    REFUSED = "refused by the bank"
    FREE = "free"
    UNTOUCHED = "ended before the charge"
    OPEN = "not decided yet"


@dataclass(frozen=True, slots=True)
class Order:
    """One line of the CSV with everything stored about it. `ledger` is in cents."""

    line: Line
    run: RunInfo | None
    steps: Mapping[str, StepInfo]
    ledger: int | None
    refunded: bool
    stock: str | None

    @property
    def cents(self) -> int:
        return cents(self.line.amount_usd)

    @property
    def fate(self) -> Fate:
        if self.ledger is not None:
            return Fate.REFUNDED if self.refunded else Fate.CHARGED
        charge = self.steps.get("charge")
        if charge is not None and charge.status is StepStatus.SKIPPED:
            return Fate.FREE
        if charge is not None and charge.error is not None and charge.error.type == CardRefused.__name__:
            return Fate.REFUSED
        return Fate.OPEN if self.run is None or self.run.status.live else Fate.UNTOUCHED

    @property
    def shipped(self) -> bool:
        ship = self.steps.get("ship")
        return ship is not None and ship.status is StepStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class Account:
    """What a customer paid, in cents, and in how many charges."""

    cents: int = 0
    charges: int = 0


@dataclass(frozen=True, slots=True)
class Books:
    """The orders as stored, and the customers' accounts: as stored, and as they must be by the ledger."""

    orders: Sequence[Order]
    accounts: Mapping[str, Account]
    expected: Mapping[str, Account]

    @property
    def input_cents(self) -> int:
        return sum(order.cents for order in self.orders)

    def runs(self) -> Counter[RunStatus]:
        return Counter(order.run.status for order in self.orders if order.run is not None)

    def failures(self) -> Counter[str]:
        """How many runs failed, by the step that failed and why."""
        reasons: Counter[str] = Counter()
        for order in self.orders:
            if order.run is not None and order.run.status is RunStatus.FAILED:
                failed = [step for step in order.steps.values() if step.status is StepStatus.FAILED]
                reasons.update(f"{step.path}: {step.error.type if step.error else 'unknown'}" for step in failed)
        return reasons

    def step_runs(self) -> Iterator[StepInfo]:
        for order in self.orders:
            yield from order.steps.values()

    def money(self) -> dict[Fate, tuple[int, int]]:
        """Orders and cents by fate. What was charged is what the ledger says, the rest what the CSV says."""
        found: dict[Fate, tuple[int, int]] = {}
        for order in self.orders:
            count, total = found.get(order.fate, (0, 0))
            found[order.fate] = (count + 1, total + (order.cents if order.ledger is None else order.ledger))
        return found

    @property
    def difference(self) -> int:
        """Cents of the input that are not accounted for. 0 once everything has ended."""
        return self.input_cents - sum(total for fate, (_, total) in self.money().items() if fate is not Fate.OPEN)

    def problems(self) -> Iterator[str]:
        """Everything that does not add up, in words."""
        for order in self.orders:
            yield from _problems(order)
        for customer, expected in self.expected.items():
            if self.accounts[customer] != expected:
                yield f"customer {customer}: {self.accounts[customer]} is stored, the ledger says {expected}"
        if self.difference:
            yield f"{self.difference} cents of the input are not accounted for"


async def read_steps(client: Client, run_id: str) -> dict[str, StepInfo]:
    """The steps that have begun, by path, in the order of the graph."""
    return {step.path: step for step in await client.asteps(run_id) if step.status is not None}


async def read_runs(client: Client) -> dict[str, RunInfo]:
    """The stored runs by the idempotency key that they were started with; of one that was retried, the newest."""
    runs = sorted(await client.aruns("orders", limit=1_000_000), key=lambda run: run.created)
    keys = {run.run_id: run.key for run in runs if run.key is not None}
    # A list does not say what a run is a retry of; its own record does.
    retries = [await client.aget(run.run_id) for run in runs if run.key is None]
    newest = {keys[run.run_id]: run for run in runs if run.run_id in keys}
    return newest | {keys[run.origin]: run for run in retries if run.origin in keys}


async def read_books(
    client: Client, lines: Sequence[Line], everything: Iterable[Line], ended: Mapping[str, Mapping[str, StepInfo]]
) -> Books:
    """The books of `lines`, which are among `everything` that may have been charged to their customers.

    `ended` has the steps, by run id, of ended runs that were read before: they do not change any more.
    """
    runs = await read_runs(client)
    ledger = {line.key: await client.aread("ledger", line.key) for line in everything}
    orders: list[Order] = []
    for line in lines:
        run = runs.get(line.key)
        steps = {} if run is None else ended.get(run.run_id) or await read_steps(client, run.run_id)
        entry, stock = ledger[line.key], await client.aread("stock", line.key)
        orders.append(
            Order(
                line=line,
                run=run,
                steps=steps,
                ledger=None if entry is None else _number(entry["cents"]),
                refunded=entry is not None and _refunded(entry),
                stock=None if stock is None else str(stock["state"]),
            )
        )
    customers = dict.fromkeys(line.customer_id for line in lines)
    stored = {customer: await client.aread("accounts", customer) for customer in customers}
    charged: dict[str, list[int]] = {customer: [] for customer in customers}
    for entry in ledger.values():
        if entry is not None and entry["customer"] in charged:
            charged[str(entry["customer"])].append(0 if _refunded(entry) else _number(entry["cents"]))
    return Books(
        orders=orders,
        accounts={
            customer: Account() if found is None else Account(_number(found["cents"]), _number(found["charges"]))
            for customer, found in stored.items()
        },
        expected={customer: Account(sum(found), len(found)) for customer, found in charged.items()},
    )


def _problems(order: Order) -> Iterator[str]:
    key, run = order.line.key, order.run
    if run is None:
        yield f"{key}: never started"
        return
    if run.status.live:
        yield f"{key}: run {run.run_id} has not ended"
        return
    if order.ledger is not None and order.ledger != order.cents:
        yield f"{key}: charged {order.ledger} cents instead of {order.cents}"
    if order.shipped and order.cents and order.fate is not Fate.CHARGED:
        yield f"{key}: shipped, but {order.fate}"
    if run.status is RunStatus.COMPLETED and not order.shipped:
        yield f"{key}: completed, but not shipped"
    wanted = "reserved" if order.shipped else "released"
    if order.stock not in (wanted, None) or (order.shipped and order.stock is None):
        yield f"{key}: its stock is {order.stock} instead of {wanted}"


def _refunded(entry: Mapping[str, object]) -> bool:
    return entry.get("refunded") is True


def _number(value: object) -> int:
    assert isinstance(value, int), f"the books hold {value!r} where a number belongs"
    return value
