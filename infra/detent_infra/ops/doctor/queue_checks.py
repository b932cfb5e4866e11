"""Checks of a stack's queues, and of the event sources that feed the functions. See `stack_checks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from detent_infra.ops.doctor.findings import Finding
from detent_infra.ops.doctor.judgement import AGAIN, NEAR, aws, or_well, skipped, when_read
from detent_infra.ops.stack.facts import AccountFacts, FunctionFacts, MappingFacts, QueueFacts, StackFacts, Unread

RECEIVES = 5
"""Deliveries below which throttling alone makes dead letters of good messages (AWS's advice)."""
LEAST_CONCURRENCY = 2
"""The least that an event source of SQS may be limited to."""
OLD_MESSAGE = 900
"""Seconds. No pause between deliveries is longer."""
IN_FLIGHT = 120_000
"""Messages of one queue that may be in flight: SQS's quota."""


def _sources(facts: StackFacts) -> Iterator[Finding]:
    def judged(mappings: tuple[MappingFacts, ...]) -> Iterator[Finding]:
        for function, queue in (("Worker", "Queue"), ("DeadLetters", "DeadLetterQueue")):
            if function in facts.resources and not any(each.function == function for each in mappings):
                yield Finding("sources", "fail", f"Nothing hands the messages of {queue} to {function}.", AGAIN)
        for each in mappings:
            if each.state in ("Disabled", "Disabling"):
                enable = aws(facts, f"lambda update-event-source-mapping --uuid {each.id} --enabled")
                said = f"{each.function} takes no messages: its event source is {each.state}."
                yield Finding("sources", "fail", said, "Enable it, unless workers elsewhere take them.", enable)
            if not each.partial:
                said = f"{each.function} lacks ReportBatchItemFailures: Lambda deletes messages that it wants to keep."
                yield Finding("sources", "fail", said, AGAIN)
            if each.last_result.startswith("PROBLEM"):
                said = f"Lambda could not hand messages to {each.function}: {each.last_result}."
                yield Finding("sources", "warn", said, "See its permissions above, and its log.")

    def well(mappings: tuple[MappingFacts, ...]) -> Iterator[Finding]:
        said = ", ".join(f"{each.function} {each.state.lower()}" for each in mappings)
        return or_well("sources", judged(mappings), f"{said}; they answer message by message")

    return when_read("sources", facts.mappings, well)


def _visibility(facts: StackFacts) -> Iterator[Finding]:
    """A message must stay hidden for as long as a function may hold it."""
    yield from skipped("visibility", facts.functions, facts.mappings, *facts.queues.values())
    for mapping, function, logical, queue in _read_by(facts):
        held = function.timeout + mapping.window
        if queue.visibility < held:
            said = (
                f"{logical} hides a message for {queue.visibility} s, and {function.logical} may hold it for {held} s."
            )
            raised = f"sqs set-queue-attributes --queue-url {queue.url} --attributes VisibilityTimeout={held + 60}"
            said += " Then it is delivered again meanwhile."
            yield Finding("visibility", "fail", said, "Hide it for longer.", aws(facts, raised))
        else:
            said = (
                f"{logical} hides a message for {queue.visibility} s, {function.logical} holds it for {held} s at most"
            )
            yield Finding("visibility", "ok", said)


def _concurrency(facts: StackFacts) -> Iterator[Finding]:
    """Deliveries that Lambda throttles count against `maxReceiveCount`, and make dead letters of good messages."""
    read = list(_read_by(facts))
    found = list(skipped("concurrency", facts.functions, facts.mappings, *facts.queues.values(), facts.account))
    found += [each for mapping, function, _, queue in read for each in _caps(facts, mapping, function, queue)]
    if isinstance(facts.account, AccountFacts):
        shared = [
            (function.logical, mapping.maximum or 0) for mapping, function, _, _ in read if function.reserved is None
        ]
        worker = sum(most for function, most in shared if function == "Worker")
        others = sum(most for function, most in shared if function != "Worker")
        found += over_account(worker, others, facts.account.unreserved)
    most = ", ".join(f"{mapping.maximum} of {function.logical}" for mapping, function, _, _ in read)
    return or_well("concurrency", found, f"at most {most}, which Lambda has")


def over_account(worker: int, others: int, unreserved: int) -> Iterator[Finding]:
    """A finding if event sources that invoke the worker and the others so often at once want more than there is.

    `unreserved` is what the account has for all functions without a reservation; 10 in some new accounts.
    """
    if worker + others <= unreserved:
        return
    said = (
        f"The event sources invoke up to {worker + others} at once, but {unreserved} is what the account has "
        "unreserved: Lambda throttles the rest, and throttled deliveries come back late and make dead letters."
    )
    room = unreserved - others
    lower = f"Deploy with `-p MaximumConcurrency={room}`, or ask" if LEAST_CONCURRENCY <= room < worker else "Ask"
    fix = f"{lower} for a higher quota of concurrent executions (L-B99A9384)."
    yield Finding("concurrency", "warn", said, fix)


def _caps(facts: StackFacts, mapping: MappingFacts, function: FunctionFacts, queue: QueueFacts) -> Iterator[Finding]:
    if mapping.maximum is None:
        said = f"{function.logical} has no MaximumConcurrency: a burst takes all that the account has."
        yield Finding("concurrency", "warn", said, AGAIN)
    if isinstance(function.reserved, Unread):
        yield Finding("concurrency", "skip", function.reserved.why, function.reserved.fix)
    elif function.reserved == 0:
        unlock = f"lambda delete-function-concurrency --function-name {function.name}"
        said = f"{function.logical} is switched off: its reserved concurrency is 0."
        yield Finding("concurrency", "fail", said, "Give it a share again.", aws(facts, unlock))
    elif function.reserved is not None and function.reserved < (mapping.maximum or 0):
        said = (
            f"{function.logical} has {function.reserved} reserved, but its event source invokes {mapping.maximum}: "
            f"Lambda throttles the rest, and after {queue.max_receives or 'any number of'} deliveries, throttled ones "
            "counted, a message is a dead letter."
        )
        fix = (
            f"Reserve {mapping.maximum}, or lower `MaximumConcurrency` to {max(LEAST_CONCURRENCY, function.reserved)}."
        )
        yield Finding("concurrency", "fail", said, fix)


def _redrive(facts: StackFacts) -> Iterator[Finding]:
    queue, dead = facts.queues["Queue"], facts.queues["DeadLetterQueue"]
    yield from skipped("redrive", *facts.queues.values())
    if isinstance(queue, QueueFacts) and isinstance(dead, QueueFacts):
        well = f"a message is a dead letter after {queue.max_receives} deliveries"
        yield from or_well("redrive", _redrive_lacks(queue, dead), well)

    source = facts.queues.get("TriggerQueueArn")
    if isinstance(source, QueueFacts):
        yield from _source_lacks(source)


def _source_lacks(source: QueueFacts) -> Iterator[Finding]:
    if source.max_receives is None:
        said = (
            f"{source.name}, whose messages start runs, has no dead-letter queue: what starts none comes back for days."
        )
        yield Finding("redrive", "warn", said, "Give it one, and name it as `TriggerDeadLetterQueueArn`.")
    else:
        yield from _gives_up_early(source, source.max_receives)


def _gives_up_early(queue: QueueFacts, receives: int) -> Iterator[Finding]:
    if receives < RECEIVES:
        said = f"{queue.name} gives a message up after {receives} deliveries, throttled ones among them."
        yield Finding("redrive", "warn", said, f"Set maxReceiveCount to {RECEIVES} or more; the template has 10.")


def _redrive_lacks(queue: QueueFacts, dead: QueueFacts) -> Iterator[Finding]:
    if queue.max_receives is None:
        said = f"{queue.name} has no dead-letter queue: what nobody can handle comes back for days."
        yield Finding("redrive", "fail", said, AGAIN)
        return
    if queue.dead_letters_to != dead.arn:
        said = f"{queue.name} sends its dead letters to {queue.dead_letters_to}, where DeadLetters does not look."
        yield Finding("redrive", "fail", said, AGAIN)
    yield from _gives_up_early(queue, queue.max_receives)
    if dead.retention < queue.retention:
        said = (
            f"Dead letters are kept until {dead.retention // 3600} h after they were first sent, and {queue.name} may "
            f"hold them for {queue.retention // 3600} h before."
        )
        yield Finding(
            "redrive", "warn", said, "Set the dead-letter queue's MessageRetentionPeriod to 1209600, the most."
        )


def _failed_starts(facts: StackFacts) -> Iterator[Finding]:
    """Lambda forgets an event that it has tried three times, unless it is told where to put it."""
    queue = facts.queues.get("FailedStarts")
    if queue is None:
        return  # which the check of the resources tells
    if isinstance(facts.functions, Unread) or isinstance(queue, Unread) or isinstance(facts.failed_starts_to, Unread):
        yield from skipped("starts", facts.functions, queue, facts.failed_starts_to)
    elif not any(each.logical == "Start" for each in facts.functions):
        return
    elif facts.failed_starts_to is None:
        said = "Lambda forgets an event that Start failed to start: it has no failure destination."
        yield Finding("starts", "fail", said, AGAIN)
    elif facts.failed_starts_to != queue.arn:
        said = f"Events that Start failed to start go to {facts.failed_starts_to}, not to {queue.name}."
        yield Finding("starts", "warn", said, "There `detent failed-starts` does not find them. " + AGAIN)
    else:
        yield Finding("starts", "ok", f"events that Start fails to start go to {queue.name}")


def _messages(facts: StackFacts) -> Iterator[Finding]:
    for logical, fact in facts.queues.items():
        yield from when_read("messages", fact, lambda queue, name=logical: _waiting(name, queue))  # type: ignore[misc]


def _waiting(logical: str, queue: QueueFacts) -> Iterator[Finding]:
    said = f"{logical} has {queue.visible} waiting, {queue.in_flight} in flight"
    old = isinstance(queue.oldest, int) and queue.oldest > OLD_MESSAGE
    if logical == "DeadLetterQueue" and queue.visible:
        fix = "The log of the DeadLetters function says why. Once it works: `detent runs --status failed`."
        yield Finding("messages", "warn", f"{said}: nobody ends these dead letters.", fix)
    elif logical == "FailedStarts" and queue.visible:
        fix = "`detent failed-starts` says why, and with --redrive starts them."
        yield Finding("messages", "warn", f"{said}: events that started nothing.", fix)
    elif old:
        fix = "Workers are too few (`MaximumConcurrency`) or fail: search the log group for `message kept`."
        yield Finding("messages", "warn", f"{said}; the oldest is {queue.oldest} s old.", fix)
    elif queue.in_flight >= NEAR * IN_FLIGHT:
        fix = f"SQS hands out no more than {IN_FLIGHT:,} at once. Lower `BatchSize`, or ask for a higher quota."
        yield Finding("messages", "warn", f"{said}: near the quota.", fix)
    else:
        yield Finding("messages", "ok", said)
    if isinstance(queue.oldest, Unread):
        yield Finding("messages", "skip", queue.oldest.why, queue.oldest.fix)


def _read_by(facts: StackFacts) -> Iterator[tuple[MappingFacts, FunctionFacts, str, QueueFacts]]:
    """The event sources on detent's own queues, with what is on both sides, and the queue's logical name."""
    if isinstance(facts.functions, Unread) or isinstance(facts.mappings, Unread):
        return
    functions = {each.logical: each for each in facts.functions}
    queues = {fact.arn: (name, fact) for name, fact in facts.queues.items() if not isinstance(fact, Unread)}
    for each in facts.mappings:
        if each.source in queues and each.function in functions:
            yield each, functions[each.function], *queues[each.source]


CHECKS: tuple[Callable[[StackFacts], Iterator[Finding]], ...] = (
    _sources,
    _visibility,
    _concurrency,
    _redrive,
    _failed_starts,
    _messages,
)
