"""What is read of a stack whose parts were deleted by hand; and what of it is the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from detent_infra.aws import Resources
from detent_infra.aws.resources import Clients
from detent_infra.clock import wall_clock
from detent_infra.ops.stack.facts import Unread
from detent_infra.ops.stack.parts import ALARMS, RULE, StackParts, StackResource, attempt

from tests.support.aws_stack import REGION, moto_stack
from tests.support.sam_template import template

LISTED = [
    StackResource("Tick", "AWS::Lambda::Function", "shop-Tick-1"),
    StackResource(RULE, "AWS::Events::Rule", "shop-TickMinute-1"),
    StackResource("Reports", "AWS::Events::Rule", "shop-bus|reports"),
    StackResource("DeadLetterAlarm", "AWS::CloudWatch::Alarm", "shop-DeadLetterAlarm-1"),
    StackResource("Slow", "AWS::CloudWatch::Alarm", "shop-Slow-1"),
]


@pytest.fixture
def stack() -> Iterator[Resources]:
    with moto_stack() as resources:
        yield resources


@pytest.fixture
def look(stack: Resources) -> Iterator[StackParts]:
    clients = Clients(REGION, None)
    yield StackParts(clients, stack, LISTED, wall_clock)
    clients.close()


def client(service: str) -> Any:
    made: Any = boto3
    return made.client(service)


DELETED: dict[str, tuple[Callable[[Resources], object], Callable[[StackParts, Resources], object]]] = {
    "the table": (lambda s: client("dynamodb").delete_table(TableName=s.table), lambda look, _: look.table()),
    "the queue": (
        lambda s: client("sqs").delete_queue(QueueUrl=s.queue_url),
        lambda look, s: look.queue(s.queue_url),
    ),
    "the bucket": (lambda s: client("s3").delete_bucket(Bucket=s.bucket), lambda look, _: look.missing_blocks()),
    "the log group": (
        lambda s: client("logs").delete_log_group(logGroupName=s.log_group),
        lambda look, _: look.log_retention(),
    ),
    "the rule": (lambda _: None, lambda look, _: look.rules()),
}


@pytest.mark.parametrize("what", DELETED)
def test_what_was_deleted_by_hand_is_told_from_what_may_not_be_read(
    what: str, stack: Resources, look: StackParts
) -> None:
    delete, read = DELETED[what]
    delete(stack)
    found = attempt(what, lambda: read(look, stack))
    assert isinstance(found, Unread)
    assert (found.gone, found.why) == (True, f"AWS does not find {what}: deleted by hand, it seems.")


def test_a_function_that_was_deleted_by_hand_is_not_among_those_that_are_there(look: StackParts) -> None:
    assert look.configurations() == []


def test_only_the_alarms_of_the_template_are_looked_at_and_one_that_is_gone_has_no_state(look: StackParts) -> None:
    assert set(ALARMS) == {
        name for name, each in template()["Resources"].items() if each["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert [(each.name, each.state) for each in look.alarms()] == [("shop-DeadLetterAlarm-1", None)]


def test_a_rule_of_the_user_s_own_is_not_taken_for_the_tick_s(look: StackParts) -> None:
    client("events").create_event_bus(Name="shop-bus")
    client("events").put_rule(Name="reports", EventBusName="shop-bus", EventPattern="{}", State="DISABLED")
    client("events").put_rule(Name="shop-TickMinute-1", ScheduleExpression="rate(1 minute)")
    assert [(each.name, each.enabled) for each in look.rules()] == [("shop-TickMinute-1", True)]


def test_the_clock_is_read_off_a_refusal_too(stack: Resources, look: StackParts) -> None:
    client("sqs").delete_queue(QueueUrl=stack.queue_url)
    assert abs(look.clock_off()) < 60
