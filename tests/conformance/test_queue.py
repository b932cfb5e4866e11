"""What the queue port promises: at least once, invisible while held, dead letters after too many deliveries."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pytest
from detent_infra.ports import Backend, MessageQueue, Received
from detent_state_machine.errors import InputError

from tests.conformance.conftest import MAX_RECEIVES

LONG = 30.0
"""Seconds: longer than any test."""
WAIT = 15.0
"""Seconds that a message may take to come: so long only on a machine that is busy, and still less than `LONG`."""


async def one(queue: MessageQueue, *, wait: float = WAIT, visibility: float = LONG) -> Received:
    received = await queue.receive(1, wait=wait, visibility=visibility)
    assert len(received) == 1, "no message came"
    return received[0]


async def nothing(queue: MessageQueue) -> bool:
    return await queue.receive(10, wait=0, visibility=LONG) == []


def test_a_message_arrives_as_it_was_sent_and_says_it_is_the_first_delivery(backend: Backend) -> None:
    body = '{"v":1,"run":"é 😀 #/\\\\","path":"load[17]"}'

    async def scenario() -> None:
        await backend.queue.send([body])
        message = await one(backend.queue)
        assert (message.body, message.count) == (body, 1)

    asyncio.run(scenario())


def test_an_empty_queue_answers_with_nothing(backend: Backend) -> None:
    assert asyncio.run(nothing(backend.queue))


def test_sending_nothing_is_fine(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.queue.send([])
        assert await nothing(backend.queue)

    asyncio.run(scenario())


def test_a_held_message_is_invisible_and_a_deleted_one_stays_away(backend: Backend, tick: float) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a"])
        message = await one(backend.queue)
        assert await nothing(backend.queue)
        await backend.queue.extend(message.receipt, tick)
        await backend.queue.delete(message.receipt)
        await asyncio.sleep(tick * 1.5)
        assert await nothing(backend.queue)

    asyncio.run(scenario())


def test_a_message_that_nobody_deletes_comes_back_and_counts_its_deliveries(backend: Backend, tick: float) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a"])
        began = time.monotonic()
        first = await one(backend.queue, visibility=tick)
        second = await one(backend.queue)
        assert time.monotonic() - began >= tick * 0.9
        assert (second.body, first.count, second.count) == ("a", 1, 2)
        assert second.receipt != first.receipt

    asyncio.run(scenario())


def test_a_receiver_gets_no_more_than_it_asked_for(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.queue.send([str(n) for n in range(5)])
        first = await backend.queue.receive(3, wait=1, visibility=LONG)
        rest = await backend.queue.receive(10, wait=1, visibility=LONG)
        assert len(first) <= 3
        assert sorted(message.body for message in [*first, *rest]) == ["0", "1", "2", "3", "4"]

    asyncio.run(scenario())


def test_extending_keeps_a_message_invisible_for_longer(backend: Backend, tick: float) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a"])
        message = await one(backend.queue, visibility=tick)
        await backend.queue.extend(message.receipt, LONG)
        await asyncio.sleep(tick * 1.5)
        assert await nothing(backend.queue)
        await backend.queue.delete(message.receipt)

    asyncio.run(scenario())


def test_extending_counts_from_now_and_may_shorten(backend: Backend, tick: float) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a"])
        message = await one(backend.queue, visibility=LONG)
        await backend.queue.extend(message.receipt, tick)
        assert (await one(backend.queue)).count == 2

    asyncio.run(scenario())


def test_several_are_extended_at_once_and_a_deleted_one_among_them_changes_nothing(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a", "b", "c"])
        held = [await one(backend.queue) for _ in range(3)]
        await backend.queue.delete(held[1].receipt)
        await backend.queue.extend_many([message.receipt for message in held], 0)
        again = [await one(backend.queue) for _ in range(2)]
        assert sorted((message.body, message.count) for message in again) == sorted(
            (message.body, 2) for message in (held[0], held[2])
        )
        await backend.queue.extend_many([], 0)
        assert await nothing(backend.queue)

    asyncio.run(scenario())


def test_extending_by_zero_gives_a_message_back_at_once(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a"])
        message = await one(backend.queue)
        await backend.queue.extend(message.receipt, 0)
        assert (await one(backend.queue, wait=5)).count == 2

    asyncio.run(scenario())


def test_a_stale_receipt_neither_extends_nor_gives_back(backend: Backend, adapter: str, tick: float) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a"])
        stale = await one(backend.queue, visibility=tick)
        held = await one(backend.queue)
        assert held.count == 2
        if adapter != "aws":  # moto lets a stale receipt extend; SQS itself may
            await backend.queue.extend(stale.receipt, 0)
            assert await nothing(backend.queue)
        await backend.queue.delete(held.receipt)
        await backend.queue.extend(held.receipt, 0)
        await backend.queue.delete(held.receipt)
        assert await nothing(backend.queue)

    asyncio.run(scenario())


def test_a_stale_receipt_deletes_nothing(backend: Backend, adapter: str, tick: float) -> None:
    if adapter == "aws":
        pytest.skip("a stale receipt deletes on moto, and may on SQS: the engine never relies on it")

    async def scenario() -> None:
        await backend.queue.send(["a"])
        stale = await one(backend.queue, visibility=tick)
        held = await one(backend.queue, visibility=tick)
        await backend.queue.delete(stale.receipt)
        assert (await one(backend.queue)).count == held.count + 1

    asyncio.run(scenario())


def test_a_receipt_of_another_message_never_fits_a_newer_one(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.queue.send(["old"])
        old = await one(backend.queue)
        await backend.queue.delete(old.receipt)
        await backend.queue.send(["new"])
        new = await one(backend.queue)
        await backend.queue.delete(old.receipt)
        await backend.queue.extend(new.receipt, 0)
        assert (await one(backend.queue)).body == "new"

    asyncio.run(scenario())


def test_a_delayed_message_comes_after_its_delay_and_holds_up_no_other(backend: Backend) -> None:
    async def scenario() -> None:
        began = time.monotonic()
        await backend.queue.send(["late"], delay=5.0)
        await backend.queue.send(["soon"])
        assert (await one(backend.queue)).body == "soon"
        assert (await one(backend.queue)).body == "late"
        assert time.monotonic() - began >= 4.8

    asyncio.run(scenario())


def test_the_longest_delay_is_accepted_and_a_longer_one_refused(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.queue.send(["a"], delay=backend.queue.max_delay)
        with pytest.raises(InputError):
            await backend.queue.send(["b"], delay=backend.queue.max_delay + 1)
        assert await nothing(backend.queue)

    asyncio.run(scenario())


def test_a_message_delivered_too_often_becomes_a_dead_letter(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.queue.send(["poison", "fine"])
        for _ in range(MAX_RECEIVES):
            for message in await backend.queue.receive(10, wait=1, visibility=LONG):
                if message.body == "fine":
                    await backend.queue.delete(message.receipt)
                else:
                    await backend.queue.extend(message.receipt, 0)
        assert await nothing(backend.queue)
        letter = await one(backend.dead_letters)
        assert letter.body == "poison"
        await backend.dead_letters.delete(letter.receipt)
        assert await nothing(backend.dead_letters)
        assert await nothing(backend.queue)

    asyncio.run(scenario())


def test_the_receipts_of_a_dead_letters_past_do_not_hold_it(backend: Backend, adapter: str) -> None:
    if adapter == "aws":
        pytest.skip("a stale receipt deletes on moto, and may on SQS: the engine never relies on it")

    async def scenario() -> None:
        await backend.queue.send(["poison"])
        receipts: list[str] = []
        for _ in range(MAX_RECEIVES):
            message = await one(backend.queue)
            receipts.append(message.receipt)
            await backend.queue.extend(message.receipt, 0)
        assert await nothing(backend.queue)
        letter = await one(backend.dead_letters)
        for receipt in receipts:
            await backend.queue.delete(receipt)
        await backend.dead_letters.extend(letter.receipt, 0)
        assert (await one(backend.dead_letters)).count == letter.count + 1

    asyncio.run(scenario())


def test_a_receiver_that_waits_is_woken_by_a_send(backend: Backend) -> None:
    async def scenario() -> None:
        waiting = asyncio.create_task(one(backend.queue))
        await asyncio.sleep(0.1)
        sent = time.monotonic()
        await backend.queue.send(["a"])
        assert (await waiting).body == "a"
        assert time.monotonic() - sent < WAIT / 2

    asyncio.run(scenario())


def test_a_receiver_is_woken_by_a_send_from_another_threads_loop(backend: Backend) -> None:
    def send() -> None:
        time.sleep(0.1)
        asyncio.run(backend.queue.send(["a"]))

    thread = threading.Thread(target=send)
    thread.start()
    began = time.monotonic()
    assert asyncio.run(one(backend.queue)).body == "a"
    assert time.monotonic() - began < WAIT / 2
    thread.join()


def test_waiting_ends_when_its_time_is_over(backend: Backend) -> None:
    began = time.monotonic()
    assert asyncio.run(backend.queue.receive(1, wait=1, visibility=LONG)) == []
    assert 0.9 <= time.monotonic() - began < WAIT


def test_a_receiver_that_is_cancelled_takes_no_message_with_it(backend: Backend, adapter: str) -> None:
    # A server goes on with a cancelled long poll until its wait ends. What comes while nobody waits is given back, but
    # it was a delivery, and MAX_RECEIVES of them make a dead letter.
    rounds = (1, 6) if adapter == "service" else range(20)

    async def scenario() -> None:
        for n in rounds:
            waiting = asyncio.create_task(backend.queue.receive(1, wait=5, visibility=LONG))
            await asyncio.sleep(0.01)
            await backend.queue.send([str(n)])
            for _ in range(n % 7):
                await asyncio.sleep(0)
            waiting.cancel()
            left = await asyncio.gather(waiting, return_exceptions=True)
            taken = left[0] if isinstance(left[0], list) else []
            message = taken[0] if taken else await one(backend.queue)
            assert message.body == str(n)
            await backend.queue.delete(message.receipt)

    asyncio.run(scenario())


def test_many_messages_reach_many_receivers_each_once(backend: Backend, adapter: str) -> None:
    total = 60 if adapter in ("aws", "service") else 400
    seen: Counter[str] = Counter()

    async def receiver() -> None:
        while messages := await backend.queue.receive(10, wait=0.2, visibility=LONG):
            for message in messages:
                seen[message.body] += 1
                await backend.queue.delete(message.receipt)

    async def scenario() -> None:
        await asyncio.gather(
            *(backend.queue.send([f"{sender}/{n}" for n in range(total // 4)]) for sender in range(4)),
            *(receiver() for _ in range(4)),
        )
        await receiver()

    asyncio.run(scenario())
    assert seen == Counter({f"{sender}/{n}": 1 for sender in range(4) for n in range(total // 4)})
