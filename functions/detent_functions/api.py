"""The HTTP API: start a run, read it, fetch its result, cancel it.

POST /workflows/{name}/runs    {"input": …, "key": …, "metadata": {…}}    202 {"run_id": …}
GET  /runs/{id}                                                           200 the run
GET  /runs/{id}/result         200 its output; 202 while it is live; 409 if it failed or was cancelled
POST /runs/{id}/cancel                                                    200 the run
"""

from __future__ import annotations

import json
from http import HTTPStatus

from detent_infra.runs.as_json import error_json, run_json
from detent_infra.runs.lifecycle import Lifecycle
from detent_state_machine.records import RunRecord
from pydantic import JsonValue

from detent_functions.problems import RequestRefused, problem
from detent_functions.requests import MAX_REPLY, HttpRequest, Reply, read_start

RETRY_AFTER = {"retry-after": "1"}


async def answer(lifecycle: Lifecycle, request: HttpRequest) -> Reply:
    """The reply to a request. Raises `DetentError` and `RequestRefused`, which `refusal` turns into replies."""
    match request.method, request.segments:
        case "POST", ("workflows", name, "runs"):
            new = read_start(request.body)
            run_id = await lifecycle.start_by_name(name, new.input_json, key=new.key, metadata=new.metadata)
            return _json(HTTPStatus.ACCEPTED, {"run_id": run_id})
        case "GET", ("runs", run_id):
            return _json(HTTPStatus.OK, _shown(await lifecycle.get(run_id)))
        case "GET", ("runs", run_id, "result"):
            return await _result(lifecycle, run_id)
        case "POST", ("runs", run_id, "cancel"):
            return _json(HTTPStatus.OK, _shown(await lifecycle.cancel(run_id)))
        case _, ("workflows", _, "runs") | ("runs", _) | ("runs", _, "result" | "cancel"):
            raise RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, f"This path does not take {request.method}.")
        case _:
            raise RequestRefused(HTTPStatus.NOT_FOUND, "There is nothing under this path.")


def refusal(error: Exception) -> Reply:
    found = problem(error)
    unavailable = found["status"] == HTTPStatus.SERVICE_UNAVAILABLE
    return Reply(HTTPStatus(found["status"]), json.dumps(found), RETRY_AFTER if unavailable else {})


async def _result(lifecycle: Lifecycle, run_id: str) -> Reply:
    text = await lifecycle.result(run_id)
    if text is None:
        body = {"run_id": run_id, "detail": "The run is still at work."}
        return Reply(HTTPStatus.ACCEPTED, json.dumps(body), RETRY_AFTER)
    if len(text.encode()) > MAX_REPLY:
        raise RequestRefused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The result is larger than {MAX_REPLY:,} bytes. Read it with detent's Client.",
        )
    return Reply(HTTPStatus.OK, text)


def _json(status: HTTPStatus, value: JsonValue) -> Reply:
    return Reply(status, json.dumps(value, ensure_ascii=False))


def _shown(run: RunRecord) -> JsonValue:
    """The run as clients see it, without the trace of its error."""
    return {
        **run_json(run),
        "retry_of": run.retry_of,
        "failed_step": run.failed_step,
        "error": error_json(run.error, trace=False),
    }
