"""What SQS does that no other queue does: whole seconds, batches that fail in part, receipts that go stale."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from detent_infra.aws.queue import ATTEMPTS, MAX_BYTES, batches
from detent_infra.ports import Backend
from detent_state_machine.errors import ConfigurationError, InputError, PayloadTooLarge, Unavailable
from hypothesis import given
from hypothesis import strategies as st

from tests.support.aws_stack import Calls, answering, moto_backend, recorded_calls
from tests.support.waiting import until


@pytest.fixture
def backend() -> Iterator[Backend]:
    with moto_backend() as backend:
        yield backend


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def failed(*ids: str, code: str = "InternalError", fault: bool = False) -> tuple[int, dict[str, Any]]:
    return 200, {"Successful": [], "Failed": [{"Id": id, "SenderFault": fault, "Code": code} for id in ids]}


def bodies_in(backend: Backend, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        received = run(backend.queue.receive(10, wait=1, visibility=30))
        assert received, f"only {found}"
        found += [message.body for message in received]
    return sorted(found)


@given(st.lists(st.sampled_from([1, 100, 200_000, 600_000, MAX_BYTES]), max_size=40))
def test_batches_keep_every_body_in_order_within_the_limits(sizes: list[int]) -> None:
    bodies = ["ä" * (size // 2) + "x" * (size % 2) for size in sizes]
    groups = batches(bodies)
    assert [body for group in groups for body in group] == bodies
    assert all(0 < len(group) <= 10 for group in groups)
    assert all(sum(len(body.encode()) for body in group) <= MAX_BYTES for group in groups)


def test_ten_messages_cost_one_request(backend: Backend) -> None:
    with recorded_calls() as calls:
        run(backend.queue.send([f"m{number}" for number in range(20)]))
    assert [call.operation for call in calls] == ["SendMessageBatch"] * 2


def test_sending_nothing_asks_nothing(backend: Backend) -> None:
    with recorded_calls() as calls:
        run(backend.queue.send([]))
    assert calls == []


@pytest.mark.parametrize(("delay", "seconds"), [(0, 0), (-1, 0), (0.2, 1), (1, 1), (899.5, 900), (900, 900)])
def test_a_delay_is_rounded_up_so_that_nothing_comes_early(backend: Backend, delay: float, seconds: int) -> None:
    with recorded_calls() as calls:
        run(backend.queue.send(["m"], delay=delay))
    assert calls[0].params["Entries"][0]["DelaySeconds"] == seconds


def test_a_delay_over_fifteen_minutes_is_refused_before_sqs_sees_it(backend: Backend) -> None:
    with recorded_calls() as calls, pytest.raises(InputError, match="900"):
        run(backend.queue.send(["m"], delay=900.5))
    assert calls == []


@pytest.mark.parametrize("body", ["a\x00b", "\x1b[31m", "\ud800", "\ufffe", ""])
def test_text_that_sqs_refuses_is_refused_with_nothing_sent(backend: Backend, body: str) -> None:
    with recorded_calls() as calls, pytest.raises(InputError):
        run(backend.queue.send(["fine", body]))
    assert calls == []


def test_text_that_sqs_takes_arrives_as_it_was(backend: Backend) -> None:
    body = "tab\tline\nreturn\r äöü \U0001f600 "
    run(backend.queue.send([body]))
    assert bodies_in(backend, 1) == [body]


def test_a_message_over_a_mebibyte_is_too_large(backend: Backend) -> None:
    with pytest.raises(PayloadTooLarge):
        run(backend.queue.send(["ä" * (MAX_BYTES // 2) + "x"]))


def test_only_what_failed_is_sent_again(backend: Backend) -> None:
    with answering("sqs.SendMessageBatch", failed("1", "3")), recorded_calls() as calls:
        run(backend.queue.send(["a", "b", "c", "d"]))
    assert [entry["MessageBody"] for entry in calls[1].params["Entries"]] == ["b", "d"]


def test_a_message_that_keeps_failing_is_not_reported_as_sent(backend: Backend) -> None:
    with answering("sqs.SendMessageBatch", *[failed("0")] * 9) as left, pytest.raises(Unavailable, match="1 of 2"):
        run(backend.queue.send(["a", "b"]))
    assert len(left) == 9 - ATTEMPTS


def test_a_message_that_is_the_senders_fault_is_not_tried_again(backend: Backend) -> None:
    refused = failed("0", code="InvalidMessageContents", fault=True)
    with answering("sqs.SendMessageBatch", refused, refused) as left, pytest.raises(InputError, match="Invalid"):
        run(backend.queue.send(["a"]))
    assert len(left) == 1


def test_one_failing_batch_does_not_leave_others_under_way(backend: Backend) -> None:
    refused = failed("0", code="InvalidMessageContents", fault=True)
    with answering("sqs.SendMessageBatch", refused), recorded_calls() as calls:
        with pytest.raises(InputError):
            run(backend.queue.send([f"m{number}" for number in range(30)]))
        assert len(calls) == 3


@pytest.mark.parametrize(
    ("limit", "wait", "visibility", "asked"),
    [(1, 0, 0.5, (1, 0, 1)), (50, 0, 30, (10, 0, 30)), (3, 0, 99_999, (3, 0, 43_200))],
)
def test_receiving_asks_within_what_sqs_knows(
    backend: Backend, limit: int, wait: float, visibility: float, asked: tuple[int, int, int]
) -> None:
    with recorded_calls() as calls:
        run(backend.queue.receive(limit, wait=wait, visibility=visibility))
    names = ("MaxNumberOfMessages", "WaitTimeSeconds", "VisibilityTimeout")
    assert tuple(calls[0].params[name] for name in names) == asked


def test_deliveries_are_counted(backend: Backend) -> None:
    run(backend.queue.send(["m"]))
    for count in (1, 2, 3):
        message = run(backend.queue.receive(1, wait=1, visibility=30))[0]
        assert message.count == count
        run(backend.queue.extend(message.receipt, 0))


def test_a_receipt_of_a_deleted_message_changes_nothing_and_is_no_error(backend: Backend) -> None:
    run(backend.queue.send(["m"]))
    message = run(backend.queue.receive(1, wait=1, visibility=30))[0]
    run(backend.queue.delete(message.receipt))
    run(backend.queue.extend(message.receipt, 30))
    run(backend.queue.delete(message.receipt))


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"])
def test_whatever_sqs_calls_a_stale_receipt_is_passed_over(backend: Backend, code: str) -> None:
    answer = (400, {"__type": f"com.amazonaws.sqs#{code}", "message": "stale"})
    with answering("sqs.ChangeMessageVisibility", answer), answering("sqs.DeleteMessage", answer):
        run(backend.queue.extend("receipt", 30))
        run(backend.queue.delete("receipt"))


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "AWS.SimpleQueueService.MessageNotInflight"])
def test_stale_receipts_of_a_batch_are_passed_over(backend: Backend, code: str) -> None:
    with answering("sqs.ChangeMessageVisibilityBatch", failed("0", "2", code=code, fault=True)):
        run(backend.queue.extend_many(["a", "b", "c"], 30))


def test_what_else_failed_of_a_batch_is_told_when_all_of_it_was_asked_for(backend: Backend) -> None:
    run(backend.queue.send([f"m{number}" for number in range(12)]))
    receipts = [message.receipt for _ in (1, 2) for message in run(backend.queue.receive(10, wait=1, visibility=600))]
    with (
        answering("sqs.ChangeMessageVisibilityBatch", failed("3")),
        recorded_calls() as calls,
        pytest.raises(Unavailable, match="1 of "),
    ):
        run(backend.queue.extend_many(receipts, 30))
    assert sorted(len(call.params["Entries"]) for call in calls) == [2, 10]


def test_any_other_refusal_of_an_acknowledgement_is_told(backend: Backend) -> None:
    answer = (400, {"__type": "com.amazonaws.sqs#AccessDeniedException", "message": "no"})
    with answering("sqs.DeleteMessage", answer), pytest.raises(ConfigurationError, match="DeleteMessage"):
        run(backend.queue.delete("receipt"))


async def has_begun(calls: Calls, polls: int = 1) -> None:
    """Until a thread has begun the last poll, which nobody can cancel from then on."""
    await asyncio.to_thread(until, lambda: calls.begun.count("ReceiveMessage") >= polls, every=0.002)


def test_a_cancelled_receive_gives_back_what_it_took(backend: Backend) -> None:
    async def cancelled() -> None:
        receiving = asyncio.create_task(backend.queue.receive(1, wait=20, visibility=600))
        await has_begun(calls)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await backend.queue.send(["m"])

    with recorded_calls() as calls:
        run(cancelled())
        until(lambda: any(call.operation == "ChangeMessageVisibility" for call in calls))
    assert bodies_in(backend, 1) == ["m"]


def test_the_next_receive_takes_over_a_poll_whose_task_was_cancelled(backend: Backend) -> None:
    async def rounds() -> None:
        for n in range(20):
            receiving = asyncio.create_task(backend.queue.receive(1, wait=20, visibility=600))
            await has_begun(calls, polls=n + 1)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            assert await backend.queue.receive(1, wait=0.01, visibility=600) == []
            receiving = asyncio.create_task(backend.queue.receive(1, wait=20, visibility=600))
            await asyncio.sleep(0)
            await backend.queue.send([str(n)])
            [message] = await receiving
            assert (message.body, message.count) == (str(n), 1)
            await backend.queue.delete(message.receipt)

    with recorded_calls() as calls:
        run(rounds())
    assert [call.operation for call in calls].count("ReceiveMessage") == 20


def test_a_poll_is_taken_over_only_by_a_receive_that_asks_alike(backend: Backend) -> None:
    async def scenario() -> None:
        receiving = asyncio.create_task(backend.queue.receive(1, wait=2, visibility=600))
        await has_begun(calls)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        await backend.queue.receive(2, wait=0.01, visibility=600)
        await backend.queue.receive(1, wait=0.01, visibility=30)

    with recorded_calls() as calls:
        run(scenario())
        until(lambda: len(calls) >= 3)  # the first poll goes on by itself
    asked = [(call.params["MaxNumberOfMessages"], call.params["VisibilityTimeout"]) for call in calls]
    assert sorted(asked) == [(1, 30), (1, 600), (2, 600)]


def test_a_long_poll_does_not_hold_up_other_calls(backend: Backend) -> None:
    async def both() -> None:
        polls = [asyncio.create_task(backend.queue.receive(1, wait=20, visibility=30)) for _ in range(12)]
        await asyncio.sleep(0.1)
        # Each well before the end of a poll that nothing comes to.
        await asyncio.wait_for(backend.queue.send([f"m{number}" for number in range(12)]), 15)
        received = await asyncio.wait_for(asyncio.gather(*polls), 15)
        assert len({message.body for messages in received for message in messages}) == 12

    run(both())


def test_a_missing_queue_is_named(backend: Backend) -> None:
    answer = (400, {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "gone"})
    with answering("sqs.SendMessageBatch", answer), pytest.raises(ConfigurationError, match="queue 'detent-"):
        run(backend.queue.send(["m"]))
