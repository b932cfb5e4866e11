"""A stack from nothing: the ledger and its policy, a project, `sam deploy`; and the same backwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from botocore.exceptions import ClientError

from tests.stack.app import inbox
from tests.stack.facts import TLS_ONLY, bucket_policy
from tests.stack.ledger import ACTIONS, Ledger, table_name
from tests.stack.places import Place
from tests.stack.sam import APP, Project, new_project
from tests.stack.stack import Stack
from tests.support.fresh_names import fresh
from tests.support.sam_template import as_list
from tests.support.source_queues import create_queue

MINISTACK_ALSO_ASKS_FOR = {"sqs:SendMessage": "sqs:SendMessageBatch"}
"""What ministack demands where AWS demands the first alone: to AWS, a batch is so many single messages."""


FUNCTIONS = ("Worker", "Start", "Tick", "DeadLetters", "QueueTrigger")


@contextmanager
def deployed(place: Place, folder: Path) -> Iterator[Stack]:
    """The stack, for as long as the block. Of what it leaves on a server that others use, nothing is left."""
    name = fresh("detent-test")
    ledger = Ledger(table_name(name), place.client("dynamodb"))
    project = new_project(folder, place)
    ledger.create()
    source = create_queue(place.client("sqs"), inbox(name))
    policy = _policy(place, ledger)
    try:
        project.sam("validate", "--lint")
        project.build()
        parameters = {
            "App": APP,
            "AppPolicies": policy,
            "TriggerQueueArn": source,
            "TriggerDeadLetterQueueArn": f"{source}-dead",
        }
        project.deploy(name, parameters)
        stack = read_stack(place, project, name, parameters)
        if place.kind == "ministack":
            _allow_batches(stack)
            _allow_plain_http(stack)
        yield stack
    finally:
        if not place.temporary:
            _remove(place, project, name)
            place.client("iam").delete_policy(PolicyArn=policy)


def read_stack(place: Place, project: Project, name: str, parameters: Mapping[str, str]) -> Stack:
    client = place.client("cloudformation")
    [found] = client.describe_stacks(StackName=name)["Stacks"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}
    pages = client.get_paginator("list_stack_resources").paginate(StackName=name)
    resources = {
        each["LogicalResourceId"]: each["PhysicalResourceId"]
        for page in pages
        for each in page["StackResourceSummaries"]
    }
    return Stack(place, project, name, parameters, outputs, resources)


def _policy(place: Place, ledger: Ledger) -> str:
    """What bodies need, in the way that users give it: a managed policy for the parameter AppPolicies."""
    table = place.client("dynamodb").describe_table(TableName=ledger.table)["Table"]["TableArn"]
    statement = {"Effect": "Allow", "Action": ACTIONS, "Resource": table}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made = place.client("iam").create_policy(PolicyName=ledger.table, PolicyDocument=document)
    return str(made["Policy"]["Arn"])


def _allow_batches(stack: Stack) -> None:
    iam = stack.place.client("iam")
    for role in (stack.resources[f"{function}Role"] for function in FUNCTIONS):
        document = iam.get_role_policy(RoleName=role, PolicyName="detent")["PolicyDocument"]
        extra = [
            {"Effect": "Allow", "Action": more, "Resource": statement["Resource"]}
            for statement in document["Statement"]
            for action, more in MINISTACK_ALSO_ASKS_FOR.items()
            if action in as_list(statement["Action"])
        ]
        iam.put_role_policy(
            RoleName=role,
            PolicyName="ministack",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": extra}),
        )


def _allow_plain_http(stack: Stack) -> None:
    """The bucket's policy refuses whoever comes without TLS, as functions come to ministack, which enforces it."""
    assert bucket_policy(stack) == TLS_ONLY
    stack.place.client("s3").delete_bucket_policy(Bucket=stack.resources["Bucket"])


def _remove(place: Place, project: Project, name: str) -> None:
    """The stack if it is there, and what it keeps: also of a deploy that came to nothing."""
    try:
        place.client("cloudformation").describe_stacks(StackName=name)
    except ClientError:  # the suite came to its last test
        pass
    else:
        project.delete(name)
    dynamodb, s3, sqs = place.client("dynamodb"), place.client("s3"), place.client("sqs")
    for queue in sqs.list_queues(QueueNamePrefix=inbox(name)).get("QueueUrls", []):
        sqs.delete_queue(QueueUrl=queue)
    for page in dynamodb.get_paginator("list_tables").paginate():
        for table in page["TableNames"]:
            if table.startswith(name):
                dynamodb.delete_table(TableName=table)
    for bucket in (each["Name"] for each in s3.list_buckets()["Buckets"]):
        if bucket.startswith(name):
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for stored in page.get("Contents", []):
                    s3.delete_object(Bucket=bucket, Key=stored["Key"])
            s3.delete_bucket(Bucket=bucket)
