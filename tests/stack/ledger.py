"""What bodies did, told to a table that is none of detent's: one item for each thing done, whoever did it how often."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any
from uuid import uuid4

import boto3

ACTIONS = ("dynamodb:PutItem", "dynamodb:Query", "dynamodb:GetItem")
"""What a body needs of the ledger's table."""


def table_name(stack: str) -> str:
    return f"{stack}-ledger"


class Ledger:
    """`client` is a DynamoDB client."""

    def __init__(self, table: str, client: Any) -> None:
        self.table = table
        self._client = client

    @staticmethod
    def here() -> Ledger:
        """The ledger beside the stack whose function this is."""
        return Ledger(table_name(os.environ["DETENT_STACK"]), boto3.client("dynamodb"))

    def create(self) -> None:
        self._client.create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("about", "id")],
            KeySchema=[{"AttributeName": "about", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}],
        )
        self._client.get_waiter("table_exists").wait(TableName=self.table, WaiterConfig={"Delay": 1})

    def append(self, about: str, what: str, **more: object) -> None:
        """`about` is a run's id, or the name of something that runs wait for."""
        values = {"about": about, "id": uuid4().hex, "what": what, **more}
        self._client.put_item(TableName=self.table, Item={name: {"S": str(value)} for name, value in values.items()})

    def entries(self, about: str) -> list[dict[str, str]]:
        found = self._client.query(
            TableName=self.table,
            ConsistentRead=True,
            KeyConditionExpression="about = :about",
            ExpressionAttributeValues={":about": {"S": about}},
        )["Items"]
        return [{name: str(value["S"]) for name, value in item.items()} for item in found]

    def count(self, about: str) -> Counter[str]:
        """How often each thing was done."""
        return Counter(entry["what"] for entry in self.entries(about))
