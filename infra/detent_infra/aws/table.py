"""The table port on DynamoDB: one table, keys `pk` and `sk`, and the index `runs` on `ipk` and `isk`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, assert_never, cast

from botocore.exceptions import ClientError
from detent_state_machine import item_limits
from detent_state_machine.errors import (
    ConfigurationError,
    DetentError,
    InputError,
    PayloadTooLarge,
    Unavailable,
)
from detent_state_machine.records import INDEXED
from detent_state_machine.writes import DeleteItem, Item, Key, PutItem, UpdateItem, Write

from detent_infra.aws.calls import ATTEMPTS, Calls, pause
from detent_infra.aws.errors import Contended, code_of, is_misconfigured, too_large
from detent_infra.aws.expressions import (
    Aliases,
    delete_request,
    key_attributes,
    put_request,
    to_item,
    to_key,
    update_request,
)
from detent_infra.aws.resources import Clients
from detent_infra.ports import Conflict, Page

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.literals import ReturnConsumedCapacityType
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        BatchGetItemOutputTypeDef,
        KeysAndAttributesTypeDef,
        QueryInputTypeDef,
        QueryOutputTypeDef,
        TransactWriteItemTypeDef,
    )

INDEX = "runs"
MAX_BATCH_GET = 100
SMALLER = "Make the values smaller, or store them elsewhere and keep where they are."


class DynamoTable:
    """`measure` makes DynamoDB report the consumed capacity in every answer, for budgets."""

    def __init__(self, clients: Clients, calls: Calls, table: str, *, measure: bool = False) -> None:
        self._clients = clients
        self._calls = calls
        self._table = table
        self._capacity: ReturnConsumedCapacityType = "TOTAL" if measure else "NONE"

    async def get(self, key: Key) -> Item | None:
        return await self._calls(lambda: self._read(key))

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        chunks = [keys[at : at + MAX_BATCH_GET] for at in range(0, len(keys), MAX_BATCH_GET)]
        found: dict[Key, Item] = {}
        for part in await asyncio.gather(*map(self._get_chunk, chunks)):
            found.update(part)
        return [found.get(key) for key in keys]

    async def _get_chunk(self, keys: Sequence[Key]) -> dict[Key, Item]:
        found: dict[Key, Item] = {}
        wanted: KeysAndAttributesTypeDef = {"Keys": [key_attributes(key) for key in keys], "ConsistentRead": True}
        fruitless = 0
        while True:
            answer = await self._calls(partial(self._batch_get, wanted))
            items = answer["Responses"].get(self._table, [])
            found.update((to_key(attributes), to_item(attributes)) for attributes in items)
            if not (rest := answer.get("UnprocessedKeys", {}).get(self._table)):
                return found
            # Either the answer was full at 16 MB, and there is no reason to wait, or the table throttles.
            fruitless = 0 if items else fruitless + 1
            if fruitless == ATTEMPTS:
                raise Unavailable(f"The table {self._table!r} throttles reads.", advice="Try again.")
            if fruitless:
                await pause(fruitless)
            wanted = {"Keys": rest["Keys"], "ConsistentRead": True}

    def _batch_get(self, wanted: KeysAndAttributesTypeDef) -> BatchGetItemOutputTypeDef:
        return self._clients.dynamodb.batch_get_item(
            RequestItems={self._table: wanted}, ReturnConsumedCapacity=self._capacity
        )

    async def write(self, write: Write) -> Item | None:
        item_limits.check(write)
        return await self._calls(lambda: self._write(write))

    def _write(self, write: Write) -> Item | None:
        try:
            match write:
                case PutItem():
                    put = put_request(self._table, write)
                    self._clients.dynamodb.put_item(**put, ReturnConsumedCapacity=self._capacity)
                    return write.item
                case UpdateItem():
                    counts = any(isinstance(more, int) for more in write.add.values())
                    # After a lost reply botocore would send the same update again, and count twice.
                    client = self._clients.dynamodb_once if counts else self._clients.dynamodb
                    update = update_request(self._table, write)
                    answer = client.update_item(**update, ReturnValues="ALL_NEW", ReturnConsumedCapacity=self._capacity)
                    return to_item(answer["Attributes"])
                case DeleteItem():
                    delete = delete_request(self._table, write)
                    self._clients.dynamodb.delete_item(**delete, ReturnConsumedCapacity=self._capacity)
                    return None
                case _:
                    assert_never(write)
        except ClientError as error:
            if code_of(error) == "ConditionalCheckFailedException":
                raise Conflict(_stored(cast("Mapping[str, object]", error.response))) from None
            if code_of(error) == "ValidationException":
                raise self._invalid([write], error.response.get("Error", {}).get("Message", "")) from None
            raise

    def _invalid(self, writes: Sequence[Write], said: str) -> DetentError:
        """Why the table took one of the writes for invalid: AWS names neither the attribute nor what it holds."""
        what = f"{writes[0].key}" if len(writes) == 1 else f"One of {len(writes)} writes in a transaction"
        if too_large(said):
            return PayloadTooLarge(f"{what} is too large: {said}.", advice=SMALLER)
        if is_misconfigured(said):
            return ConfigurationError(
                f"The table {self._table!r} is not one of detent's: {said}.", advice="Deploy the stack's own table."
            )
        for write in writes:
            if isinstance(write, UpdateItem) and write.add:
                try:
                    item_limits.applied(write, self._read(write.key))
                except InputError as explained:
                    return explained
        return InputError(f"{what}: the table {self._table!r} refused it: {said}.")

    def _read(self, key: Key) -> Item | None:
        answer = self._clients.dynamodb.get_item(
            TableName=self._table, Key=key_attributes(key), ConsistentRead=True, ReturnConsumedCapacity=self._capacity
        )
        return to_item(answer["Item"]) if "Item" in answer else None

    async def transact(self, writes: Sequence[Write]) -> None:
        item_limits.check_transaction(writes)
        if writes:
            await self._calls(lambda: self._transact(writes))

    def _transact(self, writes: Sequence[Write]) -> None:
        requests = [self._request(write) for write in writes]
        try:
            # botocore adds a token, so sending it again after a lost reply does not apply it twice.
            self._clients.dynamodb.transact_write_items(TransactItems=requests, ReturnConsumedCapacity=self._capacity)
        except ClientError as error:
            if code_of(error) == "ValidationException":
                raise self._invalid(writes, error.response.get("Error", {}).get("Message", "")) from None
            if code_of(error) != "TransactionCanceledException":
                raise
            reasons = cast("list[Mapping[str, object]]", error.response.get("CancellationReasons", []))
            raise self._cancelled(writes, reasons) from None

    def _cancelled(self, writes: Sequence[Write], reasons: Sequence[Mapping[str, object]]) -> DetentError:
        """Why a transaction wrote nothing. A false condition counts most: trying again would not make it true."""
        for index, reason in enumerate(reasons):
            if reason.get("Code") == "ConditionalCheckFailed":
                return Conflict(_stored(reason), index=index)
        for write, reason in zip(writes, reasons, strict=False):
            code, said = str(reason.get("Code")), str(reason.get("Message"))
            if code in ("ValidationError", "DuplicateItem", "ItemCollectionSizeLimitExceeded"):
                return self._invalid([write], said)
            if code not in _MAY_PASS:
                return ConfigurationError(
                    f"The table {self._table!r} refused a write of a transaction ({write.key}): {code}: {said}",
                    advice="Run `detent doctor`; if it finds nothing wrong, this is a bug of detent.",
                )
        return Contended(
            f"Another write had an item of a transaction on the table {self._table!r}.", advice="Try again."
        )

    def _request(self, write: Write) -> TransactWriteItemTypeDef:
        match write:
            case PutItem():
                return {"Put": put_request(self._table, write)}
            case UpdateItem():
                return {"Update": update_request(self._table, write)}
            case DeleteItem():
                return {"Delete": delete_request(self._table, write)}
            case _:
                assert_never(write)

    async def query(
        self,
        pk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        request = _range_request("pk", pk, "sk", start, end)
        request["ConsistentRead"] = True
        if after is not None:
            if _passed(after, start, end, forward=forward):
                return Page(())
            request["ExclusiveStartKey"] = key_attributes(Key(pk, after))
        elif start and end is not None and not forward:
            # BETWEEN includes `end`; starting from it leaves it out.
            request["ExclusiveStartKey"] = key_attributes(Key(pk, end))
        found = await self._collect(request, start, end, forward=forward, limit=limit, sort="sk")
        items = tuple((to_key(attributes), to_item(attributes)) for attributes in found[:limit])
        return Page(items, items[-1][0].sk if items and len(found) > limit else None)

    async def query_index(
        self,
        ipk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        request = _range_request("ipk", ipk, "isk", start, end)
        request["IndexName"] = INDEX
        if after is not None:
            isk, key = _from_cursor(after)
            if _passed(isk, start, end, forward=forward):
                return Page(())
            request["ExclusiveStartKey"] = {"ipk": {"S": ipk}, "isk": {"S": isk}, **key_attributes(key)}
        found = await self._collect(request, start, end, forward=forward, limit=limit, sort="isk")
        items = tuple((to_key(attributes), _indexed(to_item(attributes))) for attributes in found[:limit])
        return Page(items, _to_cursor(items[-1]) if items and len(found) > limit else None)

    async def _collect(
        self, request: QueryInputTypeDef, start: str, end: str | None, *, forward: bool, limit: int, sort: str
    ) -> list[Mapping[str, AttributeValueTypeDef]]:
        """Up to `limit` items and one more, which tells that there are more.

        An answer ends at 1 MB whatever the limit, so this asks until it has enough or there is nothing left.
        """
        found: list[Mapping[str, AttributeValueTypeDef]] = []
        if limit < 1 or (end is not None and start >= end):
            return found
        request["TableName"] = self._table
        request["ScanIndexForward"] = forward
        request["ReturnConsumedCapacity"] = self._capacity
        while len(found) <= limit:
            request["Limit"] = limit + 1 - len(found)
            answer = await self._calls(partial(self._query, request))
            found.extend(attributes for attributes in answer["Items"] if attributes[sort].get("S") != end)
            if not (last := answer.get("LastEvaluatedKey")):
                break
            request["ExclusiveStartKey"] = last
        return found

    def _query(self, request: QueryInputTypeDef) -> QueryOutputTypeDef:
        return self._clients.dynamodb.query(**request)


def _range_request(hash_name: str, hash_value: str, sort_name: str, start: str, end: str | None) -> QueryInputTypeDef:
    """`start <= sort key < end`, but where both are given DynamoDB can only include `end`."""
    aliases = Aliases()
    text = f"{aliases.raw(hash_name)} = {aliases.value(hash_value)}"
    if start and end is not None:
        text += f" AND {aliases.raw(sort_name)} BETWEEN {aliases.value(start)} AND {aliases.value(end)}"
    elif start:
        text += f" AND {aliases.raw(sort_name)} >= {aliases.value(start)}"
    elif end:
        text += f" AND {aliases.raw(sort_name)} < {aliases.value(end)}"
    return {
        "TableName": "",
        "KeyConditionExpression": text,
        "ExpressionAttributeNames": aliases.names,
        "ExpressionAttributeValues": aliases.values,
    }


def _passed(after: str, start: str, end: str | None, *, forward: bool) -> bool:
    """Whether nothing of the range lies behind `after`. DynamoDB refuses to start outside the range.

    A start before the range is refused too; no `Page.next` of the same query is one.
    """
    if forward:
        return end is not None and after >= end
    return after <= start


def _indexed(item: Item) -> Item:
    return {name: item[name] for name in INDEXED if name in item}


def _to_cursor(entry: tuple[Key, Item]) -> str:
    key, item = entry
    return json.dumps([item["isk"], key.pk, key.sk], ensure_ascii=False, separators=(",", ":"))


def _from_cursor(after: str) -> tuple[str, Key]:
    try:
        parsed: object = json.loads(after)
    except ValueError:
        parsed = None
    match parsed:
        case [str(isk), str(pk), str(sk)]:
            return isk, Key(pk, sk)
        case _:
            raise InputError(f"{after[:80]!r} is not the cursor of this query.", advice="Pass `Page.next` as is.")


def _stored(refusal: Mapping[str, object]) -> Item | None:
    item = refusal.get("Item")
    return to_item(cast("Mapping[str, AttributeValueTypeDef]", item)) if item else None


_MAY_PASS = frozenset(
    {"None", "TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError", "RequestLimitExceeded"}
)
