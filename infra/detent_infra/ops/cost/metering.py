"""How AWS meters: sizes of items, capacity units, and what a piece of work used.

    write   1 unit for each KB of the item, of the larger image before and after; refused: of the item that is stored
    in a transaction   twice that
    in the index       1 unit per KB of the entry when it is put, 1 when a projected attribute changes,
                       2 (a deletion and a put) when its sort key does
    read    1 unit for each 4 KB, strongly consistent, 1 for an item that is missing; half of it on the index
    SQS     1 request for each 64 KB that a request carries, 1 at least

DynamoDB Developer Guide: "Read and write operations", "Item sizes and formats", "Global secondary indexes". SQS:
aws.amazon.com/sqs/pricing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from detent_state_machine.item_limits import item_size
from detent_state_machine.records import INDEXED
from detent_state_machine.writes import Item, Key, Value

WRITE_UNIT = 1024
READ_UNIT = 4096
QUEUE_CHUNK = 64 * 1024
STORED_OVERHEAD = 100
"""Bytes that DynamoDB adds to each stored item, and again to its entry in the index."""

ItemSize: TypeAlias = int
"""Bytes of an item as DynamoDB bills them."""


@dataclass
class Usage:
    """What some work used. Requests have names as in `dynamodb.UpdateItem`; a share of a batch is a fraction."""

    requests: Counter[str] = field(default_factory=Counter[str])
    write_units: float = 0
    index_write_units: float = 0
    read_units: float = 0
    sqs_requests: float = 0
    """As billed, by chunks of 64 KB."""
    invocations: float = 0
    milliseconds: float = 0
    """Of Lambda's time."""
    log_bytes: float = 0
    stored_bytes: float = 0
    """In the table and its index, until the run's retention ends."""

    @property
    def total_requests(self) -> float:
        """Requests to DynamoDB, SQS and S3."""
        return self.requests.total()

    @property
    def blob_puts(self) -> float:
        return self.requests["s3.PutObject"]

    @property
    def blob_gets(self) -> float:
        return self.requests["s3.GetObject"]

    def asked(self, request: str, times: float = 1) -> None:
        # A `Counter` counts in fractions as well; only its annotation says otherwise.
        self.requests[request] += times  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]

    # ---- what is asked for ------------------------------------------------------------------------------------

    def wrote(self, before: Item | None, after: Item | None, *, times: int = 1) -> None:
        """A write that made one image of the other, each with its key among its attributes. In a transaction, twice."""
        self.write_units += times * write_units(max(item_size(before or {}), item_size(after or {})))
        self.index_write_units += times * index_units(before, after)

    def refused(self, stored: Item | None, *, times: int = 1) -> None:
        """A write whose condition did not hold."""
        self.write_units += times * write_units(item_size(stored or {}))

    def read(self, item: Item | None) -> None:
        """Strongly consistent, the item with its key among its attributes."""
        self.read_units += read_units(item_size(item or {}))

    def queried(self, items: Iterable[Item], *, index: bool = False) -> None:
        """One page; the index is read with half the consistency."""
        self.read_units += read_units(sum(map(item_size, items))) * (0.5 if index else 1.0)

    def asked_queue(self, operation: str, carried: int = 0, times: float = 1) -> None:
        """`carried`: bytes of the messages in the request or its answer."""
        self.asked(f"sqs.{operation}", times)
        self.sqs_requests += times * queue_requests(carried)

    def add(self, other: Usage, times: float = 1) -> None:
        """Adds another usage, so often."""
        for name, count in other.requests.items():
            self.asked(name, count * times)
        for each in fields(self):
            if each.name != "requests":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name) * times)


def write_units(size: ItemSize) -> int:
    return max(1, math.ceil(size / WRITE_UNIT))


def read_units(size: ItemSize) -> int:
    """Strongly consistent. A missing item, of size 0, costs one."""
    return max(1, math.ceil(size / READ_UNIT))


def index_units(before: Item | None, after: Item | None) -> int:
    """Units of the index when an item changes. The items have their keys among their attributes."""
    old, new = index_entry(before), index_entry(after)
    if old == new:
        return 0
    if old is None or new is None:
        return write_units(item_size(old or new or {}))
    if (old["ipk"], old["isk"]) != (new["ipk"], new["isk"]):
        return write_units(item_size(old)) + write_units(item_size(new))
    return write_units(max(item_size(old), item_size(new)))


def index_entry(item: Item | None) -> Item | None:
    """What the index holds of the item; None for one without the index's keys."""
    if item is None or "ipk" not in item or "isk" not in item:
        return None
    return {name: item[name] for name in ("pk", "sk", *INDEXED) if name in item}


def stored_size(item: Item) -> int:
    """Bytes of storage that the item takes, with its entry in the index."""
    entry = index_entry(item)
    return item_size(item) + STORED_OVERHEAD + (item_size(entry) + STORED_OVERHEAD if entry else 0)


def queue_requests(carried: int) -> int:
    """What one request is billed as that carries so many bytes."""
    return max(1, math.ceil(carried / QUEUE_CHUNK))


def with_key(key: Key, item: Item) -> Mapping[str, Value]:
    """The item with its key among its attributes."""
    return {"pk": key.pk, "sk": key.sk, **item}
