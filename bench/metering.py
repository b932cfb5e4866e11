"""What the AWS adapter asks of AWS, counted at botocore's event hooks, and metered as AWS does.

Requests are those that boto3 made. Capacity units are computed from the items' sizes by the service's rules
(`detent_infra.ops.cost.metering`), not taken from moto's `ConsumedCapacity`, which is not the service's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from detent_infra.aws.expressions import to_item
from detent_infra.ops.cost.metering import Usage
from detent_infra.ops.cost.prices import MILLION, cost_of
from detent_state_machine.item_limits import item_size
from detent_state_machine.writes import Item

Attributes: TypeAlias = Mapping[str, Any]
"""An item as the service spells it: `{"status": {"S": "RUNNING"}}`."""

Address: TypeAlias = tuple[str, str]
"""An item's partition and sort key."""


class AwsCall(Protocol):
    """One call as `tests.support.aws_stack.recorded_calls` yields it."""

    @property
    def service(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def response(self) -> Mapping[str, Any]: ...


@dataclass
class Bill(Usage):
    """Usage of some calls. Receives that brought nothing are apart: they cost the same at any load."""

    empty_receives: int = 0
    largest_item: int = 0

    @property
    def dollars(self) -> float:
        """US dollars of one million times these calls: DynamoDB, SQS and S3, without Lambda."""
        return cost_of(self).services * MILLION

    def per(self, count: int) -> dict[str, object]:
        """The figures for one of `count` steps, as JSON values."""
        return {
            "requests": {name: round(n / count, 4) for name, n in sorted(self.requests.items())},
            "requests_total": round(self.total_requests / count, 4),
            "write_units": round(self.write_units / count, 4),
            "index_write_units": round(self.index_write_units / count, 4),
            "read_units": round(self.read_units / count, 4),
            "sqs_requests": round(self.sqs_requests / count, 4),
            "s3_requests": round((self.blob_puts + self.blob_gets) / count, 4),
            "dollars_per_million": round(self.dollars / count, 4),
            "largest_item_bytes": self.largest_item,
        }


def bill(calls: Iterable[AwsCall], stored: Mapping[Address, Attributes]) -> Bill:
    """The bill of the calls. `stored` is the table as they left it: a transaction's answer holds no items."""
    meter = _Meter(stored)
    for call in calls:
        if call.service == "dynamodb":
            meter.dynamodb(call)
        elif call.service == "sqs":
            meter.sqs(call)
        else:
            meter.bill.asked(f"{call.service}.{call.operation}")
    return meter.bill


def addresses(call: AwsCall) -> Iterable[Address]:
    """The items that a call names, if it is one to DynamoDB."""
    if call.service != "dynamodb":
        return []
    params = call.params
    if "TransactItems" in params:
        requests: list[Mapping[str, Any]] = [next(iter(action.values())) for action in params["TransactItems"]]
        return [key_of(request.get("Key") or request["Item"]) for request in requests]
    if "RequestItems" in params:
        return [key_of(key) for wanted in params["RequestItems"].values() for key in wanted["Keys"]]
    return [key_of(params.get("Key") or params["Item"])] if "Key" in params or "Item" in params else []


class _Meter:
    """Follows the items through the calls, so that a write is billed by what it found and what it left."""

    def __init__(self, stored: Mapping[Address, Attributes]) -> None:
        self.bill = Bill()
        self._stored = stored
        self._items: dict[Address, Item] = {}

    def sqs(self, call: AwsCall) -> None:
        messages = call.response.get("Messages", [])
        if call.operation == "ReceiveMessage":
            if not messages:
                self.bill.empty_receives += 1
                return
            self.bill.invocations += 1
        entries: list[Mapping[str, Any]] = call.params.get("Entries", [])
        carried = sum(len(str(entry.get("MessageBody", "")).encode()) for entry in entries)
        carried += sum(len(str(message["Body"]).encode()) for message in messages)
        self.bill.asked_queue(call.operation, carried)

    def dynamodb(self, call: AwsCall) -> None:
        self.bill.asked(f"dynamodb.{call.operation}")
        params, response = call.params, call.response
        match call.operation:
            case "PutItem":
                self._write(key_of(params["Item"]), to_item_with_key(params["Item"]), response)
            case "UpdateItem":
                attributes = response.get("Attributes")
                self._write(key_of(params["Key"]), to_item_with_key(attributes) if attributes else None, response)
            case "DeleteItem":
                self._write(key_of(params["Key"]), None, response)
            case "TransactWriteItems":
                for action in params["TransactItems"]:
                    request: Mapping[str, Any] = next(iter(action.values()))
                    key = key_of(request.get("Key") or request["Item"])
                    left = None if "Delete" in action else to_item_with_key(self._stored[key])
                    self._write(key, left, response, factor=2)
            case "GetItem":
                self._read([response.get("Item")])
            case "BatchGetItem":
                for table, wanted in params["RequestItems"].items():
                    found: list[Attributes] = response["Responses"].get(table, [])
                    self._read([*found, *[None] * (len(wanted["Keys"]) - len(found))])
            case "Query":
                self.bill.queried(map(to_item_with_key, response.get("Items", [])), index="IndexName" in params)
            case other:
                raise ValueError(f"No price is known for {other}.")

    def _write(self, key: Address, after: Item | None, response: Mapping[str, Any], *, factor: int = 1) -> None:
        before = self._items.get(key)
        if "Error" in response:
            refused_by = to_item_with_key(response["Item"]) if "Item" in response else before
            self.bill.refused(refused_by, times=factor)
            return
        self.bill.largest_item = max(self.bill.largest_item, item_size(before or {}), item_size(after or {}))
        self.bill.wrote(before, after, times=factor)
        if after is None:
            self._items.pop(key, None)
        else:
            self._items[key] = after

    def _read(self, items: Iterable[Attributes | None]) -> None:
        for item in items:
            self.bill.read(to_item_with_key(item) if item else None)


def key_of(item: Attributes) -> Address:
    return item["pk"]["S"], item["sk"]["S"]


def to_item_with_key(attributes: Attributes) -> Item:
    """The item with its key among its attributes."""
    pk, sk = key_of(attributes)
    return {"pk": pk, "sk": sk, **to_item(attributes)}
