"""What the AWS adapter asks of AWS, counted at botocore's event hooks, and what AWS charges for it.

Requests are those that boto3 made. Capacity units are computed from the items' sizes, not taken from moto's
`ConsumedCapacity`, which is not the service's:

    write   1 unit for each KB of the item, of the larger image before and after; refused: of the item that is stored
    in a transaction   twice that
    in the index       1 unit per KB of the entry when it is put, 1 when a projected attribute changes,
                       2 (a deletion and a put) when its sort key does
    read    1 unit for each 4 KB, strongly consistent, 1 for an item that is missing; half of it on the index

Prices are list prices of us-east-1 as of October 2026; check them at aws.amazon.com/dynamodb/pricing/on-demand and
aws.amazon.com/sqs/pricing. How units are counted is in the DynamoDB Developer Guide, "Read and write operations", "Item
sizes and formats" and "Global secondary indexes".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from detent_state_machine.records import INDEXED

WRITE_UNITS_PER_MILLION = 0.625
READ_UNITS_PER_MILLION = 0.125
SQS_REQUESTS_PER_MILLION = 0.40
SQS_CHUNK = 64 * 1024

STEP_FUNCTIONS_STANDARD = 27.50
"""US dollars per million steps of a linear workflow of 10: 11 transitions a run at $25 per million
(aws.amazon.com/step-functions/pricing)."""
LAMBDA_DURABLE_FUNCTIONS = 9.15
"""The same as 11 operations a run at $8 per million, 1 KB each at $0.25/GB written and $0.15/GB-month kept 14 days
(aws.amazon.com/lambda/pricing)."""

Attributes: TypeAlias = Mapping[str, Mapping[str, Any]]
"""An item as the service spells it: `{"status": {"S": "RUNNING"}}`."""


class AwsCall(Protocol):
    """One call as `tests.aws_stack.recorded_calls` yields it."""

    @property
    def service(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def response(self) -> Mapping[str, Any]: ...


@dataclass
class Bill:
    """Requests and units of some calls. Receives that brought nothing are apart: they cost the same at any load."""

    requests: Counter[str] = field(default_factory=Counter[str])
    write_units: int = 0
    index_write_units: int = 0
    read_units: float = 0.0
    sqs_requests: int = 0
    empty_receives: int = 0
    largest_item: int = 0

    @property
    def total_requests(self) -> int:
        return sum(self.requests.values())

    @property
    def dollars(self) -> float:
        """US dollars of one million times these calls: DynamoDB and SQS, without Lambda."""
        writes = (self.write_units + self.index_write_units) * WRITE_UNITS_PER_MILLION
        return writes + self.read_units * READ_UNITS_PER_MILLION + self.sqs_requests * SQS_REQUESTS_PER_MILLION

    def per(self, count: int) -> dict[str, object]:
        """The figures for one of `count` steps, as JSON values."""
        return {
            "requests": {name: round(n / count, 4) for name, n in sorted(self.requests.items())},
            "requests_total": round(self.total_requests / count, 4),
            "write_units": round(self.write_units / count, 4),
            "index_write_units": round(self.index_write_units / count, 4),
            "read_units": round(self.read_units / count, 4),
            "sqs_requests": round(self.sqs_requests / count, 4),
            "dollars_per_million": round(self.dollars / count, 4),
            "largest_item_bytes": self.largest_item,
        }


def bill(calls: Iterable[AwsCall], stored: Mapping[tuple[str, str], Attributes]) -> Bill:
    """The bill of the calls. `stored` is the table as they left it: a transaction's answer holds no items."""
    meter = _Meter(stored)
    for call in calls:
        if call.service == "dynamodb":
            meter.dynamodb(call)
        elif call.service == "sqs":
            meter.sqs(call)
        else:
            meter.bill.requests[f"{call.service}.{call.operation}"] += 1
    return meter.bill


class _Meter:
    """Follows the items through the calls, so that a write is billed by what it found and what it left."""

    def __init__(self, stored: Mapping[tuple[str, str], Attributes]) -> None:
        self.bill = Bill()
        self._stored = stored
        self._items: dict[tuple[str, str], Attributes] = {}

    def sqs(self, call: AwsCall) -> None:
        if call.operation == "ReceiveMessage" and not call.response.get("Messages"):
            self.bill.empty_receives += 1
            return
        entries: list[Mapping[str, Any]] = call.params.get("Entries", [])
        carried = sum(len(str(entry.get("MessageBody", "")).encode()) for entry in entries)
        carried += sum(len(str(message["Body"]).encode()) for message in call.response.get("Messages", []))
        self.bill.requests[f"sqs.{call.operation}"] += 1
        self.bill.sqs_requests += max(1, math.ceil(carried / SQS_CHUNK))

    def dynamodb(self, call: AwsCall) -> None:
        self.bill.requests[f"dynamodb.{call.operation}"] += 1
        params, response = call.params, call.response
        match call.operation:
            case "PutItem":
                self._write(key_of(params["Item"]), params["Item"], response)
            case "UpdateItem":
                self._write(key_of(params["Key"]), response.get("Attributes"), response)
            case "DeleteItem":
                self._write(key_of(params["Key"]), None, response)
            case "TransactWriteItems":
                for action in params["TransactItems"]:
                    request: Mapping[str, Any] = next(iter(action.values()))
                    key = key_of(request.get("Key") or request["Item"])
                    self._write(key, None if "Delete" in action else self._stored[key], response, factor=2)
            case "GetItem":
                self._read([response.get("Item")])
            case "BatchGetItem":
                for table, wanted in params["RequestItems"].items():
                    found: list[Attributes] = response["Responses"].get(table, [])
                    self._read([*found, *[None] * (len(wanted["Keys"]) - len(found))])
            case "Query":
                size = sum(map(size_of, response.get("Items", [])))
                self.bill.read_units += _units(size, 4096) * (0.5 if "IndexName" in params else 1.0)
            case other:
                raise ValueError(f"No price is known for {other}.")

    def _write(
        self, key: tuple[str, str], after: Attributes | None, response: Mapping[str, Any], *, factor: int = 1
    ) -> None:
        before = self._items.get(key)
        if "Error" in response:
            refused_by: Attributes | None = response.get("Item", before)
            self.bill.write_units += factor * _units(size_of(refused_by), 1024)
            return
        larger = max(size_of(before), size_of(after))
        self.bill.largest_item = max(self.bill.largest_item, larger)
        self.bill.write_units += factor * _units(larger, 1024)
        self.bill.index_write_units += factor * _index_units(before, after)
        if after is None:
            self._items.pop(key, None)
        else:
            self._items[key] = after

    def _read(self, items: Iterable[Attributes | None]) -> None:
        self.bill.read_units += sum(_units(size_of(item), 4096) for item in items)


def key_of(item: Attributes) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def size_of(item: Attributes | None) -> int:
    """Bytes as DynamoDB bills them: names and values as UTF-8, two digits of a number in a byte."""
    if item is None:
        return 0
    return sum(len(name.encode()) + _bytes(value) for name, value in item.items())


def _bytes(value: Mapping[str, Any]) -> int:
    kind, content = next(iter(value.items()))
    match kind:
        case "S":
            return len(str(content).encode())
        case "N":
            return 1 + (len(str(content).lstrip("-")) + 1) // 2 + str(content).startswith("-")
        case "BOOL" | "NULL":
            return 1
        case "SS" | "NS":
            return sum(_bytes({kind[0]: member}) for member in content)
        case _:
            raise ValueError(f"No size is known for a value of kind {kind}.")


def _units(size: int, chunk: int) -> int:
    return max(1, math.ceil(size / chunk))


def _index_units(before: Attributes | None, after: Attributes | None) -> int:
    old, new = _entry(before), _entry(after)
    if old == new:
        return 0
    if old is None or new is None:
        return _units(size_of(old or new), 1024)
    if (old["ipk"], old["isk"]) != (new["ipk"], new["isk"]):
        return _units(size_of(old), 1024) + _units(size_of(new), 1024)
    return _units(max(size_of(old), size_of(new)), 1024)


def _entry(item: Attributes | None) -> Attributes | None:
    """What the index holds of the item; None for one without the index's keys."""
    if item is None or "ipk" not in item or "isk" not in item:
        return None
    return {name: item[name] for name in ("pk", "sk", *INDEXED) if name in item}
