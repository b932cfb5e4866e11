"""Records of a queue that detent does not own, as an SQS event source mapping hands them over."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import NamedTuple, cast

from detent_infra.ports import Arrived
from detent_state_machine.envelopes import Attribute, SourceMessage, attribute_of

from detent_functions import batches
from detent_functions.telemetry import log


class SourceRecord(NamedTuple):
    """A record of the batch, and its queue's ARN. Without a message, SQS did not send it."""

    id: str
    arn: str
    arrived: Arrived | None


def read(record: object) -> SourceRecord:
    """The message of a record, and its queue."""
    id, received = batches.read(record)
    match record:
        case {"eventSourceARN": str(arn), "attributes": dict()} if (
            received is not None and arn.startswith("arn:") and arn.count(":") == 5
        ):
            fields = cast("dict[str, object]", record)
            system = cast("dict[str, object]", fields["attributes"])
            sent, group = system.get("SentTimestamp"), system.get("MessageGroupId")
            message = SourceMessage.of(
                arn.rpartition(":")[2],
                id,
                received.body,
                sent=int(sent) if isinstance(sent, str) and sent.isdecimal() and len(sent) < 16 else 0,
                attributes=_attributes(fields.get("messageAttributes")),
                group=group if isinstance(group, str) else "",
            )
            return SourceRecord(id, arn, Arrived(message, received.receipt, received.count))
        case _:
            if id:
                log.error("message kept: its record is not one of SQS", extra={"message_id": id})
            return SourceRecord(id, "", None)


def _attributes(given: object) -> dict[str, Attribute]:
    """The attributes: `{"stringValue": "…", "dataType": "String"}` each, or with a `binaryValue` in base64."""
    found: dict[str, Attribute] = {}
    if isinstance(given, dict):
        for name, attribute in cast("dict[str, object]", given).items():
            match attribute:
                case {"stringValue": str(value), "dataType": str(kind)}:
                    found[name] = attribute_of(kind, value)
                case {"binaryValue": str(value), "dataType": str(kind)}:
                    with suppress(ValueError):  # no base64
                        found[name] = attribute_of(kind, base64.b64decode(value))
                case _:
                    pass
    return found
