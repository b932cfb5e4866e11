"""Queue triggers: which messages of a queue start a run, and what that run's input, key and metadata are.

Expressions are JMESPath: they select and reshape JSON, call a fixed list of functions, and can do nothing else. They
are compiled and checked when the workflow is declared. Each sees the message's content, and what is known of the
message itself as `message()`:

    detail.order                        a part of the content
    "detail-type" == 'order.created'    a name with a dash in double quotes, text in single quotes
    message().attributes.tenant         id, queue, sent, attributes, group, topic, subject
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from jmespath import functions

from detent_state_machine.envelopes import Content, JsonData
from detent_state_machine.errors import DefinitionError, InputError
from detent_state_machine.expressions import Expression, is_false

_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
MESSAGE_FIELDS = ("id", "queue", "sent", "attributes", "group", "topic", "subject")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue whose messages start runs: `app.workflow(…, on_queue=Queue("orders-inbox", input="detail.order"))`.

    Expressions are JMESPath over the message's content. `input` selects the run's input (by default the content
    itself; of an event of EventBridge, its `detail`). `when` says which messages are meant for the workflow: not those
    for which it is false, null or empty. `key` is the run's idempotency key, text or a whole number (by default queue
    and message id). `metadata` has an expression by name; what is null is left out.
    """

    name: str
    input: str | None = None
    key: str | None = None
    when: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to start. `input` is JSON text, not yet held to the workflow's model."""

    input: str
    key: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A compiled `Queue` of a workflow."""

    workflow: str
    queue: str
    input: Expression | None
    key: Expression | None
    when: Expression | None
    metadata: Mapping[str, Expression]


def compile_trigger(workflow: str, given: Queue | str) -> Trigger:
    """Raises `DefinitionError` that says what to fix."""
    where = f"Workflow {workflow!r}, on_queue"
    queue = Queue(given) if isinstance(given, str) else given
    if not isinstance(queue, Queue):
        raise DefinitionError(
            f"{where}: {given!r} is neither the name of a queue nor a `Queue`.",
            advice='Write `on_queue="orders-inbox"`, or `on_queue=Queue("orders-inbox", input="detail.order")`.',
        )
    if not isinstance(queue.name, str):
        raise DefinitionError(
            f"{where}: the name of a queue is text, not {queue.name!r}.", advice="Write it in quotes."
        )
    if not isinstance(queue.metadata, Mapping):
        raise DefinitionError(
            f"{where}: `metadata={queue.metadata!r}` is not a mapping.",
            advice='Write an expression by name: `metadata={"tenant": "detail.tenant"}`.',
        )
    if _QUEUE_NAME.fullmatch(queue.name) is None:
        raise DefinitionError(
            f"{where}: {queue.name!r} is not a name of a queue.",
            advice="Write the queue's name, not its URL or ARN: 1 to 80 letters, digits, dashes and underscores; "
            "a FIFO queue's ends in .fifo.",
        )

    for name in cast("Mapping[object, object]", queue.metadata):
        if not isinstance(name, str):
            raise DefinitionError(
                f"{where}: a name in `metadata=` is text, not {name!r}.", advice="Write it in quotes."
            )

    def expression(name: str, text: str | None) -> Expression | None:
        return None if text is None else Expression(text, f"{where}: {name}", _Functions, MESSAGE_FIELDS)

    return Trigger(
        workflow,
        queue.name,
        expression("input", queue.input),
        expression("key", queue.key),
        expression("when", queue.when),
        {
            name: Expression(text, f"{where}: metadata {name!r}", _Functions, MESSAGE_FIELDS)
            for name, text in queue.metadata.items()
        },
    )


def request_of(trigger: Trigger, content: Content) -> RunRequest | None:
    """The run that the message starts; None if it is not meant for this workflow.

    Raises `InputError` if an expression finds nothing, or what cannot be used.
    """
    if trigger.when is not None and is_false(_found(trigger.when, content)):
        return None
    return RunRequest(
        _json(_input(trigger, content)),
        f"{content.message.queue}/{content.id}" if trigger.key is None else _key(trigger.key, content),
        _metadata(trigger, content),
    )


def _found(expression: Expression, content: Content) -> JsonData:
    return expression.of(content.value, "the message", _Functions(content))


def _input(trigger: Trigger, content: Content) -> JsonData:
    if trigger.input is None:
        return cast("dict[str, object]", content.value)["detail"] if content.is_event else content.value
    found = _found(trigger.input, content)
    if found is None:
        raise InputError(f"{trigger.input.what} {trigger.input.text!r} finds nothing in the message.")
    return found


def _key(expression: Expression, content: Content) -> str:
    found = _found(expression, content)
    if isinstance(found, str) and found:
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return _json(found)
    what = "nothing" if found is None else f"{_kind(found)}, which is neither text nor a whole number,"
    raise InputError(f"{expression.what} {expression.text!r} finds {what} in the message.")


def _kind(value: JsonData) -> str:
    """What it is, not what it says: the value may be a secret."""
    names: dict[type, str] = {
        str: "empty text",
        bool: "a truth value",
        float: "a fraction",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "a function")


def _metadata(trigger: Trigger, content: Content) -> dict[str, str]:
    found = {name: _found(expression, content) for name, expression in trigger.metadata.items()}
    return {
        name: value if isinstance(value, str) else _json(value) for name, value in found.items() if value is not None
    }


def _json(value: JsonData) -> str:
    """In ASCII: half a surrogate pair, which JSON can spell and no store takes, is left for the model to refuse."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"What an expression found has no JSON form: {error}.") from None


# ---- what expressions may say -------------------------------------------------------------------------------


class _Functions(functions.Functions):
    """JMESPath's own functions, and `message()`."""

    def __init__(self, content: Content) -> None:
        self._content = content

    @functions.signature()
    def _func_message(self) -> dict[str, JsonData]:
        content, message = self._content, self._content.message
        return {
            "id": content.id,
            "queue": message.queue,
            "sent": message.sent,
            "attributes": dict(content.attributes),
            "group": message.group or None,
            "topic": content.topic,
            "subject": content.subject,
        }
