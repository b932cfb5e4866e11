"""Messages of queues that detent does not own, and what they hold once the envelopes of AWS are off.

    SQS message ── body ──┬── JSON ───────────────────────────── the content
                          └── SNS notification ── Message: JSON ─ the content (SNS only carried it)
    content ──┬── an event of EventBridge: kept whole, for `source` and `detail-type` say what it is
              └── anything else

A message that a sender repeats must be known again, so its id is that of the innermost envelope: the event's, else the
notification's, else the queue's own. SQS gives a message that is moved out of a dead-letter queue a new id; those that
detent put there carry their first one with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias, cast

from detent_state_machine.errors import InputError, PayloadTooLarge

MAX_BODY = 1024 * 1024
"""Bytes of a message's body: SQS's limit, kept everywhere, so that what is sent here can be sent there."""
MAX_ID = 100
"""Characters of a message's id (SQS)."""
MAX_REASON = 500
"""Characters of a reason that ride on a dead letter."""
MAX_ATTRIBUTES = 10
"""Attributes of a message (SQS)."""

OWN = "detent-"
"""Attributes with this prefix are detent's, and are not shown to expressions."""
ID = "detent-id"
ERROR = "detent-error"
REASON = "detent-reason"

_ATTRIBUTE = re.compile(r"[A-Za-z0-9_.-]{1,256}")

JsonData: TypeAlias = object
"""What `json.loads` returns."""


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """A message as its queue delivers it. `sent` is in milliseconds since the epoch."""

    id: str
    queue: str
    body: str
    sent: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    group: str = ""
    """The message group, of a FIFO queue."""

    @staticmethod
    def of(
        queue: str, id: str, body: str, *, sent: int = 0, attributes: Mapping[str, str] | None = None, group: str = ""
    ) -> SourceMessage:
        """The message without detent's own attributes, and under its first id."""
        given = attributes or {}
        shown = {name: value for name, value in given.items() if not name.startswith(OWN)}
        first = given.get(ID, "")  # anybody may have written it
        return SourceMessage(first if _is_id(first) else id, queue, body, sent, shown, group)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message can start nothing, however often it is delivered. `error` is the class of the error."""

    error: str
    reason: str

    @staticmethod
    def of(errors: Mapping[str, InputError]) -> Refusal:
        """What several workflows found, by the name of the workflow."""
        first = next(iter(errors.values()))
        said = dict.fromkeys(f"{name}: {error.message}" for name, error in errors.items())
        return Refusal(type(first).__name__, shortened(" ".join(said)))


@dataclass(frozen=True, slots=True)
class Content:
    """What a message says. `topic` and `subject` are of the SNS notification, if there was one."""

    id: str
    value: JsonData
    message: SourceMessage
    attributes: Mapping[str, str]
    topic: str | None = None
    subject: str | None = None

    @property
    def is_event(self) -> bool:
        """Whether it is an event of EventBridge."""
        value = self.value
        return isinstance(value, dict) and cast("dict[str, object]", value).keys() >= _EVENT


_EVENT = frozenset({"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"})
"""What every event has (EventBridge user guide, "Event structure")."""


def open_message(message: SourceMessage) -> Content:
    """The message without the envelope of SNS. Raises `InputError` for what is not JSON."""
    value = _parsed(message.body, "The message")
    content = Content(message.id, value, message, message.attributes)
    match value:
        case {"Type": "Notification", "MessageId": str(id), "TopicArn": str(topic), "Message": str(text)}:
            notification = cast("dict[str, object]", value)
            subject = notification.get("Subject")
            content = Content(
                id,
                _parsed(text, "The message in the notification of SNS"),
                message,
                {**message.attributes, **_sns_attributes(notification.get("MessageAttributes"))},
                topic,
                subject if isinstance(subject, str) else None,
            )
        case _:
            pass
    if content.is_event:
        event_id = cast("dict[str, object]", content.value)["id"]
        return replace(content, id=event_id) if isinstance(event_id, str) and event_id else content
    return content


def dead_letter_attributes(message: SourceMessage, refusal: Refusal) -> dict[str, str]:
    """The attributes of a dead letter: why it is one, which message it was, and as many of its own as are allowed."""
    said = {ERROR: refusal.error, REASON: refusal.reason, ID: message.id}
    kept = sorted(message.attributes.items())[: MAX_ATTRIBUTES - len(said)]
    return {**dict(kept), **said}


def refusal_in(attributes: Mapping[str, str]) -> Refusal | None:
    """The refusal that a dead letter's attributes tell of."""
    return Refusal(attributes[ERROR], attributes.get(REASON, "")) if ERROR in attributes else None


def check_outgoing(body: str, id: str | None, attributes: Mapping[str, str]) -> None:
    """Raises `InputError` for a message that some queue would not take."""
    try:
        size = len(body.encode()) + sum(len(name) + len(value.encode()) for name, value in attributes.items())
    except UnicodeEncodeError:
        raise InputError("A message holds half a surrogate pair, which no queue takes.") from None
    if size > MAX_BODY:
        raise PayloadTooLarge(
            f"A message of {size:,} bytes is over the limit of {MAX_BODY:,}.",
            advice="Store the data elsewhere and send its address, or start the run with `Client`.",
        )
    if not body:
        raise InputError("A message is empty, which no queue takes.")
    if id is not None and not _is_id(id):
        raise InputError(f"A message's id has 1 to {MAX_ID} printable characters, not {id[:40]!r}.")
    if len(attributes) > MAX_ATTRIBUTES - 1:
        raise InputError(f"A message takes {MAX_ATTRIBUTES - 1} attributes, not {len(attributes)}.")
    for name, value in attributes.items():
        if _ATTRIBUTE.fullmatch(name) is None or name.startswith(OWN) or not value:
            raise InputError(
                f"{name!r} with {value[:40]!r} is no attribute of a message.",
                advice="A name has 1 to 256 letters, digits, dashes, dots and underscores, does not begin with "
                f"{OWN!r}, and has a value.",
            )


def shortened(reason: str) -> str:
    """The reason on one line, of characters that every queue takes."""
    line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def _is_id(id: str) -> bool:
    return 0 < len(id) <= MAX_ID and id.isprintable()


def _parsed(text: str, what: str) -> JsonData:
    try:
        return cast("JsonData", json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{what} is not JSON: {said}.", advice="Send JSON text, in UTF-8.") from None


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} has no place in JSON")


def _sns_attributes(given: object) -> dict[str, str]:
    """The text and number attributes of a notification; `{"Type": "String", "Value": "…"}` each."""
    found: dict[str, str] = {}
    if isinstance(given, dict):
        for name, attribute in cast("dict[str, object]", given).items():
            match attribute:
                case {"Type": str(kind), "Value": str(value)} if not kind.startswith("Binary"):
                    found[name] = value
                case _:
                    pass
    return found
