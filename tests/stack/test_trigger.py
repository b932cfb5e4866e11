"""Messages of a queue that is none of the stack's start runs, through the deployed function."""

from __future__ import annotations

import asyncio

from tests.stack.app import inbox
from tests.stack.stack import PATIENCE, Stack, until_on_stack
from tests.support.queue_counts import messages_in


def test_a_message_that_is_sent_twice_starts_one_run(stack: Stack) -> None:
    source = stack.backend.source(inbox(stack.name))
    for _ in range(2):
        asyncio.run(source.send('{"name":"you"}', id="m-1"))
    [run] = until_on_stack(lambda: stack.client.runs("greeting"))
    assert run.key == f"{inbox(stack.name)}/m-1"
    assert stack.client.handle(run.run_id).result(timeout=PATIENCE) == "hello you"
    assert stack.ledger.count(run.run_id) == {"greet done": 1}
    until_on_stack(lambda: unhandled(stack) == 0 or None)
    assert len(stack.client.runs("greeting")) == 1


def test_a_message_that_can_start_nothing_becomes_a_dead_letter_with_the_reason(stack: Stack) -> None:
    source = stack.backend.source(inbox(stack.name))
    body = '{"name": 7}'  # spelled so: LocalStack hands JSON to a function as Python would write it
    asyncio.run(source.send(body, id="m-2"))
    [letter] = until_on_stack(lambda: asyncio.run(source.dead_letters(10)))
    assert letter.refusal is not None
    assert "Input should be a valid string" in letter.refusal.reason
    assert (letter.message.id, letter.message.body) == ("m-2", body)


def unhandled(stack: Stack) -> int:
    """How many messages wait in the source or are in flight."""
    client = stack.place.client("sqs")
    url = client.get_queue_url(QueueName=inbox(stack.name))["QueueUrl"]
    return messages_in(client, url)
