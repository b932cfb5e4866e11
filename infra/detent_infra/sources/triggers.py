"""Starts runs for the messages of queues that detent does not own.

    message ─ open ─ map, for each workflow of the queue ─┬─ start under a key of the message ─ acknowledge
                                                          └─ refused: copy to the dead-letter queue ─ acknowledge

A message is acknowledged once all that it starts is stored and sent. A crash before that delivers it again, and the
keys find the runs that were started: a redelivery starts nothing twice, for as long as a source can redeliver.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from detent_state_machine.definition import Definition
from detent_state_machine.envelopes import Refusal, SourceMessage, open_message
from detent_state_machine.errors import ConfigurationError, DefinitionError, DetentError, InputError, Unavailable
from detent_state_machine.messages import Start
from detent_state_machine.triggers import RunRequest, Trigger, request_of

from detent_infra.ports import Arrived, Source
from detent_infra.redelivery import HIDDEN, hide
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_infra.unanswered import Outage

log = logging.getLogger("detent")

KEEP_DAYS = 37
"""Days for which a message is known again, from its run's start. SNS repeats a notification for up to 23 days (SNS
developer guide, "message delivery retries"), and then SQS keeps it for up to 14."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A workflow that messages of a queue start. `fit` holds JSON text to the workflow's input model and returns it as
    `start` would write it; raises `InputError`.
    """

    trigger: Trigger
    definition: Definition
    fit: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Done:
    """Every run that the message is to start has started, now (`fresh`) or at an earlier delivery. Perhaps none."""

    fresh: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """At least one workflow cannot use the message, now or ever. The runs of the others have started."""

    refusal: Refusal
    done: Done = field(default_factory=Done)


@dataclass(frozen=True, slots=True)
class Kept:
    """Something did not answer, or is not set up: the message is to be delivered again."""

    error: DetentError


Verdict: TypeAlias = Done | Refused | Kept
Settled: TypeAlias = Callable[[Arrived, Verdict, bool], Awaitable[None]]
"""Is told what became of a message, and whether it may be acknowledged."""


@dataclass(slots=True)
class _Work:
    """What one message asks for. `digest` is that of its content."""

    digest: str = ""
    requests: list[tuple[Subscription, RunRequest]] = field(default_factory=list[tuple[Subscription, RunRequest]])
    errors: dict[str, InputError] = field(default_factory=dict[str, InputError])
    fresh: list[str] = field(default_factory=list[str])
    known: list[str] = field(default_factory=list[str])
    kept: DetentError | None = None

    def verdict(self) -> Verdict:
        if self.kept is not None:
            return Kept(self.kept)
        done = Done(tuple(self.fresh), tuple(self.known))
        return Refused(Refusal.of(self.errors), done) if self.errors else done


class Triggers:
    """What messages start on one backend."""

    def __init__(self, lifecycle: Lifecycle, subscriptions: Sequence[Subscription]) -> None:
        self._lifecycle = lifecycle
        self._subscriptions = subscriptions

    async def handle(self, messages: Sequence[SourceMessage]) -> list[Verdict]:
        """Starts what the messages ask for, and says of each what is to become of it. Acknowledges nothing."""
        work: list[_Work] = []
        for message in messages:
            work.append(_mapped(self._subscriptions, message))
            await asyncio.sleep(0)  # a large message takes up to a second: heartbeats and leases have their turn
        asked = [(one, subscription, request) for one in work for subscription, request in one.requests]
        try:
            started = await self._lifecycle.start_each(
                [
                    (each.definition, NewRun(request.input, request.key, request.metadata, KEEP_DAYS, one.digest))
                    for one, each, request in asked
                ]
            )
        except DetentError as error:
            return [Kept(error) if one.requests else one.verdict() for one in work]
        for (one, subscription, _), result in zip(asked, started, strict=True):
            _note(one, subscription.trigger.workflow, result)
        return [one.verdict() for one in work]

    async def take(
        self, source: Source, arrived: Sequence[Arrived], settled: Settled, outage: Outage | None = None
    ) -> None:
        """Handles what a source delivered and settles it, and tells of each message once that is done.

        Of a FIFO queue, one message of a group is handled after the other. Behind one that is kept none is: of those
        nothing is told. With an `outage`, a backend that does not answer is told once for all of them.
        """

        async def settle_one(one: Arrived, verdict: Verdict) -> bool:
            handled = await settle(source, one, verdict, outage)
            await settled(one, verdict, handled)
            return handled

        held: set[str] = set()
        for wave in _waves(source.name, arrived):
            batch = [one for one in wave if one.message.group not in held]
            verdicts = await self.handle([one.message for one in batch])
            done = await asyncio.gather(*map(settle_one, batch, verdicts))
            held |= {one.message.group for one, handled in zip(batch, done, strict=True) if not handled}


def _waves(queue: str, arrived: Sequence[Arrived]) -> list[list[Arrived]]:
    """What may be handled at once: of a FIFO queue the first message of each group, then the second of each, …"""
    if not queue.endswith(".fifo"):
        return [list(arrived)]
    waves: list[list[Arrived]] = []
    before = Counter[str]()
    for one in arrived:
        number = before[one.message.group]
        before[one.message.group] += 1
        if number == len(waves):
            waves.append([])
        waves[number].append(one)
    return waves


def queues(subscriptions: Sequence[Subscription]) -> dict[str, list[str]]:
    """The queues that are listened to, each with the workflows that it starts."""
    found: dict[str, list[str]] = {}
    for each in subscriptions:
        found.setdefault(each.trigger.queue, []).append(each.trigger.workflow)
    return found


def started_by(subscriptions: Sequence[Subscription], message: SourceMessage) -> list[str]:
    """The workflows that the message would start. Raises `InputError` if one of them would refuse it, and
    `ConfigurationError` if none listens to its queue.
    """
    work = _mapped(subscriptions, message)
    for error in (work.kept, *work.errors.values()):
        if error is not None:
            raise error
    return [each.trigger.workflow for each, _ in work.requests]


def _mapped(subscriptions: Sequence[Subscription], message: SourceMessage) -> _Work:
    work = _Work()
    listening = [each for each in subscriptions if each.trigger.queue == message.queue]
    if not listening:
        work.kept = ConfigurationError(
            f"No workflow of this code takes messages of the queue {message.queue!r}.",
            advice=f'Declare one with `on_queue="{message.queue}"`, or deploy the code that does.',
        )
        return work
    try:
        content = open_message(message)
    except InputError as error:
        work.errors = {each.trigger.workflow: error for each in listening}
        return work
    work.digest = content.digest
    for each in listening:
        try:
            request = request_of(each.trigger, content)
            if request is not None:
                work.requests.append((each, replace(request, input=each.fit(request.input))))
        except InputError as error:
            work.errors[each.trigger.workflow] = error
        except DetentError as error:
            work.kept = error
        except Exception as error:  # noqa: BLE001 - one message must not fail the others of its batch
            work.kept = _bug(each.trigger.workflow, error)
    return work


def _bug(workflow: str, error: Exception) -> DefinitionError:
    """Says where it was raised, and not what it says: that may be what the message holds."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return DefinitionError(
        f"Reading the message for workflow {workflow!r} raised {type(error).__name__} in {at.name}, "
        f"{at.filename}:{at.lineno}.",
        advice="A validator refuses a value with ValueError; anything else is taken for a bug of the code.",
    )


def _note(work: _Work, workflow: str, result: Start | DetentError) -> None:
    match result:
        case Start(run_id, fresh):
            (work.fresh if fresh else work.known).append(run_id)
        case InputError():
            work.errors[workflow] = result
        case _:
            work.kept = work.kept or result


async def settle(source: Source, arrived: Arrived, verdict: Verdict, outage: Outage | None) -> bool:
    """Does what the verdict demands, and says whether the message may be acknowledged. Raises no `DetentError`."""
    message = arrived.message
    about = {"queue": message.queue, "message_id": message.id}
    named = f"message {message.id} of the queue {message.queue!r}"
    match verdict:
        case Done():
            return True
        case Refused(refusal):
            why_not = await _bury(source, message, refusal)
            if why_not is None:
                log.warning("%s refused, now a dead letter: %s", named, refusal.reason, extra=about)
                return True
            why = f"it can start nothing, and {why_not}"
            log.error("message kept: %s: %s: %s", named, why, refusal.reason, extra=about)
        case Kept(Unavailable() as error) if outage is not None:
            outage.met(error)
        case Kept(error):
            log.warning("message kept: %s: %s", named, error, extra=about)
        case _:
            assert_never(verdict)
    await hide(source, arrived.receipt, HIDDEN.pause(arrived.count), about)
    return False


async def _bury(source: Source, message: SourceMessage, refusal: Refusal) -> str | None:
    """Makes it a dead letter, or says why that cannot be."""
    try:
        return None if await source.bury(message, refusal) else "its queue has no dead-letter queue"
    except DetentError as error:
        return f"it could not become a dead letter: {str(error).rstrip('.')}"
