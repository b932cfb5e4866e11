"""What a queue of users promises: what the queue port does, messages with ids, and dead letters with reasons."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from detent_infra.ids import new_id
from detent_infra.ports import Arrived, Backend, Source
from detent_state_machine.envelopes import Refusal, SourceMessage
from detent_state_machine.errors import InputError, PayloadTooLarge

from tests.conformance.conftest import MAX_RECEIVES
from tests.support.source_queues import source_of

LONG = 30.0
"""Seconds: longer than any test."""
REFUSAL = Refusal("InputError", "orders: é 😀 does not fit.")


@pytest.fixture
def source(backend: Backend) -> Source:
    return source_of(backend, f"inbox-{new_id()}", max_receives=MAX_RECEIVES)


async def one(source: Source, *, visibility: float = LONG) -> Arrived:
    arrived = await source.receive(1, wait=15.0, visibility=visibility)
    assert len(arrived) == 1, "no message came"
    return arrived[0]


def test_a_message_arrives_as_it_was_sent_with_its_id_its_attributes_and_when_it_was_sent(source: Source) -> None:
    body = '{"id": "é 😀 #/\\\\"}\n'

    async def scenario() -> None:
        before = int(time.time() * 1000)
        id = await source.send(body, attributes={"tenant": "é"})
        arrived = await one(source)
        sent = arrived.message.sent
        assert replace(arrived.message, queue_id="") == SourceMessage(id, source.name, body, sent, {"tenant": "é"})
        assert arrived.count == 1
        assert before - 2_000 <= sent <= int(time.time() * 1000) + 2_000

    asyncio.run(scenario())


def test_a_message_has_the_id_that_its_sender_chose_or_one_of_its_own(source: Source) -> None:
    async def scenario() -> None:
        assert await source.send("{}", id="m-1") == "m-1"
        ids = {await source.send("{}"), await source.send("{}"), "m-1"}
        arrived = [await one(source) for _ in range(3)]
        assert {each.message.id for each in arrived} == ids

    asyncio.run(scenario())


def test_a_message_that_was_not_acknowledged_comes_back_under_the_same_id_and_counts(
    source: Source, tick: float
) -> None:
    async def scenario() -> None:
        await source.send("{}", id="m-1")
        await one(source, visibility=tick)
        again = await one(source)
        assert (again.message.id, again.count) == ("m-1", 2)
        await source.extend(again.receipt, 0)
        third = await one(source)
        await source.delete(third.receipt)
        assert await source.receive(1, wait=0, visibility=LONG) == []

    asyncio.run(scenario())


def test_what_cannot_be_sent_everywhere_is_refused_and_nothing_is_stored(source: Source) -> None:
    async def scenario() -> None:
        with pytest.raises(PayloadTooLarge):
            await source.send("x" * (1024 * 1024 + 1))
        with pytest.raises(InputError):
            await source.send("{}", attributes={"detent-id": "m"})
        assert await source.receive(1, wait=0, visibility=LONG) == []

    asyncio.run(scenario())


def test_a_refused_message_is_a_dead_letter_with_the_reason_and_its_body_unchanged(source: Source) -> None:
    body = '{ "id":\t7 }'

    async def scenario() -> None:
        await source.send(body, id="m-1", attributes={"tenant": "acme"})
        arrived = await one(source)
        assert await source.bury(arrived.message, REFUSAL)
        await source.delete(arrived.receipt)
        for _ in range(2):  # looking changes nothing
            [letter] = await source.dead_letters(10)
            assert letter.refusal == REFUSAL
            assert (letter.message.id, letter.message.body) == ("m-1", body)
            assert letter.message.attributes == {"tenant": "acme"}
        assert await source.receive(1, wait=0, visibility=LONG) == []

    asyncio.run(scenario())


def test_no_more_dead_letters_are_shown_than_asked_for_and_there_may_be_more_than_one_request_brings(
    source: Source,
) -> None:
    async def scenario() -> None:
        assert await source.dead_letters(10) == []
        for number in range(12):
            await source.bury(SourceMessage(f"m-{number}", source.name, "{}"), REFUSAL)
        assert len(await source.dead_letters(3)) == 3
        assert {letter.message.id for letter in await source.dead_letters(100)} == {f"m-{n}" for n in range(12)}

    asyncio.run(scenario())


def test_a_dead_letter_that_is_moved_back_has_its_first_id_and_attributes_and_no_reason(source: Source) -> None:
    async def scenario() -> None:
        await source.bury(SourceMessage("m-1", source.name, '{"a":1}', attributes={"tenant": "acme"}), REFUSAL)
        assert await source.redrive(10) == 1
        assert await source.redrive(10) == 0
        assert await source.dead_letters(10) == []
        message = (await one(source)).message
        assert (message.id, message.body, message.attributes) == ("m-1", '{"a":1}', {"tenant": "acme"})

    asyncio.run(scenario())


def test_a_message_that_is_delivered_too_often_is_a_dead_letter_without_a_reason(source: Source) -> None:
    async def scenario() -> None:
        await source.send("{}", id="m-1")
        for _ in range(MAX_RECEIVES):
            await source.extend((await one(source)).receipt, 0)
        assert await source.receive(1, wait=0, visibility=LONG) == []
        [letter] = await source.dead_letters(10)
        assert (letter.message.id, letter.refusal) == ("m-1", None)

    asyncio.run(scenario())


def test_queues_of_other_names_and_the_backend_s_own_are_apart(backend: Backend, source: Source) -> None:
    other = source_of(backend, "steps", max_receives=MAX_RECEIVES)

    async def scenario() -> None:
        await source.send("{}", id="m-1")
        assert await other.receive(1, wait=0, visibility=LONG) == []
        assert await backend.queue.receive(1, wait=0, visibility=LONG) == []
        await backend.queue.send(["step"])
        assert await other.receive(1, wait=0, visibility=LONG) == []

    asyncio.run(scenario())


def test_a_fifo_queue_keeps_a_group_in_order_and_its_dead_letters_in_their_group(backend: Backend) -> None:
    source = source_of(backend, f"inbox-{new_id()}.fifo", max_receives=MAX_RECEIVES)

    async def scenario() -> None:
        for number in range(3):
            await source.send(f"{number}", id=f"m-{number}")
        arrived = await source.receive(10, wait=5.0, visibility=LONG)
        assert [each.message.body for each in arrived] == ["0", "1", "2"]
        for each in arrived:
            assert await source.bury(each.message, REFUSAL)
        assert {letter.message.id for letter in await source.dead_letters(10)} == {"m-0", "m-1", "m-2"}

    asyncio.run(scenario())
