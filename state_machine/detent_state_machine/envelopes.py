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

import hashlib
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
QUEUE = "detent-queue"

_ID = re.compile(f"[!-~]{{1,{MAX_ID}}}")  # what SQS takes to know a message of a FIFO queue again
_TEXT = "String"  # as SQS calls it
_ATTRIBUTE = re.compile(r"[A-Za-z0-9_.-]{1,256}")

JsonData: TypeAlias = object
"""What `json.loads` returns."""


@dataclass(frozen=True, slots=True)
class Typed:
    """An attribute that is not plain text. `kind` is its type as SQS names it: `Number`, `Binary`, `String.…`."""

    kind: str
    value: str | bytes


Attribute: TypeAlias = str | Typed


def attribute_of(kind: str, value: str | bytes) -> Attribute:
    """The attribute that a queue spells as a type and a value."""
    return value if kind == _TEXT and isinstance(value, str) else Typed(kind, value)


def typed(attribute: Attribute) -> Typed:
    """The attribute as a queue spells it."""
    return attribute if isinstance(attribute, Typed) else Typed(_TEXT, attribute)


def texts(attributes: Mapping[str, Attribute]) -> dict[str, str]:
    """The attributes that are text or numbers."""
    plain = {name: typed(one).value for name, one in attributes.items()}
    return {name: value for name, value in plain.items() if isinstance(value, str)}


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """A message as its queue delivers it. `sent` is in milliseconds since the epoch."""

    id: str
    queue: str
    body: str
    sent: int = 0
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    group: str = ""
    """The message group, of a FIFO queue."""
    queue_id: str = ""
    """The queue's own id of it, which is another one each time that the message is put in."""

    @staticmethod
    def of(
        queue: str,
        id: str,
        body: str,
        *,
        sent: int = 0,
        attributes: Mapping[str, Attribute] | None = None,
        group: str = "",
    ) -> SourceMessage:
        """The message without detent's own attributes, and under its first id. `id` is the queue's own."""
        given = attributes or {}
        shown = {name: value for name, value in given.items() if not name.startswith(OWN)}
        first = given.get(ID)  # anybody may have written it
        known = first if isinstance(first, str) and _is_id(first) else id
        return SourceMessage(known, queue, body, sent, shown, group, id)


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
    """What a message says. `topic` and `subject` are of the SNS notification, if there was one.

    `digest` is of the text that `value` was read from.
    """

    id: str
    value: JsonData
    message: SourceMessage
    attributes: Mapping[str, str]
    digest: str
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
    shown = texts(message.attributes)
    content = Content(message.id, value, message, shown, _digest(message.body))
    match value:
        case {"Type": "Notification", "MessageId": str(id), "TopicArn": str(topic), "Message": str(text)}:
            notification = cast("dict[str, object]", value)
            subject = notification.get("Subject")
            content = Content(
                id if _is_id(id) else message.id,
                _parsed(text, "The message in the notification of SNS"),
                message,
                {**shown, **_sns_attributes(notification.get("MessageAttributes"))},
                _digest(text),
                topic,
                subject if isinstance(subject, str) else None,
            )
        case _:
            pass
    if content.is_event:
        event_id = cast("dict[str, object]", content.value)["id"]
        return replace(content, id=event_id) if isinstance(event_id, str) and _is_id(event_id) else content
    return content


def dead_letter_attributes(message: SourceMessage, refusal: Refusal) -> dict[str, Attribute]:
    """The attributes of a dead letter: why it is one, which message of which queue it was, and of its own, by name,
    as many as a message takes beside them.

    The reason is cut to what the body leaves room for. Raises `PayloadTooLarge` if it leaves none.
    """
    kept: dict[str, Attribute] = {ERROR: refusal.error, ID: message.id, QUEUE: message.queue}
    room = MAX_BODY - _size(message.body, kept) - _size("", {REASON: ""})
    kept[REASON] = reason = refusal.reason.encode()[: max(0, room)].decode(errors="ignore")
    if not reason:
        raise _no_room(message, "the reason why it was refused")
    room = MAX_BODY - _size(message.body, kept)
    for name, value in sorted(message.attributes.items()):
        size = _size("", {name: value})
        if len(kept) < MAX_ATTRIBUTES and size <= room:
            kept[name] = value
            room -= size
    return kept


def put_back_attributes(message: SourceMessage) -> dict[str, Attribute]:
    """The attributes of a dead letter that goes back into its queue. Raises `PayloadTooLarge` if its id has no room."""
    kept = {**message.attributes, ID: message.id}
    if len(kept) > MAX_ATTRIBUTES or _size(message.body, kept) > MAX_BODY:
        raise _no_room(message, "its id")
    return kept


def _no_room(message: SourceMessage, what: str) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"Message {message.id} leaves no room for {what}: a message takes {MAX_BODY:,} bytes and {MAX_ATTRIBUTES} "
        "attributes.",
        advice="SQS itself can still move it, after `maxReceiveCount` deliveries or with a redrive of its own.",
    )


def refusal_in(attributes: Mapping[str, Attribute]) -> Refusal | None:
    """The refusal that a dead letter's attributes tell of."""
    said = texts(attributes)
    return Refusal(said[ERROR], said.get(REASON, "")) if ERROR in said else None


def check_outgoing(body: str, id: str | None, attributes: Mapping[str, str]) -> None:
    """Raises `InputError` for a message that some queue would not take."""
    try:
        size = _size(body, {**attributes, ID: "x" * MAX_ID})  # each is sent with its id
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
        raise InputError(
            f"A message's id has 1 to {MAX_ID} characters of ASCII, none of them a space, not {id[:40]!r}."
        )
    if len(attributes) > MAX_ATTRIBUTES - 1:
        raise InputError(f"A message takes {MAX_ATTRIBUTES - 1} attributes, not {len(attributes)}.")
    for name, value in attributes.items():
        if _ATTRIBUTE.fullmatch(name) is None or name.startswith(OWN) or not value:
            raise InputError(
                f"{name!r} with {value[:40]!r} is not an attribute of a message.",
                advice="A name has 1 to 256 letters, digits, dashes, dots and underscores, does not begin with "
                f"{OWN!r}, and has a value.",
            )


def shortened(reason: str) -> str:
    """The reason on one line, of characters that every queue takes."""
    line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def _is_id(id: str) -> bool:
    return _ID.fullmatch(id) is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _size(body: str, attributes: Mapping[str, Attribute]) -> int:
    """Bytes of a message, as SQS counts them: body, and names, types and values of the attributes."""
    size = len(body.encode())
    for name, attribute in attributes.items():
        one = typed(attribute)
        size += len(name) + len(one.kind) + len(one.value.encode() if isinstance(one.value, str) else one.value)
    return size


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
