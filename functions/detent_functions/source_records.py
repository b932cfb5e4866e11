"""Records of a queue that detent does not own, as an SQS event source mapping hands them over."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from typing import NamedTuple, cast

from detent_infra.ports import Arrived
from detent_state_machine.envelopes import Attribute, SourceMessage, Typed

from detent_functions.telemetry import log


class SourceRecord(NamedTuple):
    """A record of the batch, and its queue's ARN. Without a message, it is none of SQS's."""

    id: str
    arn: str
    arrived: Arrived | None


def read(event: object) -> list[SourceRecord]:
    """The records of an SQS event, whatever else it is."""
    match event:
        case {"Records": list()}:
            return [_read(record) for record in cast("dict[str, list[object]]", event)["Records"]]
        case _:
            log.error("the event holds no records of SQS")
            return []


def _read(record: object) -> SourceRecord:
    match record:
        case {
            "messageId": str(id),
            "body": str(body),
            "receiptHandle": str(receipt),
            "eventSourceARN": str(arn),
            "attributes": {"ApproximateReceiveCount": str(count)},
        } if count.isdecimal() and len(count) < 10 and arn.startswith("arn:") and arn.count(":") == 5:
            fields = cast("dict[str, object]", record)
            system = cast("dict[str, object]", fields["attributes"])
            sent, group = system.get("SentTimestamp"), system.get("MessageGroupId")
            message = SourceMessage.of(
                arn.rpartition(":")[2],
                id,
                body,
                sent=int(sent) if isinstance(sent, str) and sent.isdecimal() and len(sent) < 16 else 0,
                attributes=_attributes(fields.get("messageAttributes")),
                group=group if isinstance(group, str) else "",
            )
            return SourceRecord(id, arn, Arrived(message, receipt, int(count)))
        case {"messageId": str(id)}:
            log.error("message kept: its record is not one of SQS", extra={"message_id": id})
            return SourceRecord(id, "", None)
        case _:
            return SourceRecord("", "", None)


def _attributes(given: object) -> dict[str, Attribute]:
    """The attributes: `{"stringValue": "…", "dataType": "String"}` each, or with a `binaryValue` in base64."""
    found: dict[str, Attribute] = {}
    if isinstance(given, dict):
        for name, attribute in cast("dict[str, object]", given).items():
            match attribute:
                case {"stringValue": str(value), "dataType": str(kind)}:
                    found[name] = value if kind == "String" else Typed(kind, value)
                case {"binaryValue": str(value), "dataType": str(kind)}:
                    with suppress(binascii.Error):
                        found[name] = Typed(kind, base64.b64decode(value))
                case _:
                    pass
    return found
