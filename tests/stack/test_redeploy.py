"""A deploy while runs are in progress: they keep the definition they began with, and new ones take the new."""

from __future__ import annotations

from tests.stack import app
from tests.stack.deploy import read_stack
from tests.stack.stack import PATIENCE, Stack, until_on_stack


def test_runs_in_flight_keep_their_definition_and_new_ones_take_the_new(stack: Stack) -> None:
    stack.project.change_edition(2)
    stack.project.build()
    if stack.place.endpoint is not None:
        # A stand-in may lose a delivery while it updates the function, which then comes back when the queue says: after
        # 16 minutes. AWS goes on with the old code until the new one is there.
        stack.place.client("sqs").set_queue_attributes(
            QueueUrl=stack.outputs["QueueUrl"], Attributes={"VisibilityTimeout": "20"}
        )
    old = stack.client.start(app.growing, "the gate")
    until_on_stack(lambda: stack.ledger.count(old.id)["hold began"] >= 1)
    stack.project.deploy(stack.name, stack.parameters)
    new = stack.invoke({"workflow": "growing", "input": "the gate", "key": "after the deploy"})["run_id"]
    assert read_stack(stack.place, stack.project, stack.name, stack.parameters).outputs == stack.outputs
    until_on_stack(lambda: stack.ledger.count(new)["hold began"] >= 1)
    assert stack.client.get(old.id).status.live
    stack.ledger.append("the gate", "is open")

    assert stack.client.handle(new).result(timeout=PATIENCE) == "held, finished by edition 2"
    assert stack.ledger.count(new)["polish done"] == 1
    assert old.result(timeout=PATIENCE) == "held, finished by edition 2", "bodies are the new code's"
    assert stack.ledger.count(old.id)["polish done"] == 0
    assert [step.path for step in stack.client.steps(old.id)] == ["hold", "finish"]
    assert [step.path for step in stack.client.steps(new)] == ["hold", "polish", "finish"]
    assert stack.client.get(old.id).version == app.growing.definition.version != stack.client.get(new).version
