"""Runs that messages of a queue start, through the public SDK, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar, cast

import boto3
import pytest
from detent import App, DeadLetterInfo, DefinitionError, KeyConflict, Queue, RunHandle, Workflow
from detent.testing import Harness
from detent_infra.ports import Arrived, Source
from detent_infra.sources.triggers import queues
from detent_state_machine.errors import ConfigurationError, Unavailable
from pydantic import BaseModel, field_validator

from tests.scenarios.conftest import OpenHarness
from tests.support.aws_stack import REGION
from tests.support.server import Server
from tests.support.service_stack import session
from tests.support.source_queues import create_queue, stored_in
from tests.support.waiting import until_in

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_Out = TypeVar("_Out")


class Order(BaseModel):
    id: str
    cents: int = 0


class Shop:
    """Workflows on one queue, with what their bodies did."""

    def __init__(self, on_queue: Queue | str = "inbox", *, retention_days: int = 30) -> None:
        self.app = App("shop", url="memory://")
        self.charged: list[str] = []
        self.orders: Workflow[Order, str] = self.app.workflow(
            "orders", input=Order, output=str, on_queue=on_queue, retention_days=retention_days
        )

        @self.orders.step
        def charge(order: Order) -> str:
            self.charged.append(order.id)
            return order.id


Open = Callable[[Shop], Harness]


@pytest.fixture
def opened(harness: OpenHarness, request: pytest.FixtureRequest) -> Open:
    """Opens the shop on the backend under test; where queues have to be made, they are there."""
    clients = {"aws": _moto_client, "service": lambda: _service_client(request.getfixturevalue("service"))}
    client = clients.get(request.node.callspec.params["harness"], lambda: None)()

    def open_shop(shop: Shop) -> Harness:
        for queue in queues(shop.app.subscriptions):
            if client is not None:
                create_queue(client, queue)
                for name in (queue, f"{queue}-dead"):
                    client.purge_queue(QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"])
        return harness(shop.app)

    return open_shop


def _moto_client() -> SQSClient:
    return boto3.client("sqs", region_name=REGION)


def _service_client(server: Server) -> SQSClient:
    return session().client("sqs", endpoint_url=server.endpoint)


def runs(h: Harness, workflow: Workflow[Order, _Out], count: int = 1) -> list[RunHandle[_Out]]:
    return until_in(h, lambda: found if len(found := h.runs(workflow)) >= count else [])


def letters(h: Harness, queue: str = "inbox", count: int = 1) -> list[DeadLetterInfo]:
    return until_in(h, lambda: found if len(found := h.dead_letters(queue)) >= count else [])


def empty(h: Harness, queue: str = "inbox") -> bool:
    """Whether every message was acknowledged."""
    return h.wait_for(stored_in(h.backend.source(queue))) == 0


# ---- started ------------------------------------------------------------------------------------------------


def test_a_message_starts_a_run_of_what_it_holds(opened: Open) -> None:
    shop = Shop()
    h = opened(shop)
    h.send("inbox", Order(id="A", cents=5), id="m-1")
    [run] = runs(h, shop.orders)
    assert h.result(run) == "A"
    record = h.wait_for(h.client.aget(run.id))
    assert (record.key, record.metadata) == ("inbox/m-1", {})
    assert until_in(h, lambda: empty(h))


def test_expressions_choose_the_input_the_key_and_metadata(opened: Open) -> None:
    shop = Shop(
        Queue("inbox", input="detail.order", key="detail.order.id", metadata={"shop": "message().attributes.s"})
    )
    h = opened(shop)
    h.send("inbox", {"detail": {"order": {"id": "A"}}}, attributes={"s": "Berlin"})
    [run] = runs(h, shop.orders)
    record = h.wait_for(h.client.aget(run.id))
    assert (record.key, record.metadata) == ("A", {"shop": "Berlin"})


def test_one_queue_starts_each_workflow_that_wants_the_message_and_one_that_none_wants_is_done_with(
    opened: Open,
) -> None:
    shop = Shop(Queue("inbox", when="kind == 'order' || kind == 'both'"))
    books = shop.app.workflow("books", input=Order, on_queue=Queue("inbox", when="kind == 'book' || kind == 'both'"))

    @books.step
    def book(order: Order) -> str:
        return order.id

    h = opened(shop)
    for kind in ("order", "book", "both", "none"):
        h.send("inbox", {"id": kind, "kind": kind})
    ordered, booked = runs(h, shop.orders, 2), runs(h, books, 2)
    assert {h.result(run) for run in ordered} == {"order", "both"}
    assert {h.result(run) for run in booked} == {"book", "both"}
    assert until_in(h, lambda: empty(h))
    assert h.dead_letters("inbox") == []


def test_a_message_and_a_start_under_the_same_key_are_one_run(opened: Open) -> None:
    shop = Shop(Queue("inbox", key="id"))
    h = opened(shop)
    run = h.start(shop.orders, Order(id="A", cents=5), key="A")
    h.send("inbox", '{"cents": 5.0, "id": "A"}')  # the same value, in another spelling
    assert until_in(h, lambda: empty(h))
    assert [each.id for each in h.runs(shop.orders)] == [run.id]
    assert h.result(run) == "A"


# ---- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        ("hello", "InputError", "not JSON"),
        ('{"cents":1}', "InputError", "$.id: Field required"),
        ('{"id":"A","cents":"many"}', "InputError", "$.cents"),
        ('{"id":"\\ud800"}', "InputError", "orders:"),
    ],
)
def test_what_can_start_nothing_is_a_dead_letter_with_the_reason(
    opened: Open, body: str, error: str, reason: str
) -> None:
    shop = Shop()
    h = opened(shop)
    h.send("inbox", body, id="m-1")
    [letter] = letters(h)
    assert letter.error == error
    assert reason in letter.reason
    assert (letter.id, letter.body) == ("m-1", body)
    assert until_in(h, lambda: empty(h))
    assert h.runs(shop.orders) == []


def test_metadata_and_keys_above_their_limits_refuse_the_message(opened: Open) -> None:
    shop = Shop(Queue("inbox", key="key", metadata={"note": "note"}))
    h = opened(shop)
    h.send("inbox", {"id": "A", "key": "k" * 513, "note": "x"})
    h.send("inbox", {"id": "A", "key": "k", "note": "x" * 3_000})
    refused = letters(h, count=2)
    said = sorted(letter.reason for letter in refused if letter.reason)
    assert "2,048 bytes" in said[0]
    assert "1 to 512 characters" in said[1]


def test_a_business_key_with_another_input_is_a_dead_letter_that_names_the_run(opened: Open) -> None:
    shop = Shop(Queue("inbox", key="id"))
    h = opened(shop)
    h.send("inbox", {"id": "A", "cents": 1})
    [run] = runs(h, shop.orders)
    h.send("inbox", {"id": "A", "cents": 2})
    [letter] = letters(h)
    assert letter.error == KeyConflict.__name__
    assert run.id in letter.reason
    assert len(h.runs(shop.orders)) == 1


def test_a_message_that_one_workflow_refuses_starts_the_others_and_once_fixed_only_the_one(
    opened: Open,
) -> None:
    shop = Shop()
    strict = shop.app.workflow("strict", input=int, on_queue=Queue("inbox", input="count"))

    @strict.step
    def count(n: int) -> int:
        return n

    fixed = Shop()
    lenient = fixed.app.workflow("strict", input=int, on_queue=Queue("inbox", input="cents"))
    lenient.step(name="count")(lambda n: n)

    h = opened(shop)
    h.send("inbox", {"id": "A", "cents": 3}, id="m-1")
    [letter] = letters(h)
    assert letter.reason.startswith("strict: ")
    runs(h, shop.orders)
    h.stop_worker()
    h.app = fixed.app  # a deploy of fixed code
    h.start_worker()
    assert h.wait_for(h.backend.source("inbox").redrive(10)) == 1
    until_in(h, lambda: h.runs(lenient))
    assert until_in(h, lambda: empty(h))
    assert (len(h.runs(fixed.orders)), len(h.runs(lenient))) == (1, 1)
    assert h.dead_letters("inbox") == []


# ---- known again --------------------------------------------------------------------------------------------


def test_a_message_that_is_delivered_again_and_again_starts_one_run(opened: Open) -> None:
    shop = Shop()
    h = opened(shop)
    for _ in range(3):
        h.send("inbox", Order(id="A"), id="m-1")
    [run] = runs(h, shop.orders)
    assert h.result(run) == "A"
    h.send("inbox", Order(id="A"), id="m-1")
    assert until_in(h, lambda: empty(h))
    assert len(h.runs(shop.orders)) == 1
    assert shop.charged == ["A"]


def test_a_message_whose_mapping_was_changed_between_two_deliveries_starts_no_second_run(opened: Open) -> None:
    before, after = Shop(Queue("inbox", input="old")), Shop(Queue("inbox", input="new"))
    h = opened(before)
    body = {"old": {"id": "A"}, "new": {"id": "B"}}
    h.send("inbox", body, id="m-1")
    runs(h, before.orders)
    h.stop_worker()
    h.app = after.app
    h.start_worker()
    h.send("inbox", body, id="m-1")
    assert until_in(h, lambda: empty(h))
    assert len(h.runs(after.orders)) == 1
    assert h.dead_letters("inbox") == []


def test_a_message_for_code_that_is_not_deployed_is_kept_until_it_is() -> None:
    shop, other = Shop(), Shop("other")
    with Harness(other.app) as h:
        before = len(other.app.subscriptions)
        h.send("inbox", Order(id="A"))
        h.advance(3600)
        assert (before, h.dead_letters("inbox")) == (1, [])
        h.stop_worker()
        h.app = shop.app
        h.start_worker()
        [run] = runs(h, shop.orders)
        assert h.result(run) == "A"


def test_a_model_that_raises_what_no_validator_may_keeps_the_message() -> None:
    fixed = False

    class Odd(BaseModel):
        id: str

        @field_validator("id")
        @classmethod
        def check(cls, value: str) -> str:
            if not fixed:
                raise RuntimeError("a bug")
            return value

    app = App("odd", url="memory://")
    odd = app.workflow("odd", input=Odd, on_queue="inbox")

    @odd.step
    def step(value: Odd) -> str:
        return value.id

    with Harness(app) as h:
        h.send("inbox", {"id": "A"})
        h.advance(5)
        assert (h.runs(odd), h.dead_letters("inbox")) == ([], [])
        fixed = True
        h.advance(60)
        assert [h.result(run) for run in h.runs(odd)] == ["A"]


def test_a_worker_lets_no_message_of_a_fifo_queue_overtake_one_that_is_kept() -> None:
    fixed = False

    class Odd(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def check(cls, n: int) -> int:
            if n == 1 and not fixed:
                raise RuntimeError("a bug")
            return n

    app = App("odd", url="memory://")
    odd = app.workflow("odd", input=Odd, on_queue="inbox.fifo")

    @odd.step
    def step(value: Odd) -> int:
        return value.n

    with Harness(app) as h:
        h.stop_worker()
        for n in (1, 2, 3):
            h.send("inbox.fifo", {"n": n})
        h.start_worker()
        h.advance(5)
        assert h.runs(odd) == []
        fixed = True
        h.advance(300)
        assert sorted(str(h.result(run)) for run in h.runs(odd)) == ["1", "2", "3"]


# ---- declared -----------------------------------------------------------------------------------------------


def test_what_is_wrong_with_on_queue_is_said_where_it_is_declared() -> None:
    with pytest.raises(DefinitionError, match="Workflow 'orders', on_queue: key 'a b' is not a JMESPath expression"):
        App("shop").workflow("orders", on_queue=Queue("inbox", key="a b"))


def test_on_queue_changes_no_definition_for_it_says_how_runs_start_and_not_how_they_are_driven() -> None:
    assert Shop("inbox").orders.definition.version == Shop(Queue("other", key="id")).orders.definition.version


def test_a_queue_that_is_not_there_stops_nothing_else(harness: OpenHarness) -> None:
    shop = Shop("nowhere")
    h = harness(shop.app)  # on AWS there is no such queue; an embedded one is there once it is named
    assert h.run(shop.orders, Order(id="A")) == "A"


@dataclass(frozen=True)
class Refusing:
    """A source that cannot be read until it has raised all this."""

    inner: Source
    errors: list[Exception]

    @property
    def name(self) -> str:
        return self.inner.name

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Arrived]:
        if self.errors:
            raise self.errors.pop()
        return await self.inner.receive(limit, wait=wait, visibility=visibility)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


def test_listening_is_taken_up_again_when_the_queue_can_be_read() -> None:
    shop = Shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        errors = [ConfigurationError("denied"), RuntimeError("a bug"), Unavailable("throttled")]
        source = Refusing(h.backend.source("inbox"), errors)
        h.backend = replace(h.backend, source=lambda name: cast("Source", source))
        h._engine.backend = h.backend
        h.start_worker()
        h.send("inbox", Order(id="A"))
        h.advance(120)
        assert [h.result(run) for run in h.runs(shop.orders)] == ["A"]
