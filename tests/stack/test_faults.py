"""Workers that are killed, messages that are lost, chains that Lambda takes for loops. All of it began long before."""

from __future__ import annotations

import pytest
from detent import Delivery, RunFailed, StepStatus

from tests.stack import app
from tests.stack.early import Early
from tests.stack.stack import PATIENCE, Stack

SURVIVES = [Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE]


def test_the_tick_finds_a_run_whose_message_was_lost_by_the_minute_rule(stack: Stack, early: Early) -> None:
    assert stack.client.handle(early.lost).result(timeout=2 * PATIENCE) == 13


@pytest.mark.parametrize("delivery", SURVIVES)
def test_a_run_goes_on_after_its_worker_was_killed_in_a_step(stack: Stack, early: Early, delivery: Delivery) -> None:
    run_id = early.killed[delivery]
    assert stack.client.handle(run_id).result(timeout=2 * PATIENCE) == "done in attempt 2"
    assert stack.ledger.count(run_id) == {"work began": 2, "work done": 1}
    committed = stack.client.read(app.EFFECTS, f"{run_id}/work")
    assert committed == ({"times": 1} if delivery is Delivery.EXACTLY_ONCE else None)


def test_an_at_most_once_step_whose_worker_was_killed_is_not_begun_again(stack: Stack, early: Early) -> None:
    run_id = early.killed[Delivery.AT_MOST_ONCE]
    with pytest.raises(RunFailed, match="Interrupted"):
        stack.client.handle(run_id).result(timeout=2 * PATIENCE)
    assert stack.ledger.count(run_id) == {"work began": 1}


def test_a_chain_of_more_messages_than_lambda_s_loop_detection_allows_comes_to_its_end(
    stack: Stack, early: Early
) -> None:
    assert stack.client.handle(early.stubborn).result(timeout=3 * PATIENCE) == "at last"
    assert stack.ledger.count(early.stubborn) == {"try_on began": app.HOPS}
    record = stack.step(early.stubborn, "try_on")
    assert record is not None
    assert (record.status, record.attempt) == (StepStatus.COMPLETED, app.HOPS)
