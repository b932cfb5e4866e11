"""Following a log group in AWS: Live Tail over a real connection, what it misses found by searching, and falling back.

The server speaks AWS's protocols on loopback: JSON for FilterLogEvents and DescribeLogGroups, and for StartLiveTail
messages of `application/vnd.amazon.eventstream`, as bytes. Everything else is the adapter with the real boto3.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import boto3
import pytest
from detent_infra.aws import Resources, aws_backend, live_tail
from detent_infra.aws.log_search import LATE, MAX_SEEN, LogEvent
from detent_infra.clock import wall_clock
from detent_infra.ids import new_id
from detent_infra.logs import reader
from detent_infra.logs.lines import to_json
from detent_infra.logs.reader import LogReader
from detent_infra.memory import memory_backend
from detent_infra.ports import Backend, LogLine, LogPage, LogQuery
from detent_infra.runs.lifecycle import Lifecycle
from detent_state_machine import run_transitions
from detent_state_machine.filter_pattern import parse
from detent_state_machine.keys import run_key
from detent_state_machine.records import Payload, RunRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.turn import Moment
from detent_state_machine.writes import PutItem, Write

GROUP = "/detent/shop"
ARN = f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}:*"
PATIENCE = 20.0

Stored: TypeAlias = dict[str, Any]


def message(headers: dict[str, str], payload: object) -> bytes:
    """One event-stream message: prelude, its checksum, headers (of type string), payload, checksum of all."""
    packed = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(packed) + len(body), len(packed))
    whole = prelude + struct.pack("!I", zlib.crc32(prelude)) + packed + body
    return whole + struct.pack("!I", zlib.crc32(whole))


def event(kind: str, payload: object) -> bytes:
    return message({":message-type": "event", ":event-type": kind, ":content-type": "application/json"}, payload)


def exception(kind: str) -> bytes:
    headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    return message(headers, {"message": "so it is"})


STARTED = event("initial-response", {}) + event("sessionStart", {"sessionId": "s"})


def update(*events: Stored, sampled: bool = False) -> bytes:
    shown = [{name: value for name, value in each.items() if name != "eventId"} for each in events]
    return event("sessionUpdate", {"sessionMetadata": {"sampled": sampled}, "sessionResults": shown})


Script: TypeAlias = Callable[["Group", Callable[[bytes], None]], None]
"""What a session sends. It ends when this returns; the connection is cut if it raises `ConnectionError`."""


@dataclass
class Group:
    """The log group, and what its Live Tail sessions do, one script each. With none left a session is refused."""

    stored: list[Stored] = field(default_factory=list[Stored])
    scripts: deque[Script] = field(default_factory=deque[Script])
    refusal: str = "LimitExceededException"
    asked: Counter[str] = field(default_factory=Counter[str])
    patterns: list[str] = field(default_factory=list[str])
    after_search: deque[Callable[[], object]] = field(default_factory=deque[Callable[[], object]])
    """What happens when a search has been answered, one thing after each."""
    over: threading.Event = field(default_factory=threading.Event)

    def write(self, text: str, run_id: str = "r1", *, ago: int = 0, level: str = "INFO", **more: Any) -> Stored:
        """A line of the run, as the group stores it, dated `ago` milliseconds back."""
        now = wall_clock() - ago
        line = to_json(LogLine(now, level, text, run_id, **more))
        stored = {"logStreamName": "s", "timestamp": now, "ingestionTime": now, "message": line + "\n"}
        self.stored.append({**stored, "eventId": str(len(self.stored))})
        return stored

    def answer(self, operation: str, request: dict[str, Any]) -> tuple[int, object]:
        match operation:
            case "DescribeLogGroups":
                others = [{"logGroupName": GROUP + "-other", "arn": ARN + "-other"}]
                return 200, {"logGroups": [*others, {"logGroupName": GROUP, "arn": ARN}]}
            case "FilterLogEvents":
                since, fits = request.get("startTime", 0), parse(request["filterPattern"])
                return 200, {"events": [e for e in self.stored if e["timestamp"] >= since and fits(e["message"])]}
            case _:
                return 400, {"__type": self.refusal, "message": "no more sessions"}


@dataclass
class Served:
    group: Group
    backend: Backend

    def follow(self, until: Callable[[list[str], list[str]], bool], query: LogQuery | None = None) -> list[str]:
        """The messages of the lines that come until it is so; notes are handed to the test too."""

        async def work() -> list[str]:
            shown: list[str] = []
            notes: list[str] = []
            async with asyncio.timeout(PATIENCE), aclosing(self.pages(query)) as pages:
                async for page in pages:
                    shown += [line.message for line in page.lines]
                    notes += [page.note] if page.note else []
                    if until(shown, notes):
                        return shown
            raise AssertionError("following ended by itself")

        return asyncio.run(work())

    def pages(self, query: LogQuery | None = None) -> Any:
        return self.backend.logs.follow(query or LogQuery(runs=("r1",)), asyncio.Event())


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    group = Group()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            group.asked[operation] += 1
            if operation == "StartLiveTail":
                assert request["logGroupIdentifiers"] == [ARN.removesuffix(":*")]
                group.patterns.append(request["logEventFilterPattern"])
                if group.scripts:
                    self.stream(group.scripts.popleft())
                    return
            status, answer = group.answer(operation, request)
            if operation == "FilterLogEvents" and group.after_search:
                group.after_search.popleft()()
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def stream(self, script: Script) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.amazon.eventstream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True

            def send(data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            try:
                send(STARTED)
                script(group, send)
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    for name in ("POLL_EVERY", "TICK", "SETTLES"):
        monkeypatch.setattr(live_tail, name, 0.1)
    backend = aws_backend(
        Resources("t", "http://q", "http://d", "b", GROUP),
        url="aws://shop",
        region="us-east-1",
        endpoint=f"http://127.0.0.1:{server.server_port}",
        clock=wall_clock,
        ids=new_id,
        session=boto3.Session("test", "test", region_name="us-east-1"),
    )
    with closing(backend):
        yield Served(group, backend)
    group.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def silent(group: Group, send: Callable[[bytes], None]) -> None:
    """A session in which nothing happens, until the test is over."""
    while not group.over.wait(0.05):
        send(update())


class Followed:
    """A run that `LogReader` follows on the served log group; its record is in memory."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader, "LOOK_EVERY", 0.1)
        monkeypatch.setattr(type(served.backend.logs), "settles", 0.2)
        self.backend = replace(memory_backend(), logs=served.backend.logs)
        self.run = RunRecord("r1", "orders", "v", RunStatus.RUNNING, wall_clock(), Payload("1"))
        self._write(PutItem(run_key("r1"), self.run.to_item()))

    def end(self) -> None:
        self._write(run_transitions.finish(self.run, Moment(wall_clock(), wall_clock())))

    def _write(self, write: Write) -> None:
        asyncio.run(self.backend.table.write(write))

    def lines(self) -> list[str]:
        """The messages of all lines until following ends."""

        async def work() -> list[str]:
            pages = LogReader(Lifecycle(self.backend)).pages(LogQuery(), [self.run], follow=True)
            async with asyncio.timeout(PATIENCE), aclosing(pages):
                return [line.message async for page in pages for line in page.lines]

        return asyncio.run(work())


def all_of(*wanted: str) -> Callable[[list[str], list[str]], bool]:
    return lambda shown, _: set(wanted) <= set(shown)


def test_what_was_written_before_comes_first_and_what_is_written_then_comes_live(served: Served) -> None:
    def script(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(group.write("live 1"), group.write("live 2")))
        send(update(group.write("other", "r2")))
        send(update(group.write("live 3")))
        silent(group, send)

    served.group.write("before")
    served.group.scripts.append(script)
    assert sorted(served.follow(all_of("before", "live 3"))) == ["before", "live 1", "live 2", "live 3"]
    assert served.group.patterns == ["r1"]
    assert served.group.asked["FilterLogEvents"] <= 2, "once the session has started it takes the place of searching"


def test_a_line_that_comes_by_search_and_live_is_shown_once_and_one_written_twice_twice(served: Served) -> None:
    twice = served.group.write("twice")
    served.group.stored.append({**twice, "eventId": "again"})

    def script(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(twice, twice))
        send(update(group.write("end")))
        silent(group, send)

    served.group.scripts.append(script)
    assert sorted(served.follow(all_of("end"))) == ["end", "twice", "twice"]


def test_live_tail_is_asked_for_the_level_and_the_users_pattern_is_applied_here(served: Served) -> None:
    def script(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(*(group.write(text, level="WARN", attempt=n) for n, text in enumerate(["no", "no", "yes"]))))
        silent(group, send)

    served.group.scripts.append(script)
    query = LogQuery(runs=("r1",), level="DEBUG", pattern="{ $.attempt > 1 }")
    assert served.follow(all_of("yes"), query) == ["yes"]
    assert served.group.patterns == ['{ $.run_id = "r1" && $.level != "TRACE" }']


def test_what_a_sampled_update_left_out_is_searched_for(served: Served) -> None:
    def script(group: Group, send: Callable[[bytes], None]) -> None:
        kept = group.write("kept")
        group.write("left out")
        send(update(kept, sampled=True))
        silent(group, send)

    served.group.scripts.append(script)
    assert sorted(served.follow(all_of("left out"))) == ["kept", "left out"]


def test_a_session_that_reached_its_three_hours_is_followed_by_another_without_a_word(served: Served) -> None:
    def ends(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(group.write("a")))
        send(exception("SessionTimeoutException"))

    def goes_on(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(group.write("b")))
        silent(group, send)

    served.group.scripts.extend([*[ends] * 4, goes_on])
    notes: list[str] = []

    def until(shown: list[str], said: list[str]) -> bool:
        notes.extend(said)
        return "b" in shown

    assert served.follow(until) == ["a", "a", "a", "a", "b"]
    assert notes == []


@pytest.mark.parametrize("how", ["cut", "streaming error", "closed"])
def test_a_session_that_breaks_off_is_begun_again_and_what_came_meanwhile_is_found(served: Served, how: str) -> None:
    def breaks(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(group.write("a")))
        group.write("missed")
        if how == "cut":
            raise ConnectionResetError
        if how == "streaming error":
            send(exception("SessionStreamingException"))

    def goes_on(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(group.write("b")))
        silent(group, send)

    served.group.scripts.extend([breaks, goes_on])
    assert sorted(served.follow(all_of("b", "missed"))) == ["a", "b", "missed"]
    assert served.group.asked["StartLiveTail"] == 2


def test_when_sessions_keep_breaking_off_it_says_so_once_and_goes_on_by_searching(served: Served) -> None:
    def breaks(group: Group, send: Callable[[bytes], None]) -> None:
        raise ConnectionResetError

    served.group.scripts.extend([breaks] * 10)
    said: list[str] = []

    def until(shown: list[str], notes: list[str]) -> bool:
        if notes and not said:
            said.extend(notes)
            served.group.write("later")
        return "later" in shown and len(notes) == 1

    assert served.follow(until) == ["later"]
    assert said == ["Live Tail broke off 3 times. Looking every 0.1 s instead."]
    assert served.group.asked["StartLiveTail"] == 3


@pytest.mark.parametrize(
    "refusal",
    [
        "LimitExceededException",
        "AccessDeniedException",
        "InvalidOperationException",
        "ThrottlingException",
        "UnknownOperationException",
    ],
)
def test_without_live_tail_it_says_why_once_and_follows_by_searching(served: Served, refusal: str) -> None:
    served.group.refusal = refusal
    notes: list[str] = []
    written: list[str] = []

    def until(shown: list[str], said: list[str]) -> bool:
        notes[:] = said
        if len(shown) == len(written) and len(written) < 3:
            written.append(f"line {len(written)}")
            served.group.write(written[-1])
        return len(shown) == 3 and bool(said)

    assert served.follow(until) == ["line 0", "line 1", "line 2"]
    [note] = notes
    assert note.startswith("No Live Tail: ")
    assert refusal in note or "denied" in note
    assert note.endswith("Looking every 0.1 s instead.")
    assert served.group.asked["StartLiveTail"] == 1, "a quota is not asked again and again"


def test_a_late_line_is_found_by_searching_however_many_came_before_it(served: Served) -> None:
    many = MAX_SEEN + 100
    for number in range(many):
        served.group.write(str(number))

    def until(shown: list[str], _: list[str]) -> bool:
        if len(shown) == many and len(served.group.stored) == many:
            served.group.write("late", ago=LATE // 2)
        return "late" in shown

    assert len(served.follow(until)) == many + 1


def test_a_page_comes_at_least_each_tick_though_nothing_is_written(served: Served) -> None:
    served.group.scripts.append(silent)

    async def work() -> list[LogPage]:
        found: list[LogPage] = []
        async with asyncio.timeout(PATIENCE), aclosing(served.pages()) as pages:
            async for page in pages:
                found.append(page)
                if len(found) == 5:
                    return found
        raise AssertionError

    assert [page.lines for page in asyncio.run(work())] == [()] * 5


def test_what_is_printed_before_the_session_shows_it_is_searched_for_when_it_has_started(served: Served) -> None:
    served.group.scripts.append(silent)
    served.group.after_search.append(lambda: served.group.write("between"))
    assert served.follow(all_of("between")) == ["between"]


def test_following_a_run_searches_once_more_when_its_record_says_that_it_has_ended(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = Followed(served, monkeypatch)
    served.group.scripts.append(silent)

    def goes_on_unheard() -> None:
        served.group.write("last words")
        followed.end()

    served.group.after_search.extend([lambda: None, goes_on_unheard])
    assert followed.lines() == ["last words"]


def test_following_a_run_searches_once_more_when_its_last_line_came_live(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = Followed(served, monkeypatch)
    searched = threading.Event()

    def script(group: Group, send: Callable[[bytes], None]) -> None:
        searched.wait(PATIENCE)
        send(update(group.write("run completed", engine="run_completed")))
        silent(group, send)

    def unheard() -> None:
        served.group.write("unheard")
        searched.set()

    served.group.scripts.append(script)
    served.group.after_search.extend([lambda: None, unheard])
    assert sorted(followed.lines()) == ["run completed", "unheard"]


def test_a_reader_who_is_slow_misses_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_tail, "MAX_WAITING", 3)

    def script(group: Group, send: Callable[[bytes], None]) -> None:
        for number in range(40):
            send(update(group.write(f"{number:02}")))
        silent(group, send)

    served.group.scripts.append(script)

    def until(shown: list[str], _: list[str]) -> bool:
        time.sleep(0.05)
        return len(shown) >= 40

    assert sorted(served.follow(until)) == [f"{number:02}" for number in range(40)]


def test_who_stops_following_leaves_no_thread_behind(served: Served) -> None:
    served.group.scripts.append(silent)
    served.group.write("a")
    served.follow(all_of("a"))
    until = time.monotonic() + PATIENCE
    while any(thread.name == "detent-live-tail" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_lines_of_several_runs_are_asked_for_at_once(served: Served) -> None:
    def script(group: Group, send: Callable[[bytes], None]) -> None:
        send(update(group.write("one", "r1"), group.write("two", "r2"), group.write("three", "r3")))
        silent(group, send)

    served.group.scripts.append(script)
    query = LogQuery(runs=("r1", "r2"))
    assert sorted(served.follow(all_of("one", "two"), query)) == ["one", "two"]
    assert served.group.patterns == ['{ ($.run_id = "r1" || $.run_id = "r2") }']


def test_an_event_is_new_once_whoever_gives_it_and_however_often_it_was_written() -> None:
    met = live_tail.Met()
    a, b = (LogEvent("s", 1, text) for text in "ab")
    searched, first, second = Counter[LogEvent](), Counter[LogEvent](), Counter[LogEvent]()
    assert met.new([a, a], searched) == [a, a]
    assert met.new([a, a, a, b], first) == [a, b]
    assert met.new([a, b], second) == []
    assert met.new([a, b], searched) == []
