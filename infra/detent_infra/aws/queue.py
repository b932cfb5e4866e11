"""The queue port on SQS standard queues."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from botocore.exceptions import ClientError
from detent_state_machine.errors import DetentError, InputError, PayloadTooLarge, Unavailable

from detent_infra import forks
from detent_infra.aws.calls import Calls, pause
from detent_infra.aws.errors import code_of
from detent_infra.aws.resources import Clients
from detent_infra.ports import Received

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import (
        BatchResultErrorEntryTypeDef,
        MessageTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

MAX_DELAY = 900.0
MAX_BATCH = 10
MAX_BYTES = 1024 * 1024
"""Of a message, and of a batch in sum."""
MAX_WAIT = 20
MAX_VISIBILITY = 43_200
ATTEMPTS = 3
"""Tries of a batch entry that SQS did not take while it took others."""

_Asked: TypeAlias = tuple[int, int]
"""How many messages, and for how many seconds they are hidden."""
_Poll: TypeAlias = "Future[list[MessageTypeDef]]"
Entries: TypeAlias = "list[SendMessageBatchRequestEntryTypeDef]"

_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""All but #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF, as SQS's documentation has it."""
_STALE = frozenset({"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"})


class SqsQueue(forks.Forkable):
    """Sends and acknowledges through `calls`, and waits through `polls`, so that a long poll blocks nothing else.

    Delays and visibility are rounded up to the whole seconds that SQS knows. `whole`: messages come with all that SQS
    knows of them, not just body and count.
    """

    max_delay = MAX_DELAY

    def __init__(self, clients: Clients, calls: Calls, polls: Calls, url: str, *, whole: bool = False) -> None:
        self._clients = clients
        self._calls = calls
        self._polls = polls
        self._url = url
        self._whole = whole
        self._left: dict[_Poll, _Asked] = {}
        self._leaving = threading.Lock()  # polls end on threads
        forks.follow_forks(self)

    def in_child(self) -> None:
        self._left, self._leaving = {}, threading.Lock()  # the parent's polls are its own

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        if delay > self.max_delay:
            raise InputError(f"The queue delays a message by at most {self.max_delay:g} s, not {delay:g} s.")
        for body in bodies:
            check_text(body)
        seconds = max(0, math.ceil(delay))
        sends = [self._send_batch(batch, seconds) for batch in batches(bodies)]
        # Waits for every batch even if one fails: nothing is sent behind the caller's back after this has raised.
        for result in await asyncio.gather(*sends, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _send_batch(self, bodies: Sequence[str], delay: int) -> None:
        left: Entries = [
            {"Id": str(number), "MessageBody": body, "DelaySeconds": delay} for number, body in enumerate(bodies)
        ]
        for attempt in range(1, ATTEMPTS + 1):
            failed = await self._calls(partial(self._send_entries, left))
            if not failed:
                return
            if refused := [entry for entry in failed.values() if entry["SenderFault"]]:
                raise InputError(
                    f"SQS refused a message: {refused[0]['Code']}: {refused[0].get('Message', '')}",
                    advice="It refuses this message every time.",
                )
            left = [entry for entry in left if entry["Id"] in failed]
            if attempt < ATTEMPTS:
                await pause(attempt)
        raise Unavailable(f"SQS did not take {len(left)} of {len(bodies)} messages.", advice="Try again.")

    def _send_entries(self, entries: Entries) -> dict[str, BatchResultErrorEntryTypeDef]:
        """Sends them and returns those that failed, by id."""
        answer = self._clients.sqs.send_message_batch(QueueUrl=self._url, Entries=entries)
        return {entry["Id"]: entry for entry in answer.get("Failed", [])}

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        """At most 10 messages, and at most 20 s of waiting."""
        found = await self.poll(limit, wait=wait, visibility=visibility)
        return [
            Received(message.get("Body", ""), message.get("ReceiptHandle", ""), count_of(message)) for message in found
        ]

    async def poll(self, limit: int, *, wait: float, visibility: float) -> list[MessageTypeDef]:
        """`receive`, with the messages as SQS has them.

        SQS goes on with a long poll whose task was cancelled. The next one alike takes that poll over. If there
        is none before it ends, its messages are made visible again at once, which counts as a delivery of each.
        """
        if limit < 1:
            return []
        asked = min(limit, MAX_BATCH), _whole_seconds(visibility)
        if wait > 0 and (left := self._take_over(asked)) is not None:
            return await self._answer(left, asked, timeout=wait)
        return await self._answer(self._polls.submit(lambda: self._receive(*asked, wait)), asked, timeout=None)

    async def _answer(self, poll: _Poll, asked: _Asked, *, timeout: float | None) -> list[MessageTypeDef]:
        waiting = asyncio.wrap_future(poll)
        try:
            if (await asyncio.wait({waiting}, timeout=timeout))[0]:
                return waiting.result()
        except asyncio.CancelledError:
            self._leave(poll, asked)
            raise
        finally:
            waiting.cancel()
        self._leave(poll, asked)
        return []

    def _leave(self, poll: _Poll, asked: _Asked) -> None:
        if not poll.cancel():  # it has begun
            with self._leaving:
                self._left[poll] = asked
            poll.add_done_callback(self._give_back)

    def _take_over(self, asked: _Asked) -> _Poll | None:
        with self._leaving:
            left = next((poll for poll, other in self._left.items() if other == asked), None)
            if left is not None:
                del self._left[left]
            return left

    def _receive(self, limit: int, visibility: int, wait: float) -> list[MessageTypeDef]:
        answer = self._clients.sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=limit,
            WaitTimeSeconds=min(MAX_WAIT, max(0, math.ceil(wait))),
            VisibilityTimeout=visibility,
            MessageSystemAttributeNames=["All"] if self._whole else ["ApproximateReceiveCount"],
            MessageAttributeNames=["All"] if self._whole else [],
        )
        return answer.get("Messages", [])

    def _give_back(self, polled: _Poll) -> None:
        with self._leaving:
            if self._left.pop(polled, None) is None:
                return  # taken over
        if polled.exception() is not None:
            return
        for message in polled.result():
            try:
                self._polls.now(partial(self._extend, message.get("ReceiptHandle", ""), 0))
            except DetentError:
                return  # the messages come back by themselves when their visibility ends

    async def extend(self, receipt: str, visibility: float) -> None:
        await self._calls(lambda: self._extend(receipt, _whole_seconds(visibility)))

    def _extend(self, receipt: str, seconds: int) -> None:
        try:
            self._clients.sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=receipt, VisibilityTimeout=seconds
            )
        except ClientError as error:
            _ignore_stale(error)

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        """One request for ten messages. What a batch refuses for a while is not tried again: callers repeat it."""
        seconds = _whole_seconds(visibility)
        requests = [
            self._calls(partial(self._extend_batch, receipts[at : at + MAX_BATCH], seconds))
            for at in range(0, len(receipts), MAX_BATCH)
        ]
        for result in await asyncio.gather(*requests, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _extend_batch(self, receipts: Sequence[str], seconds: int) -> None:
        answer = self._clients.sqs.change_message_visibility_batch(
            QueueUrl=self._url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
                for number, receipt in enumerate(receipts)
            ],
        )
        failed = [entry for entry in answer.get("Failed", []) if entry["Code"].rpartition(".")[2] not in _STALE]
        if failed:
            raise Unavailable(
                f"SQS did not change the visibility of {len(failed)} of {len(receipts)} messages: {failed[0]['Code']}.",
                advice="Try again.",
            )

    async def delete(self, receipt: str) -> None:
        await self._calls(lambda: self._delete(receipt))

    def _delete(self, receipt: str) -> None:
        try:
            self._clients.sqs.delete_message(QueueUrl=self._url, ReceiptHandle=receipt)
        except ClientError as error:
            _ignore_stale(error)


def count_of(message: MessageTypeDef) -> int:
    return int(message.get("Attributes", {}).get("ApproximateReceiveCount", "1"))


def batches(bodies: Sequence[str]) -> list[list[str]]:
    """The bodies in order, in groups that one request takes: at most 10, at most 1 MiB."""
    groups: list[list[str]] = []
    size = 0
    for body in bodies:
        length = len(body.encode())
        if not groups or len(groups[-1]) == MAX_BATCH or size + length > MAX_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(body)
        size += length
    return groups


def check_text(body: str) -> None:
    """Raises `InputError` for a body that SQS refuses."""
    if (found := _REFUSED.search(body)) is not None:
        raise InputError(
            f"A message holds the character {found.group()!r}, which SQS refuses.",
            advice="Escape it, as JSON does.",
        )
    if not body:
        raise InputError("A message is empty, which SQS refuses.")
    if (length := len(body.encode())) > MAX_BYTES:
        raise PayloadTooLarge(
            f"A message of {length:,} bytes is over SQS's limit of {MAX_BYTES:,}.",
            advice="Store the payload and send its reference.",
        )


def _whole_seconds(visibility: float) -> int:
    return min(MAX_VISIBILITY, max(0, math.ceil(visibility)))


def _ignore_stale(error: ClientError) -> None:
    """Passes over a receipt that SQS no longer knows, and raises any other error.

    The message was deleted, or was delivered again and belongs to someone else now, or has been out for 12 hours
    (`InvalidParameterValue`; both other parameters are always valid). Each is normal for at-least-once delivery: the
    caller's lease in the table decides who owns the work, and the queue delivers again what is not done.
    """
    if code_of(error) not in _STALE:
        raise error
