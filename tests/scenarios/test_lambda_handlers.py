"""The Lambda handlers, invoked with events as AWS sends them, on a mocked stack."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from detent_functions import dead_letters, start, tick, worker
from detent_functions.batches import SqsEvent
from detent_functions.runtime import ADVICE, runtime
from detent_functions.settings import from_environment
from detent_infra.application import load_application
from detent_infra.ports import Table
from detent_infra.relay import RelayedTable, TableCall
from detent_infra.runs.as_json import run_json
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_state_machine.errors import ConfigurationError
from detent_state_machine.messages import Drive, encode

from tests.support.aws_stack import Call, recorded_calls
from tests.support.lambda_stack import GREETING, Context, Deployed, cool, deployed

_T = TypeVar("_T")


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    with deployed(monkeypatch) as stack:
        yield stack


# ---- worker -----------------------------------------------------------------------------------------------------


def test_a_run_started_over_http_is_driven_to_its_end_by_one_delivery(stack: Deployed) -> None:
    run_id = stack.start(input="you")
    assert stack.poll() == {"batchItemFailures": []}
    assert stack.http("GET", f"/runs/{run_id}/result") == (200, {"value": "HELLO YOU"})
    assert stack.waiting() == 0


def test_an_empty_batch_has_no_failures(stack: Deployed) -> None:
    assert worker.handler({"Records": []}, Context()) == {"batchItemFailures": []}


def test_a_malformed_body_is_kept_and_the_rest_of_its_batch_is_not(stack: Deployed) -> None:
    run_id = stack.start()
    stack.send("{not json")
    event = stack.receive()
    [malformed] = [record["messageId"] for record in event["Records"] if record["body"] == "{not json"]
    assert worker.handler(event, Context()) == {"batchItemFailures": [{"itemIdentifier": malformed}]}
    assert stack.status(run_id) == "COMPLETED"


def test_a_record_that_is_not_one_of_sqs_is_kept_and_the_rest_of_its_batch_is_not(stack: Deployed) -> None:
    run_id = stack.start()
    event = stack.receive()
    event["Records"].append(cast("Any", {"messageId": "odd"}))
    assert worker.handler(event, Context()) == {"batchItemFailures": [{"itemIdentifier": "odd"}]}
    assert stack.status(run_id) == "COMPLETED"


def test_a_batch_delivered_twice_is_acknowledged_twice_and_runs_each_body_once(stack: Deployed) -> None:
    run_id = stack.start()
    event = stack.receive()
    for _ in range(2):
        assert worker.handler(event, Context()) == {"batchItemFailures": []}
    assert sorted(stack.bodies.ran) == [(run_id, "greet"), (run_id, "shout")]


def test_messages_of_a_batch_are_driven_at_the_same_time(stack: Deployed) -> None:
    runs = [stack.start("meeting") for _ in range(3)]
    event: SqsEvent = {"Records": []}
    while len(event["Records"]) < 3:
        event["Records"] += stack.receive()["Records"]
    assert worker.handler(event, Context()) == {"batchItemFailures": []}
    assert [stack.status(run_id) for run_id in runs] == ["COMPLETED"] * 3, "each body waits for the two others"


def test_a_step_that_this_code_does_not_have_is_handed_on_so_that_it_never_becomes_a_dead_letter(
    stack: Deployed,
) -> None:
    run_id = stack.start()
    stack.bodies.forgotten.add("greet")
    stack.sqs.purge_queue(QueueUrl=stack.resources.queue_url)
    stack.send(encode(Drive(run_id, "greet")))
    event = stack.receive()
    with recorded_calls() as calls:
        assert worker.handler(event, Context()) == {"batchItemFailures": []}
    [sent] = _of(calls, "SendMessageBatch")
    [copy] = sent.params["Entries"]
    assert (copy["MessageBody"], copy["DelaySeconds"]) == (encode(Drive(run_id, "greet")), 31)
    assert stack.status(run_id) == "RUNNING"


def test_a_message_of_a_newer_detent_is_kept_and_hidden_longer_each_time(stack: Deployed) -> None:
    stack.send('{"v":99,"kind":"dance"}')
    event = stack.receive()
    hidden: list[list[int]] = []
    for count in (1, 2, 9):
        event["Records"][0]["attributes"]["ApproximateReceiveCount"] = str(count)
        with recorded_calls() as calls:
            assert len(worker.handler(event, Context())["batchItemFailures"]) == 1
        hidden.append([call.params["VisibilityTimeout"] for call in _of(calls, "ChangeMessageVisibility")])
    # A redelivery is first given the visibility that a lease has, in case it kills this worker too.
    assert hidden == [[10], [30, 20], [30, 900]]


def test_a_worker_whose_application_cannot_be_imported_keeps_every_message(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [stack.start(), stack.start()]
    cool()
    monkeypatch.setenv("DETENT_APP", "nowhere.at_all:app")
    with recorded_calls() as calls:
        assert len(stack.poll()["batchItemFailures"]) == len(runs)
    hidden = [call.params["VisibilityTimeout"] for call in _of(calls, "ChangeMessageVisibility")]
    assert hidden == [10] * len(runs), "they come back soon, not when their visibility runs out"
    assert stack.waiting() == len(runs)


def test_a_worker_without_its_environment_keeps_every_message(stack: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.start()
    event = stack.receive()
    cool()
    monkeypatch.delenv("DETENT_TABLE")
    assert len(worker.handler(event, Context())["batchItemFailures"]) == 1


class Silent(RelayedTable):
    """A table that never answers about one run."""

    def __init__(self, table: Table, run_id: str) -> None:
        super().__init__(table)
        self._run_id = run_id

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        if any(self._run_id in key.pk for key in call.keys):
            await asyncio.Event().wait()
        return await act()


def test_what_is_not_done_when_the_invocation_ends_is_kept_and_what_is_done_is_not(stack: Deployed) -> None:
    _, stuck = stack.start(), stack.start()
    here = runtime()
    here.__dict__["backend"] = replace(here.backend, table=Silent(here.backend.table, stuck))
    event: SqsEvent = {"Records": []}
    while len(event["Records"]) < 2:
        event["Records"] += stack.receive()["Records"]
    [kept] = worker.handler(event, Context(left_ms=10_000))["batchItemFailures"]
    assert [r["messageId"] for r in event["Records"] if stuck in r["body"]] == [kept["itemIdentifier"]]


def test_a_delivery_is_counted_and_what_is_kept_is_logged_under_its_run(
    stack: Deployed, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run_id = "not-stored-yet"
    stack.send(encode(Drive(run_id, "greet")))
    worker.handler(stack.receive(), Context("Worker-1"))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "MessagesKept" in line]
    assert [(line["function"], line["MessagesHandled"], line["MessagesKept"]) for line in printed] == [
        ("Worker-1", [0.0], [1.0])
    ]
    assert printed[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "detent"
    assert [record.__dict__["run_id"] for record in caplog.records if "message kept" in record.message] == [run_id]


# ---- dead letters -----------------------------------------------------------------------------------------------


def bury(stack: Deployed, run_id: str) -> None:
    """The message of `greet` becomes a dead letter, and is handled."""
    stack.acknowledge(stack.receive(stack.resources.queue_url))
    stack.send(encode(Drive(run_id, "greet")), url=stack.resources.dead_letter_url)
    assert stack.poll(dead_letters.handler, url=stack.resources.dead_letter_url) == {"batchItemFailures": []}


def test_a_dead_letter_runs_no_body_and_sends_its_step_a_new_message(stack: Deployed) -> None:
    run_id = stack.start()
    bury(stack, run_id)
    assert (stack.status(run_id), stack.bodies.ran) == ("RUNNING", [])
    assert (stack.waiting(stack.resources.dead_letter_url), stack.waiting(stack.resources.queue_url)) == (0, 1)
    assert stack.poll(worker.handler) == {"batchItemFailures": []}
    assert stack.status(run_id) == "COMPLETED"


def test_a_dead_letter_fails_its_step_run_with_the_reason_when_the_take_overs_are_used_up(stack: Deployed) -> None:
    run_id = stack.start()
    for _ in range(6):
        bury(stack, run_id)
    run = stack.http("GET", f"/runs/{run_id}")[1]
    assert (run["status"], run["failed_step"]) == ("FAILED", "greet")
    assert run["error"], "the reason is on the run"
    assert stack.bodies.ran == []
    assert stack.waiting(stack.resources.dead_letter_url) == 0


def test_a_dead_letter_that_no_version_of_detent_wrote_ends_in_the_log(
    stack: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    stack.send("poison", url=stack.resources.dead_letter_url)
    assert stack.poll(dead_letters.handler, url=stack.resources.dead_letter_url) == {"batchItemFailures": []}
    assert "not JSON" in caplog.text
    assert stack.waiting(stack.resources.dead_letter_url) == 0


# ---- tick -------------------------------------------------------------------------------------------------------


def test_a_tick_sends_what_drives_a_run_that_lost_its_message(stack: Deployed) -> None:
    here = runtime()
    an_hour_ago = replace(here.backend, clock=lambda: (int(time.time()) - 3600) * 1000)
    run_id = here.run(Lifecycle(an_hour_ago).start(GREETING, NewRun('"you"')))
    stack.sqs.purge_queue(QueueUrl=stack.resources.queue_url)
    assert tick.handler({"source": "aws.events"}, Context("Tick")) == {
        "timers": 0,
        "looked": 1,
        "stalled": 1,
        "sent": 1,
    }
    # The reaper's message only walks: what it finds unclaimed it sends on, after the time an owner would need.
    stack.poll()
    assert stack.waiting() == 1
    assert stack.status(run_id) == "RUNNING"


def test_a_tick_after_a_deploy_makes_the_workflows_known_by_name(stack: Deployed) -> None:
    tick.handler({}, Context("Tick"))
    here = runtime()
    assert here.run(here.definitions.names()) == ["greeting", "keeping", "meeting", "refused/always"]


def test_a_later_tick_of_the_same_process_writes_nothing(stack: Deployed) -> None:
    tick.handler({}, Context("Tick"))
    with recorded_calls() as calls:
        tick.handler({}, Context("Tick"))
    # It reads how far timers were sent, and where the reaper goes on, and looks for live runs.
    assert {call.operation for call in calls} == {"GetItem", "Query"}
    assert [call.operation for call in calls].count("GetItem") == 2


# ---- the API ----------------------------------------------------------------------------------------------------


def test_the_run_is_shown_without_its_input_and_without_a_trace(stack: Deployed) -> None:
    run_id = stack.start("refused%2Falways", {"card": "4111"})
    stack.poll()
    status, run = stack.http("GET", f"/runs/{run_id}")
    assert status == 200
    assert (run["run_id"], run["workflow"], run["status"]) == (run_id, "refused/always", "FAILED")
    assert run["error"] == {"type": "CardRefused", "message": "no"}
    assert "4111" not in json.dumps(run)


def test_a_result_is_202_while_the_run_is_live_and_409_when_it_failed(stack: Deployed) -> None:
    run_id = stack.start("refused%2Falways")
    assert stack.http("GET", f"/runs/{run_id}/result")[0] == 202
    stack.poll()
    status, problem = stack.http("GET", f"/runs/{run_id}/result")
    assert (status, problem["error"]) == (409, "RunFailed")


def test_a_cancelled_run_stays_cancelled_and_an_ended_one_cannot_be_cancelled(stack: Deployed) -> None:
    run_id = stack.start()
    for _ in range(2):
        status, run = stack.http("POST", f"/runs/{run_id}/cancel")
        assert (status, run["status"]) == (200, "CANCELLED")
    stack.poll()
    ended = stack.start()
    stack.poll()
    status, problem = stack.http("POST", f"/runs/{ended}/cancel")
    assert (status, problem["error"]) == (409, "WrongState")


def test_one_key_is_one_run_and_refuses_another_input(stack: Deployed) -> None:
    def start_with(input: str) -> tuple[int, dict[str, object]]:
        body = {"input": input, "key": "A-17", "metadata": {"tenant": "t1"}}
        return stack.http("POST", "/workflows/greeting/runs", body)

    first, again = start_with("you"), start_with("you")
    assert first[0] == 202
    assert first == again
    status, problem = start_with("me")
    assert (status, problem["error"]) == (409, "KeyConflict")
    run = stack.http("GET", f"/runs/{first[1]['run_id']}")[1]
    assert (run["key"], run["metadata"]) == ("A-17", {"tenant": "t1"})


def test_a_run_over_http_is_what_json_shows_of_it_everywhere(stack: Deployed) -> None:
    run_id = stack.start()
    assert stack.poll(worker.handler) == {"batchItemFailures": []}
    here = runtime()
    record = here.run(Lifecycle(here.backend).get(run_id))
    run = stack.http("GET", f"/runs/{run_id}")[1]
    assert run == {**run_json(record), "retry_of": None, "failed_step": None, "error": None}
    assert datetime.fromisoformat(str(run["created"])) <= datetime.fromisoformat(str(run["ended"])) <= datetime.now(UTC)


def test_a_body_may_come_in_base64(stack: Deployed) -> None:
    body = base64.b64encode(b'{"input": "you"}').decode()
    assert stack.http("POST", "/workflows/greeting/runs", body, isBase64Encoded=True)[0] == 202
    assert stack.http("POST", "/workflows/greeting/runs", "%%%", isBase64Encoded=True)[0] == 400


REFUSED_REQUESTS: tuple[tuple[int, str, str, object], ...] = (
    (404, "POST", "/workflows/unknown/runs", {}),
    (404, "GET", "/runs/unknown", None),
    (404, "GET", "/runs/unknown/result", None),
    (404, "POST", "/runs/unknown/cancel", None),
    (404, "GET", "/", None),
    (404, "GET", "/runs", None),
    (405, "DELETE", "/runs/unknown", None),
    (405, "GET", "/workflows/greeting/runs", None),
    (400, "POST", "/workflows/greeting/runs", "{not json"),
    (400, "POST", "/workflows/greeting/runs", "[]"),
    (400, "POST", "/workflows/greeting/runs", {"inputs": 1}),
    (400, "POST", "/workflows/greeting/runs", {"metadata": {"a": 1}}),
    (400, "POST", "/workflows/greeting/runs", {"key": ""}),
    (400, "POST", "/workflows/greeting/runs", '{"input": NaN}'),
    (400, "POST", "/workflows/greeting/runs", "[" * 100_000),
    (400, "POST", "/workflows/greeting/runs", {"metadata": {"a": "x" * 5_000}}),
    (413, "POST", "/workflows/greeting/runs", {"input": "x" * (1024 * 1024)}),
)


def test_a_request_that_does_not_fit_is_a_problem_and_starts_nothing(stack: Deployed) -> None:
    for status, method, path, body in REFUSED_REQUESTS:
        got, problem = stack.http(method, path, body)
        assert got == status == problem["status"], (method, path, str(body)[:40])
        assert problem["detail"]
    assert stack.waiting() == 0


def test_a_fault_inside_is_a_problem_that_tells_nothing_of_it(stack: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    cool()
    monkeypatch.setenv("DETENT_TABLE", "a-table-that-is-gone")
    status, problem = stack.http("GET", "/runs/unknown")
    assert (status, problem["error"]) == (500, "InternalError")
    assert "gone" not in json.dumps(problem)


def test_a_backend_that_does_not_answer_is_503_and_says_when_to_try_again(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.start()
    cool()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    event = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/runs/any"}
    reply = cast("Any", start.handler(event, Context("Start")))
    assert (reply["statusCode"], reply["headers"]["retry-after"]) == (503, "1")


# ---- direct invocation --------------------------------------------------------------------------------------------


def test_a_direct_invocation_starts_a_run_once_however_often_lambda_delivers_it(stack: Deployed) -> None:
    event = {"workflow": "greeting", "input": "you"}
    first, again = (start.handler(event, Context("Start", request_id="r-7")) for _ in range(2))
    other = start.handler(event, Context("Start", request_id="r-8"))
    assert first == again
    assert first != other


def test_a_direct_invocation_at_fault_returns_a_problem(stack: Deployed) -> None:
    events: tuple[tuple[object, int], ...] = (({}, 400), ([], 400), ({"workflow": ""}, 400), ({"workflow": "no"}, 404))
    for event, status in events:
        found = cast("dict[str, object]", start.handler(event, Context("Start")))
        assert found["status"] == status, event


def test_a_direct_invocation_fails_when_detent_is_at_fault_so_that_it_is_retried(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    cool()
    monkeypatch.setenv("DETENT_TABLE", "a-table-that-is-gone")
    with pytest.raises(start.StartFailed) as caught:
        start.handler({"workflow": "greeting"}, Context("Start"))
    assert "gone" not in str(caught.value)
    assert caught.value.__suppress_context__, "Lambda would print the cause to the caller"


# ---- what the functions are made of ---------------------------------------------------------------------------------


def test_the_worker_imports_nothing_it_does_not_use() -> None:
    listed = "import sys, detent_functions.worker; print('\\n'.join(sys.modules))"
    imported = set(
        subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout.split()
    )
    unused = {"typer", "rich", "moto", "sqlite3", "pydantic_settings", "yaml", "detent", "detent_infra.sqlite"}
    unused |= {"detent_infra.memory", "detent_infra.runs.lifecycle", "detent_infra.runs.reaper", "detent_infra.worker"}
    unused |= {"detent_infra.aws.live_tail", "detent_infra.aws.log_search", "detent_infra.aws.source"}
    unused |= {"aws_lambda_powertools.event_handler", "aws_lambda_powertools.utilities.data_classes"}
    unused |= {"aws_lambda_powertools.utilities.parser", "aws_lambda_powertools.utilities.batch"}
    assert "boto3" in imported
    assert imported & unused == set()


def test_settings_name_everything_that_is_missing() -> None:
    with pytest.raises(ConfigurationError, match=r"DETENT_APP, DETENT_QUEUE_URL, .*AWS_REGION") as caught:
        from_environment({"DETENT_TABLE": "t"})
    assert "DETENT_TABLE" not in str(caught.value)


def test_a_log_level_that_does_not_exist_is_refused() -> None:
    names = ("APP", "TABLE", "QUEUE_URL", "DEAD_LETTER_QUEUE_URL", "BUCKET", "LOG_GROUP", "STACK", "LOG_LEVEL")
    with pytest.raises(ConfigurationError, match="LOUD"):
        from_environment({**{f"DETENT_{name}": "loud" for name in names}, "AWS_REGION": "eu-west-1"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("app", "is not a module and attribute"),
        ("a:b:c", "is not a module and attribute"),
        ("nowhere.at_all:app", "no module 'nowhere'"),
        ("json:app", "has no 'app'"),
        ("json:dumps", "is a function, not an App"),
        ("this:is", "failed while it was imported"),
    ],
)
def test_an_application_that_cannot_be_loaded_says_why(name: str, said: str, tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "this.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("this", None)
    with pytest.raises(ConfigurationError, match=said):
        load_application(name, f"App {name!r}", own=[tmp_path], advice=ADVICE)


@pytest.mark.parametrize("beside", ["billing", "detent_infra"])
def test_an_import_that_fails_is_told_with_the_author_s_line_not_with_that_of_a_library_beside_it(
    beside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda unpacks detent and all dependencies into the folder that has the author's code."""
    (tmp_path / "billing-1.0.dist-info").mkdir()
    code = f'compile("raise ValueError", {str(tmp_path / beside / "code.py")!r}, "exec")'
    (tmp_path / "failing.py").write_text(f"# fails\nexec({code})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    with pytest.raises(ConfigurationError, match=r"\(failing\.py, line 2\): ValueError"):
        load_application("failing:app", "App", own=[tmp_path], advice=ADVICE)


def _of(calls: list[Call], operation: str) -> list[Call]:
    return [call for call in calls if call.operation == operation]
