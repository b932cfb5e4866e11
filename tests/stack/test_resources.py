"""Every resource of the template is there, and is what the template says: asked of each service, not of the stack.

A stack's status says that its engine is content. Stand-ins are content with less than AWS: what they leave out is
named in `IGNORED`, with what that means, and a test fails if they have learned it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.stack import facts
from tests.stack.deploy import FUNCTIONS
from tests.stack.facts import Fact
from tests.stack.places import Kind
from tests.stack.stack import Stack
from tests.support.sam_template import properties, statements, template

RESOURCES = {
    *("Table", "Bucket", "BucketPolicy", "Queue", "DeadLetterQueue", "FailedStarts", "Logs"),
    *FUNCTIONS,
    *(f"{function}Role" for function in FUNCTIONS),
    *("WorkerMessages", "DeadLettersMessages", "QueueTriggerMessages", "StartUrl"),
    *("TickMinute", "TickMinutePermission", "TickEventInvokeConfig", "StartEventInvokeConfig"),
    *("DeadLetterAlarm", "DeadLettersLeftAlarm", "OldestMessageAlarm"),
    *("FailedStartsAlarm", "StartErrorAlarm", "DeadLettersErrorAlarm"),
    *("KeptMessagesAlarm", "WorkerErrorAlarm", "WorkerThrottleAlarm", "TickErrorAlarm"),
    *("RefusedMessagesAlarm", "KeptTriggersAlarm", "QueueTriggerErrorAlarm"),
}
FORTNIGHT = 14 * 86_400
QUEUE = {"VisibilityTimeout": 960, "MessageRetentionPeriod": FORTNIGHT, "wait": 20, "encrypted": "true"}


def source(at_most: int) -> dict[str, Any]:
    says = ["ReportBatchItemFailures"]
    return {"from": True, "to": True, "on": "Enabled", "batch": 10, "says": says, "at most": at_most}


def alarm(metric: tuple[str, str, str], of: list[str], limits: tuple[str, float, int, int]) -> dict[str, Any]:
    return {"metric": metric, "of": of, "if": limits, "missing": "notBreaching"}


FACTS: Mapping[str, tuple[Fact, Any]] = {
    "the table": (
        facts.table,
        {
            "key": ["pk", "sk"],
            "billing": "PAY_PER_REQUEST",
            "index": ("runs", ["ipk", "isk"], "INCLUDE"),
            "in the index": ["created", "ended", "key", "metadata", "status", "version", "workflow"],
        },
    ),
    "the table's encryption": (facts.table_encryption, "ENABLED"),
    "the table's time to live": (facts.time_to_live, ("ENABLED", "expires")),
    "the table's recovery": (facts.recovery, "ENABLED"),
    "the bucket": (
        facts.bucket,
        {
            "public": dict.fromkeys(
                ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
            ),
            "encryption": "AES256",
            "ownership": "BucketOwnerEnforced",
        },
    ),
    "the bucket's lifecycle": (facts.bucket_lifecycle, ("Enabled", 400, {"DaysAfterInitiation": 1})),
    "the bucket's policy": (facts.bucket_policy, facts.TLS_ONLY),
    "the queue": (facts.queue("QueueUrl"), QUEUE),
    "the dead-letter queue": (facts.queue("DeadLetterQueueUrl"), QUEUE),
    "the queue of failed starts": (
        facts.queue("FailedStartsQueueUrl"),
        {"VisibilityTimeout": 30, "MessageRetentionPeriod": FORTNIGHT, "wait": 0, "encrypted": "true"},
    ),
    "where failed starts go": (facts.failed_starts_go, True),
    "the redrive": (facts.redrive, (True, 10)),
    "the log group": (facts.log_group, 30),
    "the recursion setting": (facts.recursion, {"Allow"}),
    "the tick's retries": (facts.retries_of_the_tick, 0),
    "the worker's messages": (facts.event_source("Worker", "QueueUrl"), source(100)),
    "the dead letters' messages": (facts.event_source("DeadLetters", "DeadLetterQueueUrl"), source(2)),
    "the trigger's messages": (facts.event_source("QueueTrigger", "TriggerQueueArn"), source(10)),
    "the URL": (facts.url, ("AWS_IAM", True)),
    "the minute": (facts.minute, ("rate(1 minute)", "ENABLED", True)),
    "the minute's permission": (facts.minute_may_invoke, [("events.amazonaws.com", "lambda:InvokeFunction")]),
    "the alarm of dead letters": (
        facts.alarm("DeadLetterAlarm"),
        alarm(
            ("AWS/SQS", "NumberOfMessagesReceived", "Sum"),
            ["DeadLetterQueueUrl"],
            ("GreaterThanThreshold", 0.0, 300, 1),
        ),
    ),
    "the alarm of dead letters left": (
        facts.alarm("DeadLettersLeftAlarm"),
        alarm(
            ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum"),
            ["DeadLetterQueueUrl"],
            ("GreaterThanThreshold", 0.0, 300, 1),
        ),
    ),
    "the alarm of failed starts": (
        facts.alarm("FailedStartsAlarm"),
        alarm(
            ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum"),
            ["FailedStartsQueueUrl"],
            ("GreaterThanThreshold", 0.0, 300, 1),
        ),
    ),
    "the alarm of old messages": (
        facts.alarm("OldestMessageAlarm"),
        alarm(
            ("AWS/SQS", "ApproximateAgeOfOldestMessage", "Maximum"),
            ["QueueUrl"],
            ("GreaterThanThreshold", 3600.0, 300, 1),
        ),
    ),
    "the alarm of kept messages": (
        facts.alarm("KeptMessagesAlarm"),
        alarm(("detent", "MessagesKept", "Sum"), ["Worker", "detent"], ("GreaterThanThreshold", 0.0, 300, 3)),
    ),
    "the alarm of refused messages": (
        facts.alarm("RefusedMessagesAlarm"),
        alarm(("detent", "MessagesRefused", "Sum"), ["QueueTrigger", "detent"], ("GreaterThanThreshold", 0.0, 300, 1)),
    ),
    "the alarm of kept triggers": (
        facts.alarm("KeptTriggersAlarm"),
        alarm(("detent", "MessagesKept", "Sum"), ["QueueTrigger", "detent"], ("GreaterThanThreshold", 0.0, 300, 3)),
    ),
    "the alarm of worker errors": (
        facts.alarm("WorkerErrorAlarm"),
        alarm(("AWS/Lambda", "Errors", "Sum"), ["Worker"], ("GreaterThanThreshold", 0.0, 300, 1)),
    ),
    "the alarm of worker throttles": (
        facts.alarm("WorkerThrottleAlarm"),
        alarm(("AWS/Lambda", "Throttles", "Sum"), ["Worker"], ("GreaterThanThreshold", 0.0, 300, 3)),
    ),
    "the alarm of start errors": (
        facts.alarm("StartErrorAlarm"),
        alarm(("AWS/Lambda", "Errors", "Sum"), ["Start"], ("GreaterThanThreshold", 0.0, 300, 1)),
    ),
    "the alarm of dead-letter errors": (
        facts.alarm("DeadLettersErrorAlarm"),
        alarm(("AWS/Lambda", "Errors", "Sum"), ["DeadLetters"], ("GreaterThanThreshold", 0.0, 300, 1)),
    ),
    "the alarm of trigger errors": (
        facts.alarm("QueueTriggerErrorAlarm"),
        alarm(("AWS/Lambda", "Errors", "Sum"), ["QueueTrigger"], ("GreaterThanThreshold", 0.0, 300, 1)),
    ),
    "the alarm of tick errors": (
        facts.alarm("TickErrorAlarm"),
        alarm(("AWS/Lambda", "Errors", "Sum"), ["Tick"], ("GreaterThanOrEqualToThreshold", 3.0, 900, 1)),
    ),
}

IGNORED: Mapping[Kind, Mapping[str, str]] = {
    "ministack": {
        "the table's encryption": "SSESpecification is read when a table is changed, not when it is made",
        "the table's time to live": "TimeToLiveSpecification is not read: nothing is dropped after its retention",
        "the table's recovery": "PointInTimeRecoverySpecification is not read: there is nothing to restore from",
        "the bucket's policy": "it is enforced, and there is no TLS: the suite looks at it and takes it away",
        "the bucket's lifecycle": "LifecycleConfiguration is not read: values stay for ever",
        "the recursion setting": "RecursiveLoop is not read; chains through SQS are not counted either",
    },
    "localstack": {
        "the table's recovery": "PointInTimeRecoverySpecification is not read: there is nothing to restore from",
        "the bucket's lifecycle": "LifecycleConfiguration is not read: values stay for ever",
        "the log group": "RetentionInDays is not read: lines stay for ever",
        "the recursion setting": "RecursiveLoop is not read; chains through SQS are not counted either",
    },
}
"""By place: what is not there, and what follows."""


def test_the_stack_has_every_resource_and_no_other(stack: Stack) -> None:
    assert stack.resources.keys() == RESOURCES
    assert all(stack.resources.values())


@pytest.mark.parametrize("name", FACTS)
def test_a_resource_is_what_the_template_says(stack: Stack, name: str) -> None:
    read, expected = FACTS[name]
    if name in IGNORED.get(stack.place.kind, {}):
        assert read(stack) != expected, f"{stack.place.kind} has learned it: take it out of IGNORED"
    else:
        assert read(stack) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_set_as_the_template_says(stack: Stack, name: str) -> None:
    given = properties(name)
    defaults = {key: parameter["Default"] for key, parameter in template()["Parameters"].items()}
    limits = [defaults[value["Ref"]] if isinstance(value, dict) else value for value in map(given.get, LIMITS)]
    assert facts.function(name)(stack) == {
        "runs": (given["Handler"], given["Runtime"], given["Architectures"]),
        "limits": tuple(limits),
        "logs to": True,
        "role": True,
        "told": True,
    }


LIMITS = ("Timeout", "MemorySize")


@pytest.mark.parametrize("name", [f"{function}Role" for function in FUNCTIONS])
def test_a_role_has_the_template_s_statements_and_the_worker_s_the_app_s_policies(stack: Stack, name: str) -> None:
    found, attached = facts.role(name)(stack)
    wanted = list(statements(name))
    assert [(each["Sid"], each["Action"]) for each in found] == [(each["Sid"], each["Action"]) for each in wanted]
    assert attached == ([stack.parameters["AppPolicies"]] if name == "WorkerRole" else [])
