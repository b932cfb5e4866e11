"""The Lambda handlers, fed with arbitrary and with almost valid events, on a stack in a mocked AWS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from detent_functions import dead_letters, queue_trigger, start, tick, worker
from detent_functions.start import StartFailed
from detent_state_machine.messages import Drive, Start, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.security.json_values import FEW, HOSTILE, any_text, json_values
from tests.support.aws_stack import REGION
from tests.support.lambda_stack import Context, Deployed, deployed
from tests.support.source_queues import create_queue

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
INBOX = f"arn:aws:sqs:{REGION}:123456789012:inbox"
SECRET = "s3cr3t-t0ken-of-the-test"
LEAKS = (SECRET, "Traceback", 'File "', ".py", "site-packages", "/var/task", "botocore", "boto3", "asyncio")
"""What no caller is to be told."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployed]:
    """One for all examples: none of them may leave it in a state that breaks another."""
    with pytest.MonkeyPatch.context() as patch, deployed(patch) as stack:
        patch.setenv("SOME_PASSWORD", SECRET)
        patch.setenv("AWS_SESSION_TOKEN", SECRET)
        stack.start()
        for queue in ("inbox", "inbox.fifo"):
            assert create_queue(stack.sqs, queue) == INBOX + queue.removeprefix("inbox")
        yield stack


record = st.fixed_dictionaries(
    {
        "messageId": any_text | json_values,
        "receiptHandle": any_text | json_values,
        "body": any_text
        | json_values
        | json_values.map(json.dumps)
        | st.builds(lambda run, path: encode(Drive(run, path)), any_text, any_text)
        | st.builds(lambda run, fresh: encode(Start(run, fresh)), any_text, st.booleans()),
        "attributes": st.fixed_dictionaries({"ApproximateReceiveCount": any_text | json_values | st.just("1")})
        | json_values,
    }
)
broken_record = record.flatmap(
    lambda whole: st.sets(st.sampled_from(sorted(whole)), max_size=2).map(
        lambda less: {name: value for name, value in whole.items() if name not in less}
    )
)
sqs_events = json_values | st.fixed_dictionaries(
    {"Records": st.lists(broken_record | record | json_values, max_size=3)}
)


text_or_json = any_text | json_values
source_record = st.builds(
    lambda record, more: {**record, **more},
    record,
    st.fixed_dictionaries(
        {
            "eventSourceARN": st.just(INBOX)
            | st.just(f"{INBOX}.fifo")
            | text_or_json
            | any_text.map("arn:a:b:c:d:".__add__),
            "body": text_or_json | json_values.map(json.dumps) | any_text.map(lambda text: json.dumps({"name": text})),
        },
        optional={
            "attributes": st.fixed_dictionaries(
                {"ApproximateReceiveCount": text_or_json | st.just("1")},
                optional={"SentTimestamp": text_or_json | st.just("9" * 15), "MessageGroupId": text_or_json},
            ),
            "messageAttributes": json_values
            | st.dictionaries(
                any_text,
                json_values
                | st.fixed_dictionaries(
                    {"dataType": st.sampled_from(["String", "Number", "Binary", "Number.x"]) | text_or_json},
                    optional={"stringValue": text_or_json, "binaryValue": text_or_json},
                ),
                max_size=3,
            ),
        },
    ),
)


def kept_is_well_formed(answer: object) -> None:
    match answer:
        case {"batchItemFailures": list(kept)}:
            for each in kept:
                assert isinstance(each["itemIdentifier"], str)
        case _:
            raise AssertionError(answer)
    json.dumps(answer).encode()


@FEW
@given(sqs_events)
def test_the_worker_answers_any_event_and_never_raises(stack: Deployed, event: Any) -> None:
    kept_is_well_formed(worker.handler(event, Context()))


@FEW
@given(sqs_events)
def test_the_dead_letter_consumer_answers_any_event_and_never_raises(stack: Deployed, event: Any) -> None:
    kept_is_well_formed(dead_letters.handler(event, Context("DeadLetters")))


@FEW
@given(sqs_events | st.fixed_dictionaries({"Records": st.lists(source_record | broken_record, max_size=3)}))
def test_the_queue_trigger_answers_any_event_and_never_raises(stack: Deployed, event: Any) -> None:
    kept_is_well_formed(queue_trigger.handler(event, Context("QueueTrigger")))


@pytest.mark.parametrize("value", ["é", "\ud800", "=", "A", "A" * 99_999])
def test_an_attribute_of_a_message_that_is_no_base64_is_none(stack: Deployed, value: str) -> None:
    attributes = {"trace": {"dataType": "Binary", "binaryValue": value}}
    record = {**_whole(), "body": json.dumps({"name": "you"}), "eventSourceARN": INBOX, "messageAttributes": attributes}
    kept_is_well_formed(queue_trigger.handler({"Records": [record]}, Context("QueueTrigger")))


def test_every_handler_is_given_anything() -> None:
    """The functions of template.yaml, each with its test above or below."""
    deployed_ones = set(re.findall(r"Handler: detent_functions\.(\w+)\.handler", TEMPLATE.read_text()))
    assert {module.__name__.rpartition(".")[2] for module in (worker, dead_letters, queue_trigger, tick, start)} == (
        deployed_ones
    )


def test_one_record_that_is_none_keeps_the_whole_batch_and_not_only_itself(stack: Deployed) -> None:
    """Lambda takes a failure without an id for a failure of the batch: then nothing is deleted that was not done."""
    for broken in ({}, None, 7, {"body": "x"}, {"messageId": None, "body": "x"}):
        event = cast("Any", {"Records": [broken, {"messageId": "m-1", "receiptHandle": "r", "body": "poison"}]})
        answer = worker.handler(event, Context())
        assert {"itemIdentifier": ""} in answer["batchItemFailures"]


@settings(FEW, max_examples=10)
@given(json_values)
def test_the_tick_looks_at_no_event(stack: Deployed, event: Any) -> None:
    assert set(tick.handler(event, Context("Tick"))) == {"timers", "looked", "stalled", "sent"}


paths = st.lists(
    st.sampled_from(
        ["workflows", "runs", "greeting", "result", "cancel", "..", "%2e%2e", "%00", "%ff", "%ED%A0%80", ""]
    )
    | any_text,
    max_size=5,
).map(lambda parts: "/" + "/".join(parts))
bodies = (
    any_text
    | json_values.map(json.dumps)
    | st.builds(
        lambda value, more: json.dumps({"input": value, **more}),
        json_values,
        st.dictionaries(st.sampled_from(["key", "metadata", "input", "workflow"]), json_values, max_size=3),
    )
)
url_events = st.fixed_dictionaries(
    {
        "requestContext": st.fixed_dictionaries(
            {"http": st.fixed_dictionaries({"method": st.sampled_from(["GET", "POST", "PUT", "DELETE", "", "get"])})}
        )
        | json_values,
        "rawPath": paths | json_values,
    },
    optional={"body": bodies | json_values, "isBase64Encoded": st.booleans() | json_values, "headers": json_values},
)


@FEW
@given(url_events)
def test_the_api_answers_any_request_with_json_that_tells_nothing_of_its_inside(stack: Deployed, event: Any) -> None:
    reply = cast("dict[str, Any]", start.handler(event, Context("Start")))
    text = json.dumps(reply)
    text.encode()
    parsed: Any = json.loads(reply["body"])
    assert 200 <= reply["statusCode"] < 600
    if reply["statusCode"] >= 400:
        assert reply["headers"]["content-type"] == "application/problem+json"
        assert parsed["status"] == reply["statusCode"]
        assert {"title", "error", "detail"} <= parsed.keys()
        tells_nothing(text, event)


@FEW
@given(
    json_values
    | st.fixed_dictionaries(
        {"workflow": any_text | st.sampled_from(["greeting", *HOSTILE])},
        optional={"input": json_values, "key": any_text | json_values, "metadata": json_values, "more": json_values},
    )
)
def test_a_direct_start_answers_any_payload_and_tells_nothing_of_its_inside(stack: Deployed, event: Any) -> None:
    if isinstance(event, dict) and "requestContext" in event:
        return
    try:
        reply = cast("dict[str, Any]", start.handler(event, Context("Start", request_id="r-fuzz")))
    except StartFailed as failed:
        raise AssertionError(f"the request was at fault, not detent: {failed}") from failed
    if "run_id" not in reply:
        assert 400 <= reply["status"] < 500
        tells_nothing(json.dumps(reply), event)


def tells_nothing(text: str, event: object) -> None:
    given_words = json.dumps(event)
    assert [leak for leak in LEAKS if leak in text and leak not in given_words] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/workflows//runs"),
        ("POST", "/workflows/%00/runs"),
        ("POST", "/workflows/..%2f..%2fruns/runs"),
        ("GET", "/runs/%ff%fe"),
        ("GET", "/runs/\ud800"),
        ("GET", "/runs/" + "x" * 5_000),
        ("POST", "/runs/\ud800/cancel"),
        ("POST", "/workflows/\ud800/runs"),
        ("POST", "/workflows/" + "x" * 5_000 + "/runs"),
    ],
)
def test_a_path_that_leads_nowhere_is_the_callers_fault(stack: Deployed, method: str, path: str) -> None:
    status, problem = stack.http(method, path, {"input": 1})
    assert 400 <= status < 500, problem
    tells_nothing(json.dumps(problem), path)


def test_an_event_that_is_no_request_is_the_callers_fault(stack: Deployed) -> None:
    events: list[Any] = [
        {"requestContext": None},
        {"requestContext": {"http": 5}, "rawPath": 7},
        {"requestContext": {"http": {"method": "GET"}}, "rawPath": ["/runs"]},
        {"requestContext": {"http": {"method": "POST"}}, "rawPath": "/workflows/greeting/runs", "body": 5},
    ]
    for event in events:
        reply = cast("dict[str, Any]", start.handler(event, Context("Start")))
        assert reply["statusCode"] == 400, event


@pytest.mark.parametrize(
    "body",
    [
        '{"input": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"input": ' + "9" * 500_000 + "}",
        '{"input": 1e400}',
        '{"input": "' + "\\ud800" + '"}',
        '{"metadata": {"' + "a" * 100_000 + '": "b"}}',
        '{"key": "' + "k" * 100_000 + '"}',
        '{"input": "' + "x" * 2_000_000 + '"}',
        '{"input": ' + "[" * 400 + "]" * 400 + "}",
    ],
    ids=["deep", "number", "infinite", "surrogate", "metadata", "key", "large", "less deep"],
)
def test_a_bomb_in_a_request_starts_nothing_or_a_run_and_breaks_nothing(stack: Deployed, body: str) -> None:
    before = stack.waiting()
    status, _ = stack.http("POST", "/workflows/greeting/runs", body)
    assert status in (202, 400, 413)
    assert stack.waiting() - before == (1 if status == 202 else 0)


def test_a_large_body_in_base64_is_refused_before_it_is_decoded(stack: Deployed) -> None:
    status, _ = stack.http("POST", "/workflows/greeting/runs", "A" * 8_000_000, isBase64Encoded=True)
    assert status == 413


def test_a_log_of_a_fuzzed_message_is_one_json_object_per_line(
    stack: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = encode(Drive('x\n{"level":"ERROR","message":"forged"}\x1b[2J', "p\r\nq"))
    event = cast("Any", {"Records": [{**_whole(), "body": forged}]})
    worker.handler(event, Context())
    dead_letters.handler(event, Context("DeadLetters"))
    for line in capsys.readouterr().out.splitlines():
        assert json.loads(line).get("message") != "forged"
        assert "\x1b" not in line


def _whole() -> dict[str, Any]:
    return {"messageId": "m", "receiptHandle": "r", "attributes": {"ApproximateReceiveCount": "1"}}
