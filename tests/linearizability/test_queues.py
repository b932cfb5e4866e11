"""No queue loses a message, gives it to two at once, or brings it back: checked on what its clients recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from detent_infra.memory import memory_backend

from tests.linearizability.clients import Client, ServicePlace, SqlitePlace, in_processes, in_threads
from tests.linearizability.deliveries import Receiver, Sender, broken_promises, fates
from tests.support.aws_stack import moto_backend
from tests.support.server import Server
from tests.support.service_stack import service_stack

MESSAGES = 200
CLIENTS: list[Client] = [Sender("s0", MESSAGES), Receiver("r1"), Receiver("r2"), Receiver("r3")]
KILL = {"r1": 8, "r2": 8}


def assert_kept(lines: list[str]) -> None:
    found = fates(lines)
    assert broken_promises(found) == []
    assert sum(fate.sent for fate in found.values()) == MESSAGES
    assert any(len(fate.deliveries) > 1 for fate in found.values()), "nothing came twice, so nothing was shown"
    assert any(fate.returned for fate in found.values())


def test_memory_under_threads() -> None:
    assert_kept(in_threads(memory_backend(), CLIENTS))


def test_moto_behind_its_lock_under_threads() -> None:
    with moto_backend() as backend:
        assert_kept(in_threads(backend, CLIENTS))


def test_sqlite_under_processes_that_are_killed(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path / "detent.db")
    lines = in_processes(place, CLIENTS, tmp_path, kill=KILL)
    assert_kept([*lines, *given_back_by_deaths(tmp_path)])


def given_back_by_deaths(folder: Path) -> list[str]:
    """SQLite delivers again at once what a process that is known to be dead had received: not before its last line."""
    lines: list[str] = []
    for name in KILL:
        whole = [line for line in (folder / f"{name}.record").read_text().splitlines(keepends=True) if line[-1] == "\n"]
        events = [line.split() for line in whole]
        died = max(int(event[2] if event[0] == "received" else event[1]) for event in events)
        deleted = {event[2] for event in events if event[0] == "deleted"}
        held = {event[3] for event in events if event[0] == "received"} - deleted
        lines += [f"returning {died} {body}\n" for body in sorted(held)]
    return lines


@pytest.mark.service
def test_a_server_over_the_wire_under_processes_that_are_killed(service: Server, tmp_path: Path) -> None:
    with service_stack(service) as resources:
        place = ServicePlace(resources, service.endpoint)
        assert_kept(in_processes(place, CLIENTS, tmp_path, kill=KILL))


# ---- what is found out --------------------------------------------------------------------------------------------

SECOND = 1_000_000_000


def history(*events: str) -> list[str]:
    """Events of a message `m`, with times in seconds."""
    lines: list[str] = []
    for event in events:
        verb, *times = event.split()
        match verb:
            case "received":
                asked, came, count = times
                lines.append(f"received {ns(asked)} {ns(came)} m {count} receipt{count}\n")
            case "deleted":
                at, count = times
                lines.append(f"deleted {ns(at)} m receipt{count}\n")
            case _:
                lines.append(f"{verb} {ns(times[0])} m\n")
    return lines


def ns(seconds: str) -> int:
    return int(float(seconds) * SECOND)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (["sent 1"], "never delivered"),
        (["sent 1", "received 1 1 1", "received 1.5 1.5 2", "deleted 1.6 2"], "delivered again 0.500 s"),
        (["sent 1", "received 1 1 1", "deleted 1.2 1", "received 9 9 2"], "came back after its deletion"),
        (["sent 1", "received 1 1 2", "received 3 3 1", "deleted 3.1 1"], "counts its delivery 1 after 2"),
        (["sent 1", "received 1 1 1", "received 3 3 1", "deleted 3.1 1"], "one receipt for two"),
        (["sent 1", "received 1 1 1"], "nobody deleted it"),
    ],
)
def test_a_queue_that_breaks_a_promise_is_found_out(events: list[str], said: str) -> None:
    assert any(said in each for each in broken_promises(fates(history(*events))))


@pytest.mark.parametrize(
    "events",
    [
        ["sent 1", "received 1 1 1", "deleted 1.2 1"],
        ["sending 1", "received 1 1 1", "deleted 1.2 1"],
        ["sending 1"],
        ["sent 1", "received 1 1 1", "returning 1.1", "received 1.2 1.2 2", "deleted 1.3 2"],
        ["sent 1", "received 1 1 1", "received 2 2 2", "deleted 2.5 1", "received 3 3 3", "deleted 3.1 3"],
    ],
)
def test_a_queue_that_keeps_its_promises_is_not(events: list[str]) -> None:
    assert broken_promises(fates(history(*events))) == []
