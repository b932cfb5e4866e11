"""A run's log in CloudWatch: nothing lost or repeated while following, whoever wrote the lines."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import boto3
import pytest
from detent_infra.aws.log_search import LATE, MAX_REQUESTS, MAX_SEEN, PRINTED, LogEvent, narrowing, to_line
from detent_infra.aws.logs import StdoutLines, batches
from detent_infra.clock import wall_clock
from detent_infra.logs.lines import LEVELS, MAX_BYTES, fit, from_json, rank, selects, to_json
from detent_infra.ports import Backend, LogLine, LogPage, LogQuery
from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import ConfigurationError, InputError, Unavailable
from detent_state_machine.filter_pattern import parse
from hypothesis import given
from hypothesis import strategies as st

from tests.support.aws_stack import REGION, Answer, answering, moto_backend, recorded_calls


class Clock:
    """Starts now, because CloudWatch refuses old events, and stands still until it is moved."""

    def __init__(self) -> None:
        self.now = wall_clock()

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(clock: Clock) -> Iterator[Backend]:
    with moto_backend(clock=clock) as backend:
        yield backend


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def line(time: int, message: str, run_id: str = "r1", **more: Any) -> LogLine:
    return LogLine(time=time, level="INFO", message=message, run_id=run_id, **more)


def messages(backend: Backend, after: str | None = None, **more: Any) -> tuple[list[str], str]:
    limit = more.pop("limit", 1000)
    page = run(backend.logs.read(LogQuery(runs=("r1",), **more), limit=limit, after=after))
    return [found.message for found in page.lines], page.next


def group_of(backend: Backend) -> str:
    return "/detent/" + backend.url.removeprefix("aws://").partition("?")[0]


def test_a_line_comes_back_as_it_was_written(backend: Backend, clock: Clock) -> None:
    written = line(clock(), "paid ä", path="charge", attempt=2, fields='{"total": 4.5}')
    run(backend.logs.append([written]))
    assert run(backend.logs.read(LogQuery(runs=("r1",)))).lines == (written,)


def test_lines_come_in_order_of_time_however_they_were_handed_over(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock() + 2, "b"), line(clock() + 1, "a")]))
    assert messages(backend)[0] == ["a", "b"]


def test_a_line_that_only_mentions_the_run_is_not_its_own(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock(), "see r1", "r2"), line(clock(), "mine", "r10"), line(clock(), "own")]))
    assert messages(backend)[0] == ["own"]


def test_the_pattern_means_what_it_means_on_every_backend(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock(), "a", attempt=1), line(clock() + 1, "b", attempt=2)]))
    assert messages(backend, pattern="{ $.attempt > 1 }")[0] == ["b"]
    with pytest.raises(InputError):
        messages(backend, pattern="{ $.attempt >")


def test_following_shows_each_line_once(backend: Backend, clock: Clock) -> None:
    after, shown = None, []
    for number in range(5):
        run(backend.logs.append([line(clock(), f"{number}a"), line(clock() + 1, f"{number}b")]))
        found, after = messages(backend, after)
        shown += found
        clock.now += 400
    assert shown == [f"{number}{letter}" for number in range(5) for letter in "ab"]


def test_following_shows_a_line_that_becomes_visible_late(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock(), "first")]))
    _, after = messages(backend)
    clock.now += LATE
    _, after = messages(backend, after)
    run(backend.logs.append([line(clock() - LATE + 1, "late")]))
    found, after = messages(backend, after)
    assert found == ["late"]
    assert messages(backend, after)[0] == []


def test_following_does_not_search_what_it_has_seen(backend: Backend, clock: Clock) -> None:
    _, after = messages(backend)
    clock.now += 3_600_000
    _, after = messages(backend, after)
    with recorded_calls() as calls:
        messages(backend, after)
    assert calls[0].params["startTime"] == clock() - LATE


def test_pages_hold_at_most_the_limit_and_lose_nothing(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock() + number, str(number)) for number in range(10)]))
    shown, after = [], None
    for _ in range(10):
        found, after = messages(backend, after, limit=3)
        assert len(found) <= 3
        shown += found
    assert shown == [str(number) for number in range(10)]


def test_the_cursor_of_a_busy_run_stays_small(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock() + number, str(number)) for number in range(2 * MAX_SEEN)]))
    found, after = messages(backend, limit=5_000)
    assert len(found) == 2 * MAX_SEEN
    assert len(json.loads(after)[3]) == MAX_SEEN
    assert messages(backend, after)[0] == []


def test_since_leaves_out_what_is_older(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock(), "old"), line(clock() + 5, "new")]))
    assert messages(backend, since=clock() + 1)[0] == ["new"]


@pytest.mark.parametrize("cursor", ["", "5", "[1]", '"x"', "[1, null, 1, 5]"])
def test_a_cursor_of_something_else_is_refused(backend: Backend, cursor: str) -> None:
    with pytest.raises(InputError, match="cursor"):
        messages(backend, cursor)


def test_a_search_that_cloudwatch_does_in_many_empty_pages_ends_and_goes_on(backend: Backend, clock: Clock) -> None:
    run(backend.logs.append([line(clock(), "found")]))
    empty = (200, {"events": [], "nextToken": "more"})
    with answering("logs.FilterLogEvents", *[empty] * 30) as left:
        found, after = messages(backend)
        assert found == []
        assert len(left) == 30 - MAX_REQUESTS
        for _ in range(2):
            _, after = messages(backend, after)
        assert run(backend.logs.read(LogQuery(runs=("r1",)), after=after)).more is False
    assert left == []


HOUR = 3_600_000
SEARCH = "logs.FilterLogEvents"
ENDS: Answer = (200, {"events": []})
GOES_ON: Answer = (200, {"events": [], "nextToken": "more"})


def test_a_search_through_days_goes_slice_by_slice_and_finds_every_line_once(backend: Backend, clock: Clock) -> None:
    since = clock() - 100 * HOUR
    times = [since + hours * HOUR + off for hours in (0, 1, 3, 7, 15, 31, 63, 99) for off in (-1, 0, 1)]
    run(backend.logs.append([line(time, str(time)) for time in times]))
    with recorded_calls() as calls:
        found, after = messages(backend, since=since)
    assert found == [str(time) for time in times[1:]]
    asked = [(call.params["startTime"], call.params.get("endTime")) for call in calls]
    assert [(end - start + 1) / HOUR for start, end in asked[:-1] if end] == [1, 2, 4, 8, 16, 32]
    assert all(start == end + 1 for (_, end), (start, _) in pairwise(asked) if end)
    assert asked[-1][1] is None
    run(backend.logs.append([line(clock() - LATE + 1, "late")]))
    assert messages(backend, after, since=since)[0] == ["late"]


def test_a_search_until_a_time_goes_no_further(backend: Backend, clock: Clock) -> None:
    since = clock() - 100 * HOUR
    with recorded_calls() as calls:
        messages(backend, since=since, until=since + HOUR)
        messages(backend, since=since, until=since + 2 * HOUR)
    assert [(call.params["endTime"] - since) // HOUR for call in calls] == [0, 1, 0, 2]


def test_a_slice_that_took_several_requests_is_followed_by_one_as_long(backend: Backend, clock: Clock) -> None:
    with answering(SEARCH, GOES_ON, ENDS, ENDS), recorded_calls() as calls:
        messages(backend, since=clock() - 5 * HOUR)
    spans = [call.params["endTime"] - call.params["startTime"] + 1 for call in calls[:-1]]
    assert spans == [HOUR, HOUR, HOUR, 2 * HOUR]


def test_a_search_that_is_not_over_says_up_to_when_it_is(backend: Backend, clock: Clock) -> None:
    since = clock() - 5 * HOUR

    def read(after: str | None = None) -> LogPage:
        page: LogPage = run(backend.logs.read(LogQuery(since=since), after=after))
        return page

    with answering(SEARCH, *[GOES_ON] * MAX_REQUESTS, ENDS, *[GOES_ON] * (MAX_REQUESTS - 1)):
        nowhere = read()
        after_one = read(nowhere.next)
    assert (nowhere.more, nowhere.reached) == (True, 0)
    assert (after_one.more, after_one.reached) == (True, since + HOUR - PRINTED)
    assert read(after_one.next).more is False


def test_one_stream_per_process_is_made_when_there_is_something_to_write(backend: Backend, clock: Clock) -> None:
    with recorded_calls() as calls:
        run(backend.logs.append([]))
        assert calls == []
        run(backend.logs.append([line(clock(), "a")]))
        run(backend.logs.append([line(clock(), "b")]))
    assert [call.operation for call in calls] == ["CreateLogStream", "PutLogEvents", "PutLogEvents"]


def test_a_missing_log_group_is_named(backend: Backend) -> None:
    boto3.client("logs", region_name=REGION).delete_log_group(logGroupName=group_of(backend))
    with pytest.raises(ConfigurationError, match="log group '/detent/"):
        messages(backend)


def test_lines_printed_by_powertools_in_lambda_are_read(backend: Backend, clock: Clock) -> None:
    printed = {
        "level": "ERROR", "location": "handler:12", "message": {"sku": "A"},
        "timestamp": "2026-11-22 15:04:05,678+0000",
        "service": "detent", "cold_start": True, "run_id": "r1", "path": "charge", "attempt": 3,
    }  # fmt: skip
    client = boto3.client("logs", region_name=REGION)
    client.create_log_stream(logGroupName=group_of(backend), logStreamName="2026/11/22/[$LATEST]abc")
    client.put_log_events(
        logGroupName=group_of(backend),
        logStreamName="2026/11/22/[$LATEST]abc",
        logEvents=[
            {"timestamp": clock(), "message": "START RequestId: r1 Version: $LATEST\n"},
            {"timestamp": clock() + 1, "message": json.dumps(printed) + "\n"},
        ],
    )
    pattern = '{ $.cold_start IS TRUE && $.level = "ERROR" }'
    (found,) = run(backend.logs.read(LogQuery(runs=("r1",), pattern=pattern))).lines
    assert found.time == clock() + 1
    assert (found.level, found.message, found.path, found.attempt) == ("ERROR", '{"sku": "A"}', "charge", 3)
    assert json.loads(found.fields) == {"location": "handler:12", "service": "detent", "cold_start": True}


METRICS = '{"_aws": {"Timestamp": 1, "CloudWatchMetrics": []}, "ColdStart": [1.0]}'


@pytest.mark.parametrize("text", ["", "not json", "[]", "null", '{"message": "no level"}', '{"run_id": 5}', METRICS])
def test_what_is_no_line_is_passed_over(text: str) -> None:
    assert to_line(LogEvent("stream", 1, text)) is None


def test_a_line_of_a_function_about_no_run_is_one_of_no_run() -> None:
    found = to_line(
        LogEvent("stream", 7, '{"level": "WARNING", "message": "3 stalled runs", "xray_trace_id": "1-a-b"}')
    )
    assert found is not None
    assert (found.time, found.run_id, found.message, found.trace_id) == (7, "", "3 stalled runs", "1-a-b")


@pytest.mark.parametrize("character", ["x", "ä", "\x00", "\U0001f600", '"'])
def test_a_line_too_long_for_cloudwatch_is_shortened_and_stays_readable(character: str) -> None:
    text = fit(line(1, character * 300_000, fields=json.dumps({"big": "y" * 300_000})))
    assert len(text.encode()) <= MAX_BYTES
    kept = from_json(text)
    assert kept is not None
    assert kept.message.startswith(character * 1_000)
    assert kept.message.endswith("…")
    assert json.loads(kept.fields) == {"fields_dropped": True}


def test_a_line_that_fits_is_left_alone() -> None:
    whole = line(1, "x" * 200_000)
    assert fit(whole) == to_json(whole)


def test_batches_keep_to_number_size_and_span() -> None:
    day = 24 * 3600 * 1000
    assert [len(batch) for batch in batches([(0, "x")] * 10_001)] == [10_000, 1]
    assert [len(batch) for batch in batches([(0, "x" * 250_000)] * 5)] == [4, 1]
    assert [len(batch) for batch in batches([(0, "x"), (day - 1, "x"), (day, "x")])] == [2, 1]
    assert list(batches([])) == []


def test_in_lambda_each_line_is_one_line_of_output(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(1, "two\nlines"), line(2, "ä", fields='{"n": 1}')]
    write = StdoutLines()
    for each in lines:
        write(each)
    printed = capsys.readouterr().out.splitlines()
    assert [from_json(text) for text in printed] == lines


def test_a_closed_output_stops_nobody() -> None:
    closed = io.StringIO()
    closed.close()
    StdoutLines(closed)(line(1, "a"))


def test_lines_from_many_threads_are_not_torn() -> None:
    stream = io.StringIO()
    write = StdoutLines(stream)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write(line(n, "x" * 2_000)), range(200)))
    found = [from_json(text) for text in stream.getvalue().splitlines()]
    assert sorted(each.time for each in found if each) == list(range(200))


# ---- what CloudWatch is asked -------------------------------------------------------------------------------------


def test_a_throttled_search_is_tried_again_until_it_is_answered(
    backend: Backend, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detent_infra.aws.log_search.PAUSES", Backoff(0.01, 0.01))
    run(backend.logs.append([line(clock(), "found")]))
    throttled = (400, {"__type": "ThrottlingException", "message": "Rate exceeded"})
    with answering("logs.FilterLogEvents", *[throttled] * 5) as left:
        assert messages(backend)[0] == ["found"]
    assert left == []
    with answering("logs.FilterLogEvents", *[throttled] * 6), pytest.raises(Unavailable, match="ThrottlingException"):
        messages(backend)


def test_a_search_is_bounded_in_time_on_both_sides(backend: Backend, clock: Clock) -> None:
    now = clock()
    run(backend.logs.append([line(now - 5_000, "before"), line(now, "in"), line(now + 5_000, "after")]))
    with recorded_calls() as calls:
        assert messages(backend, since=now - 1, until=now + 1)[0] == ["in"]
    assert calls[0].params["startTime"] == now - 1
    assert now + 1 < calls[0].params["endTime"] <= now + 120_000


def test_many_searches_are_spread_over_time(backend: Backend) -> None:
    """An account has 25 a second in us-east-1 and 10 or 5 elsewhere, for everybody in it."""
    empty = (200, {"events": [], "nextToken": "more"})
    with answering("logs.FilterLogEvents", *[empty] * 16):
        began = time.monotonic()
        messages(backend, messages(backend)[1])
    assert time.monotonic() - began >= (16 - 10) / 4


BELOW_WARN = '$.level != "TRACE" && $.level != "DEBUG" && $.level != "INFO"'


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        (LogQuery(), "level"),
        (LogQuery(workflow="orders", path="charge"), "level charge orders"),
        (LogQuery(runs=("r1",)), "r1"),
        (LogQuery(runs=("r1",), path="charge"), "r1 charge"),
        (LogQuery(runs=("r1",), path="load[3]", pattern="{ $.x = 1 }"), "r1"),
        (LogQuery(runs=("r-1",), path="charge"), '"r-1"'),
        (LogQuery(runs=('r"\\',)), "run_id"),
        (LogQuery(runs=("r1", "r2")), '{ ($.run_id = "r1" || $.run_id = "r2") }'),
        (LogQuery(runs=("r1", "r2"), path="charge"), '{ ($.run_id = "r1" || $.run_id = "r2") && $.path = "charge" }'),
        (LogQuery(runs=("r1", 'r"2')), "run_id"),
        (LogQuery(runs=tuple(f"run{n:023}" for n in range(100))), "run_id"),
        (LogQuery(level="WARN"), f"{{ {BELOW_WARN} }}"),
        (LogQuery(level="warning", pattern="refused"), f"{{ {BELOW_WARN} }}"),
        (LogQuery(runs=("r1",), level="WARN"), f'{{ $.run_id = "r1" && {BELOW_WARN} }}'),
        (LogQuery(runs=("r1",), path="load[3]", level="DEBUG"), '{ $.run_id = "r1" && $.level != "TRACE" }'),
        (LogQuery(runs=tuple(f"run{n:023}" for n in range(100)), level="WARN"), f"{{ {BELOW_WARN} }}"),
        (LogQuery(path="x" * 2_000, level="WARN"), f"{{ {BELOW_WARN} }}"),
        (LogQuery(level="TRACE"), "level"),
    ],
)
def test_cloudwatch_is_asked_for_what_the_query_wants(query: LogQuery, pattern: str) -> None:
    assert narrowing(query) == pattern


IDS = st.sampled_from(["r1", "r-2", "R_3.x", 'r"4', "run 5", "17", *(f"run{n:023}" for n in range(40))])
NAMES = st.sampled_from(["", "charge", "load[3]", "think#4", "a.b", "naïve"])
SPELLED = st.sampled_from([*LEVELS, "WARNING", "FATAL", "warn", "Error", "NOTICE", ""])
QUERIES = st.builds(
    LogQuery,
    runs=st.lists(IDS, max_size=45).map(tuple),
    workflow=NAMES,
    path=NAMES,
    level=st.sampled_from(["", *LEVELS, "warning", "fatal"]),
    pattern=st.sampled_from(["", "refused", "-refused", "{ $.attempt > 1 }"]),
)


@st.composite
def printed(draw: st.DrawFn, query: LogQuery) -> str:
    """A line as detent, Powertools or another logger prints it; mostly one that the query may want."""
    run_id = draw(IDS if not query.runs else st.sampled_from(query.runs) | IDS)
    path, workflow = draw(st.just(query.path) | NAMES), draw(st.just(query.workflow) | NAMES)
    level, message = draw(SPELLED), draw(st.sampled_from(["card refused", "level r1"]))
    if draw(st.booleans()):
        return to_json(LogLine(5, level, message, run_id, path, draw(st.integers(0, 3)), workflow=workflow))
    names = {"level": level, "message": message, "run_id": run_id, "path": path, "workflow": workflow, "attempt": 2}
    return json.dumps(names, separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))


@given(QUERIES.flatmap(lambda query: st.tuples(st.just(query), printed(query))))
def test_every_line_that_the_query_wants_fits_what_cloudwatch_is_asked(drawn: tuple[LogQuery, str]) -> None:
    """By the documented grammar. So what is chosen here is what is chosen on a backend that is read whole."""
    query, text = drawn
    assert len(narrowing(query)) <= 1024
    found = to_line(LogEvent("stream", 5, text))
    if found is not None and selects(query)(found, text):
        assert parse(narrowing(query))(text)


@pytest.mark.parametrize("least", LEVELS)
def test_lines_below_the_level_do_not_travel(least: str) -> None:
    asked = parse(narrowing(LogQuery(runs=("r1",), level=least)))
    names = [*LEVELS, "WARNING", "FATAL"]
    assert [name for name in names if asked(to_json(replace(line(1, "m"), level=name)))] == [
        name for name in names if rank(name) >= rank(least)
    ]
