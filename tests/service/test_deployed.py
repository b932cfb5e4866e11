"""The template as it is deployed, on a server that runs its functions."""

from __future__ import annotations

import pytest
from detent import Client, RunFailed, RunStatus

from examples.orders.app import Line, Receipt
from tests.support.deployed import Deployed
from tests.support.queue_counts import messages_in
from tests.support.service_stack import session
from tests.support.waiting import until

pytestmark = pytest.mark.service


def line(number: int, amount: str = "29.33") -> dict[str, object]:
    given = Line(number=number, customer_id="00001", date="1997-01-18", quantity="2", amount_usd=amount)
    return given.model_dump()


def start(stack: Deployed, number: int, amount: str = "29.33") -> str:
    request = {"workflow": "orders", "input": line(number, amount), "key": f"cdnow-{number}"}
    answer = stack.invoke(stack.outputs["StartFunctionName"], request)
    assert isinstance(answer, dict)
    return str(answer["run_id"])


def test_a_run_started_through_the_function_ends_in_the_worker_function(stack: Deployed) -> None:
    client = Client(stack.url)
    run = start(stack, 1)
    receipt = Receipt.model_validate(client.handle(run).result(timeout=60))
    assert (receipt.order, receipt.cents) == ("cdnow-1", 2933)
    assert client.get(run).status is RunStatus.COMPLETED
    assert client.read("ledger", "cdnow-1") == {"customer": "00001", "cents": 2933}
    assert stack.function_processes("Worker")


def test_the_same_key_starts_one_run_through_every_door(stack: Deployed) -> None:
    assert start(stack, 2) == start(stack, 2) == Client(stack.url).start("orders", line(2), key="cdnow-2").id


def test_a_run_that_fails_says_why(stack: Deployed) -> None:
    handle = Client(stack.url).handle(start(stack, 3, "a lot"))
    with pytest.raises(RunFailed, match="not an amount"):
        handle.result(timeout=60)


def test_the_queue_is_empty_when_all_runs_have_ended(stack: Deployed) -> None:
    """The event source mapping deletes what the worker reports as done, and nothing else."""
    sqs = session().client("sqs", endpoint_url=stack.server.endpoint)
    client = Client(stack.url)
    client.handle(start(stack, 4)).result(timeout=60)
    until(lambda: messages_in(sqs, stack.outputs["QueueUrl"]) == 0)
