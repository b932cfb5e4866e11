"""The queue trigger, invoked with events as AWS sends them, on a mocked stack with queues of a user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from detent_functions import queue_trigger
from detent_functions.runtime import runtime

from tests.support.aws_stack import UNSENT, Call, answering, recorded_calls
from tests.support.envelopes import EVENT, notification
from tests.support.lambda_stack import GREETING, Context, Deployed, cool, deployed
from tests.support.source_queues import create_queue

Record = dict[str, Any]
NONE_KEPT: dict[str, list[object]] = {"batchItemFailures": []}


class Inbox:
    """A user's queue, and the function behind its event source mapping."""

    def __init__(self, stack: Deployed, name: str = "inbox", *, max_receives: int | None = 10) -> None:
        self.stack = stack
        self.name = name
        self.arn = create_queue(stack.sqs, name, max_receives=max_receives)
        self.url = stack.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def deliver(self, *records: Record, context: Context | None = None) -> list[str]:
        """Invokes the function with the batch; the ids of those it keeps."""
        given = context or Context("QueueTrigger")
        return [
            each["itemIdentifier"]
            for each in queue_trigger.handler({"Records": list(records)}, given)["batchItemFailures"]
        ]

    def record(self, body: str, id: str = "059f36b4-87a3-44ab-83d2-661975830a7d", **more: object) -> Record:
        """A record as in "Using Lambda with Amazon SQS" of the AWS documentation."""
        return {
            "messageId": id,
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
            "body": body,
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": "1545082649183",
                "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                "ApproximateFirstReceiveTimestamp": "1545082649185",
            },
            "messageAttributes": {},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
            "eventSource": "aws:sqs",
            "eventSourceARN": self.arn,
            "awsRegion": "us-east-1",
            **more,
        }

    def dead(self) -> list[dict[str, Any]]:
        """The messages of its dead-letter queue, as SQS has them."""
        stem, dot, suffix = self.name.partition(".")
        url = self.stack.sqs.get_queue_url(QueueName=f"{stem}-dead{dot}{suffix}")["QueueUrl"]
        answer = self.stack.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=0
        )
        return [dict(message) for message in answer.get("Messages", [])]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    with deployed(monkeypatch) as stack:
        yield stack


@pytest.fixture
def inbox(stack: Deployed) -> Inbox:
    return Inbox(stack)


def greetings(stack: Deployed) -> list[str]:
    """What the steps that ran were given, once every message of the step queue is handled."""
    while stack.waiting():
        stack.poll()
    here = runtime()
    runs = [run_id for run_id, step in stack.bodies.ran if step == "greet"]
    items = [here.run(here.backend.table.get(_run_key(run_id))) for run_id in runs]
    return sorted(json.loads(str(item["input"])) for item in items if item)


def _run_key(run_id: str) -> Any:
    from detent_state_machine.keys import run_key

    return run_key(run_id)


# ---- started ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"name":"you"}',
        notification('{"name":"you"}'),
        notification('{"name":"you"}', Subject="new", MessageAttributes={"a": {"Type": "String", "Value": "b"}}),
    ],
    ids=["sqs, and sns with raw delivery", "sns", "sns with all it may have"],
)
def test_a_message_starts_a_run_whatever_carried_it(inbox: Inbox, body: str) -> None:
    assert inbox.deliver(inbox.record(body)) == []
    assert greetings(inbox.stack) == ["you"]


def test_an_event_of_eventbridge_is_seen_whole_by_the_expressions(inbox: Inbox) -> None:
    assert inbox.deliver(inbox.record(json.dumps({**EVENT, "name": "you"}))) == []
    assert greetings(inbox.stack) == ["you"]


def test_a_batch_starts_each_message_s_run_with_one_request_to_the_step_queue(inbox: Inbox) -> None:
    batch = [inbox.record(json.dumps({"name": f"n{n}"}), f"m-{n}") for n in range(10)]
    inbox.deliver(inbox.record('{"name":"you"}'))
    with recorded_calls() as calls:
        assert inbox.deliver(*batch) == []
    assert [call.operation for call in calls].count("PutItem") == 10
    assert [call.operation for call in calls if call.service == "sqs"] == ["SendMessageBatch"]
    assert len(calls) == 11
    assert len(greetings(inbox.stack)) == 11


def test_a_batch_delivered_twice_starts_each_run_once(inbox: Inbox) -> None:
    batch = [
        inbox.record('{"name":"a"}', "m-1"),
        inbox.record('{"name":"b"}', "m-2"),
        inbox.record('{"name":"a"}', "m-1"),
    ]
    assert inbox.deliver(*batch) == inbox.deliver(*reversed(batch)) == []
    assert greetings(inbox.stack) == ["a", "b"]


def test_a_notification_that_sns_delivers_as_two_messages_starts_one_run(inbox: Inbox) -> None:
    body = notification('{"name":"you"}')
    assert inbox.deliver(inbox.record(body, "m-1"), inbox.record(body, "m-2")) == []
    assert greetings(inbox.stack) == ["you"]


def test_one_message_may_start_several_workflows_and_a_large_input_goes_to_the_bucket(inbox: Inbox) -> None:
    assert inbox.deliver(inbox.record(json.dumps({"name": "x" * 20_000}))) == []
    here = runtime()
    assert here.run(here.definitions.names()) == ["greeting", "keeping"]
    assert inbox.stack.waiting() == 2


def test_an_empty_batch_has_no_failures(inbox: Inbox) -> None:
    assert inbox.deliver() == []


# ---- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("hello", "greeting: The message is not JSON"),
        ("{}", "input 'name' finds nothing in the message"),
        ('{"name":7}', "greeting: The input of workflow 'greeting' is not text."),
        (notification("hello"), "The message in the notification of SNS is not JSON"),
        ('{"Type":"SubscriptionConfirmation","MessageId":"n","TopicArn":"t","Message":"m"}', "finds nothing"),
    ],
)
def test_what_can_start_nothing_goes_to_the_source_s_dead_letter_queue_with_the_reason_and_is_acknowledged(
    inbox: Inbox, body: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    attributes = {
        "tenant": {"stringValue": "acme", "dataType": "String"},
        "raw": {"binaryValue": "AA==", "dataType": "Binary"},
    }
    record = inbox.record(body, messageAttributes=attributes)
    assert inbox.deliver(record) == []
    [dead] = inbox.dead()
    assert dead["MessageAttributes"].pop("raw") == {"BinaryValue": b"\x00", "DataType": "Binary"}
    said = {name: value["StringValue"] for name, value in dead["MessageAttributes"].items()}
    assert dead["Body"] == body
    assert reason in said["detent-reason"]
    assert (said["detent-error"], said["detent-id"], said["tenant"]) == ("InputError", record["messageId"], "acme")
    assert "now a dead letter" in caplog.text
    assert inbox.stack.waiting() == 0


def test_a_refused_message_leaves_the_rest_of_its_batch_alone(inbox: Inbox) -> None:
    batch = [inbox.record('{"name":"a"}', "m-1"), inbox.record("hello", "m-2"), inbox.record('{"name":"c"}', "m-3")]
    assert inbox.deliver(*batch) == []
    assert greetings(inbox.stack) == ["a", "c"]
    assert len(inbox.dead()) == 1


def test_a_dead_letter_that_sqs_moves_back_under_a_new_id_is_known_by_its_first_one(inbox: Inbox) -> None:
    """`StartMessageMoveTask` gives each message a new id, and keeps its attributes."""
    inbox.deliver(inbox.record('{"name":"you"}', "m-1"))
    redriven = inbox.record(
        '{"name":"you"}', "m-2", messageAttributes={"detent-id": {"stringValue": "m-1", "dataType": "String"}}
    )
    assert inbox.deliver(redriven) == []
    assert greetings(inbox.stack) == ["you"]


def test_a_source_without_a_dead_letter_queue_keeps_what_can_start_nothing_and_says_so(
    stack: Deployed, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    cool()
    inbox = Inbox(stack, max_receives=None)
    record = inbox.record("hello", "m-1")
    with recorded_calls() as calls:
        assert inbox.deliver(record, inbox.record('{"name":"you"}', "m-2")) == ["m-1"]
    assert _hidden(calls) == [10]
    assert "its queue has no dead-letter queue" in caplog.text
    assert _metrics(capsys) == {"MessagesRefused": 1, "MessagesKept": 1, "MessagesHandled": 1, "RunsStarted": 1}


# ---- kept ---------------------------------------------------------------------------------------------------


def test_a_message_is_kept_and_hidden_longer_each_time_while_the_backend_does_not_answer(inbox: Inbox) -> None:
    hidden: list[list[int]] = []
    for count in ("1", "2", "9"):
        record = inbox.record('{"name":"you"}', "m-1")
        record["attributes"]["ApproximateReceiveCount"] = count
        with recorded_calls() as calls, answering("sqs.SendMessageBatch", UNSENT, UNSENT, UNSENT):
            assert inbox.deliver(record) == ["m-1"]
        hidden.append(_hidden(calls))
    assert hidden == [[10], [20], [900]]
    assert inbox.dead() == []
    assert inbox.deliver(inbox.record('{"name":"you"}', "m-1")) == []
    assert greetings(inbox.stack) == ["you"], "though the first delivery stored the run"


def test_a_process_that_dies_between_storing_a_run_and_sending_its_message_starts_no_second_one(inbox: Inbox) -> None:
    class Died(BaseException):
        pass

    async def die(*_: object, **__: object) -> None:
        raise Died

    record = inbox.record('{"name":"you"}', "m-1")
    here = runtime()
    send = here.backend.queue.send
    here.backend.queue.__dict__["send"] = die
    with pytest.raises(Died):
        inbox.deliver(record)
    here.backend.queue.__dict__["send"] = send
    assert inbox.stack.waiting() == 0
    assert inbox.deliver(record) == []
    assert greetings(inbox.stack) == ["you"]


def test_a_queue_that_no_workflow_names_keeps_its_messages_for_the_code_that_does(
    stack: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    other = Inbox(stack, "other")
    assert other.deliver(other.record('{"name":"you"}', "m-1")) == ["m-1"]
    assert "No workflow of this code takes messages of the queue 'other'" in caplog.text
    assert other.dead() == []


def test_a_dead_letter_queue_that_may_not_be_sent_to_keeps_the_message_for_sqs_to_move(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    denied = (403, {"__type": "AccessDenied", "message": "not authorized to perform: sqs:sendmessage"})
    with answering("sqs.SendMessage", denied):
        assert inbox.deliver(inbox.record("hello", "m-1")) == ["m-1"]
    assert "could not become a dead letter" in caplog.text
    assert "greeting: The message is not JSON" in caplog.text


@pytest.mark.parametrize("name", ["DETENT_TABLE", "DETENT_APP"])
def test_a_function_that_is_not_set_up_keeps_every_message(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cool()
    monkeypatch.setenv(name, "" if name == "DETENT_TABLE" else "nowhere.at_all:app")
    assert inbox.deliver(inbox.record("{}", "m-1"), inbox.record("{}", "m-2")) == ["m-1", "m-2"]


def test_records_that_are_none_of_sqs_are_kept_and_the_others_are_not(inbox: Inbox) -> None:
    odd: list[Record] = [
        {"messageId": "odd-1"},
        inbox.record("{}", "odd-2", eventSourceARN="inbox"),
        inbox.record("{}", "odd-3", attributes={}),
    ]
    assert inbox.deliver(*odd, inbox.record('{"name":"you"}')) == ["odd-1", "odd-2", "odd-3"]
    assert greetings(inbox.stack) == ["you"]
    assert queue_trigger.handler({}, Context("QueueTrigger")) == NONE_KEPT


def test_what_is_not_done_when_the_invocation_ends_is_kept(inbox: Inbox) -> None:
    here = runtime()

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    here.backend.queue.__dict__["send"] = never
    assert inbox.deliver(inbox.record('{"name":"you"}', "m-1"), context=Context(left_ms=700)) == ["m-1"]


# ---- FIFO ---------------------------------------------------------------------------------------------------


def test_a_fifo_queue_s_messages_after_one_that_is_kept_are_kept_too(stack: Deployed) -> None:
    fifo = Inbox(stack, "inbox.fifo")
    batch = [fifo.record(json.dumps({"name": f"n{n}"}), f"m-{n}") for n in range(3)]
    fifo.deliver(fifo.record('{"name":"first"}'))  # registers the definition
    sent = [(200, {"Successful": [{"Id": "0", "MessageId": "x"}], "Failed": []}), UNSENT, UNSENT, UNSENT]
    with answering("sqs.SendMessageBatch", *sent):
        assert fifo.deliver(*batch) == ["m-1", "m-2"]


def test_a_message_that_is_kept_holds_up_no_other_group_of_a_fifo_queue(stack: Deployed) -> None:
    fifo = Inbox(stack, "inbox.fifo")
    batch = [fifo.record(json.dumps({"name": f"n{n}"}), f"m-{n}") for n in range(4)]
    for record, group in zip(batch, "aaab", strict=True):
        record["attributes"]["MessageGroupId"] = group
    fifo.deliver(fifo.record('{"name":"first"}'))  # registers the definition
    sent = (200, {"Successful": [{"Id": "0", "MessageId": "x"}, {"Id": "1", "MessageId": "y"}], "Failed": []})
    with answering("sqs.SendMessageBatch", sent, UNSENT, UNSENT, UNSENT):
        assert fifo.deliver(*batch) == ["m-1", "m-2"]


def test_a_refused_message_of_a_fifo_queue_is_a_dead_letter_of_its_group_and_holds_up_nothing(stack: Deployed) -> None:
    fifo = Inbox(stack, "inbox.fifo")
    first = {"detent-id": {"stringValue": "m-0", "dataType": "String"}}  # it was refused before, and put back
    refused = fifo.record("hello", "m-1", messageAttributes=first)
    refused["attributes"]["MessageGroupId"] = "g"
    with recorded_calls() as calls:
        assert fifo.deliver(refused, fifo.record('{"name":"you"}', "m-2")) == []
    [sent] = [call.params for call in calls if call.operation == "SendMessage"]
    assert (sent["MessageGroupId"], sent["MessageDeduplicationId"]) == ("g", "m-1")
    assert greetings(stack) == ["you"]


# ---- what it says ---------------------------------------------------------------------------------------------


def test_runs_refusals_and_messages_that_nobody_wants_are_counted(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox.deliver(inbox.record('{"name":"a"}', "m-1"), inbox.record("hello", "m-2"))
    assert _metrics(capsys) == {"MessagesRefused": 1, "MessagesKept": 0, "MessagesHandled": 2, "RunsStarted": 1}
    inbox.deliver(inbox.record('{"name":"a"}', "m-1"))
    assert _metrics(capsys)["RunsStarted"] == 0, "it was started before"
    assert GREETING.name == "greeting"


def _metrics(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "CloudWatchMetrics" in line]
    names = ("MessagesRefused", "MessagesKept", "MessagesHandled", "RunsStarted")
    return {name: sum(line.get(name, [0])) for name in names if name in line}


def _hidden(calls: list[Call]) -> list[int]:
    return [call.params["VisibilityTimeout"] for call in calls if call.operation == "ChangeMessageVisibility"]
