"""What `detent deploy` says of an account that has fewer invocations at once than the stack would ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from detent_infra.aws.resources import Clients
from detent_infra.ops.doctor.capacity import judge_capacity
from detent_infra.ops.packaging.target import read_template

from tests.support.aws_stack import REGION, Answer, answering, moto_stack

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
TRIGGER = {"TriggerQueueArn": "arn:aws:sqs:eu-west-1:123456789012:orders"}


def has(unreserved: int) -> Answer:
    limit = {"ConcurrentExecutions": unreserved, "UnreservedConcurrentExecutions": unreserved}
    return 200, {"AccountLimit": limit, "AccountUsage": {}}


@pytest.fixture
def clients() -> Iterator[Clients]:
    with moto_stack(), closing(Clients(REGION, None)) as made:
        yield made


def said(clients: Clients, answer: Answer, given: dict[str, str]) -> list[str]:
    with answering("lambda.GetAccountSettings", answer):
        return [f"{each.message} {each.fix}" for each in judge_capacity(clients, read_template(TEMPLATE), given)]


def test_a_new_account_is_told_the_limit_that_fits_and_to_ask_for_more(clients: Clients) -> None:
    [warning] = said(clients, has(10), {})
    assert "invoke up to 102 at once, but 10 is what the account has" in warning
    assert "`-p MaximumConcurrency=8`, or ask for a higher quota" in warning
    assert said(clients, has(10), {"MaximumConcurrency": "8"}) == []


def test_the_limit_of_a_trigger_counts_only_where_there_is_one(clients: Clients) -> None:
    assert said(clients, has(102), {}) == []
    [warning] = said(clients, has(102), TRIGGER)
    assert "up to 112 at once" in warning
    assert "`-p MaximumConcurrency=90`" in warning
    [warning] = said(clients, has(10), {**TRIGGER, "MaximumConcurrency": "8"})
    assert "Ask for a higher quota" in warning, "no limit of the worker's would do"


@pytest.mark.parametrize("answer", [(403, {"__type": "AccessDeniedException"}), (200, {"AccountLimit": {}})])
def test_an_account_that_may_not_be_looked_at_is_not_spoken_of(clients: Clients, answer: Answer) -> None:
    assert said(clients, answer, {}) == []


def test_a_limit_that_is_no_number_is_left_to_cloudformation(clients: Clients) -> None:
    assert said(clients, has(10), {"MaximumConcurrency": "many"}) == []
