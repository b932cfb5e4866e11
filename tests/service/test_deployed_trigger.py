"""The template with a queue of users, on a server that hands its messages to the function."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest
from detent import Client
from detent_infra.connect import connect
from detent_infra.ports import Backend

from tests.support.deployed import Deployed, deploy
from tests.support.fresh_names import fresh
from tests.support.server import Server
from tests.support.service_stack import session
from tests.support.source_queues import create_queue, stored_in
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def stack(ours: Server) -> Deployed:
    arn = create_queue(session().client("sqs", endpoint_url=ours.endpoint), "greetings-inbox")
    return deploy(
        ours,
        fresh("detent"),
        app="tests.service.inbox_app:app",
        concurrency=2,
        visibility=60,
        environment={},
        parameters={"TriggerQueueArn": arn, "TriggerDeadLetterQueueArn": f"{arn}-dead"},
    )


@pytest.fixture
def backend(stack: Deployed) -> Iterator[Backend]:
    with closing(connect(stack.url)) as backend:
        yield backend


def test_a_message_that_is_sent_twice_starts_one_run_and_both_are_acknowledged(
    stack: Deployed, backend: Backend
) -> None:
    source = backend.source("greetings-inbox")
    for _ in range(2):
        asyncio.run(source.send('{"name":"you"}', id="m-1"))
    client = Client(stack.url)
    [run] = until(lambda: client.runs("greetings"))
    assert run.key == "greetings-inbox/m-1"
    assert client.handle(run.run_id).result(timeout=PATIENCE) == "hello you"
    until(lambda: asyncio.run(stored_in(source)) == 0)
    assert len(client.runs("greetings")) == 1
    assert stack.function_processes("QueueTrigger")


def test_what_can_start_nothing_comes_to_the_dead_letters_and_goes_back_from_there(backend: Backend) -> None:
    source = backend.source("greetings-inbox")
    asyncio.run(source.send('{"name":7}', id="m-2"))
    [letter] = until(lambda: asyncio.run(source.dead_letters(10)))
    assert letter.refusal is not None
    assert "Input should be a valid string" in letter.refusal.reason
    assert asyncio.run(source.redrive(10)) == 1
    [again] = until(lambda: asyncio.run(source.dead_letters(10)))
    assert (again.message.id, again.message.body) == ("m-2", '{"name":7}')
