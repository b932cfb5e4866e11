"""Runs that an earlier version of detent left behind, put into a backend of today: each goes on and ends rightly."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from detent import KeyConflict, RunCancelled, RunFailed
from detent.testing import Harness
from detent_infra.ops.stranding import Outlook, outlook
from detent_infra.ports import Timing
from detent_infra.runs.reaper import reap
from detent_infra.runs.start import NewRun
from detent_infra.sqlite import sqlite_backend
from detent_state_machine.definition import Definition
from detent_state_machine.graph import graph_of
from detent_state_machine.keys import workflow_key
from detent_state_machine.messages import Drive, Start, decode
from detent_state_machine.writes import PutItem

from tests.compatibility.record import DATABASE, SITUATIONS, newest, record
from tests.compatibility.workflows import Kept, open_app
from tests.support.snapshot import FORMATS, RECORDS, Expected, Snapshot, from_text, put_back

FAST = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=1.5, visibility=2.0)
FILES = {f"{path.parent.name}/{path.stem}": path for path in sorted(RECORDS.glob("v*/*.json"))}
KEPT = {
    name: from_text(path.read_text(encoding="utf-8")) for name, path in FILES.items() if path.name != "formats.json"
}
LATER = 3_600.0
"""In seconds: the virtual clock of memory starts when the runs were recorded, and they are put back later."""
FOLDERS = sorted({name.partition("/")[0] for name in KEPT})
every_kept_run = pytest.mark.parametrize("name", KEPT)


def lay_down(h: Harness, *snapshots: Snapshot) -> None:
    """Puts them back, and no worker looks: it would take messages that have not been given their count yet."""
    h.stop_worker()
    h.wait_for(put_back(h.backend, snapshots))


def restore(h: Harness, snapshot: Snapshot) -> None:
    """Puts it back, for a worker to go on with."""
    lay_down(h, snapshot)
    h.start_worker()


def ends_as_expected(h: Harness, kept: Kept, expected: Expected) -> None:
    handle = h.client.handle(expected.run)
    assert h.settle(handle, within=4_000) == expected.status
    if expected.status == "COMPLETED":
        assert h.result(handle) == expected.output
    else:
        with pytest.raises((RunFailed, RunCancelled)) as error:
            h.result(handle)
        assert getattr(error.value, "step", None) == expected.failed_step
    assert kept.bodies.get(expected.run, Counter()) == Counter(expected.bodies)


# ---- they go on ---------------------------------------------------------------------------------------------------


@every_kept_run
def test_a_kept_run_goes_on_where_it_was_and_ends_as_it_should(name: str) -> None:
    kept = open_app()
    with Harness(kept.app) as h:
        h.advance(LATER)
        restore(h, KEPT[name])
        ends_as_expected(h, kept, KEPT[name].expected)


@pytest.fixture(params=[*(("sqlite", folder) for folder in FOLDERS), ("aws", FOLDERS[-1])], ids="-".join)
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Harness, Kept, list[Snapshot]]]:
    """A real backend with the kept runs of one folder, which has the ids that the others have: all of them on sqlite;
    on aws the newest of the shapes that matter, for the time they take.
    """
    backend_name, folder = request.param
    kept, names = open_app(), [name for name in KEPT if name.startswith(f"{folder}/")]
    with ExitStack() as stack:
        if backend_name == "sqlite":
            backend = sqlite_backend(tmp_path / "detent.db", timing=FAST)
        else:
            from tests.support.aws_stack import moto_backend

            backend = stack.enter_context(moto_backend(timing=FAST))
            some = ("retrying", "join_half_arrived", "large_payloads", "died_in_an_inline_step_it_had_claimed")
            names = [name for name in names if name.partition("/")[2] in some]
        snapshots = [KEPT[name] for name in names]
        asyncio.run(put_back(backend, snapshots))  # before there is a worker
        yield stack.enter_context(Harness(kept.app, backend=backend)), kept, snapshots


def test_kept_runs_go_on_side_by_side_in_a_real_store(live: tuple[Harness, Kept, list[Snapshot]]) -> None:
    h, kept, snapshots = live
    lost = [each for each in snapshots if each.situation == "lost its message"]
    for snapshot in snapshots:
        if snapshot not in lost:
            ends_as_expected(h, kept, snapshot.expected)
    if lost:
        h.wait_for(reap(h.backend))
    for snapshot in lost:
        ends_as_expected(h, kept, snapshot.expected)


@pytest.mark.parametrize("path", sorted(RECORDS.glob(f"v*/{DATABASE}")), ids=lambda path: path.parent.name)
def test_a_kept_database_file_is_opened_and_its_runs_go_on(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "detent.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(path.read_text(encoding="utf-8"))
    kept = open_app()
    with Harness(kept.app, backend=sqlite_backend(file, timing=FAST)) as h:
        for name in ("join_half_arrived", "large_payloads"):
            ends_as_expected(h, kept, KEPT[f"{path.parent.name}/{name}"].expected)


# ---- they are found, and dealt with ---------------------------------------------------------------------------------


@every_kept_run
def test_a_kept_run_is_listed_shown_and_its_log_read(name: str) -> None:
    snapshot, kept = KEPT[name], open_app()
    with Harness(kept.app) as h:
        lay_down(h, snapshot)
        run = snapshot.expected.run
        record = h.wait_for(h.client.aget(run))
        assert record.metadata == {"customer": "Zoë"}
        [listed] = [each for each in h.wait_for(h.client.aruns()) if each.run_id == run]
        assert (listed.status, listed.created, listed.ended) == (record.status, record.created, record.ended)
        assert (listed.key, listed.metadata) == (record.key, record.metadata)
        steps = {step.path for step in h.wait_for(h.client.asteps(run)) if step.status is not None}
        assert steps == {sk.removeprefix("step#") for sk in snapshot.run_items() if sk.startswith("step#")}
        mine = [line for line in map(json.loads, snapshot.logs) if line["run_id"] == run]
        assert [line.message for line in h.logs(h.client.handle(run))] == [line["message"] for line in mine]


@pytest.mark.parametrize("name", [name for name, kept in KEPT.items() if kept.expected.key])
def test_a_key_that_was_used_still_names_its_run(name: str) -> None:
    snapshot, kept = KEPT[name], open_app()
    with Harness(kept.app) as h:
        restore(h, snapshot)
        again = h.wait_for(
            h.client.lifecycle.start(kept.fork.definition, NewRun("10", snapshot.expected.key, {"customer": "Zoë"}))
        )
        assert again == snapshot.expected.run
        with pytest.raises(KeyConflict):
            h.start(kept.fork, 99, key=snapshot.expected.key)


@pytest.mark.parametrize(
    ("situation", "output"), [("failed_for_good", "sent 161"), ("failed_and_handled", 16), ("cancelled", [18, 19])]
)
def test_a_kept_run_that_failed_can_be_retried(situation: str, output: object) -> None:
    for snapshot in (kept for name, kept in KEPT.items() if name.endswith(f"/{situation}")):
        kept = open_app()
        with Harness(kept.app) as h:
            restore(h, snapshot)
            handle = h.wait_for(h.client.aretry(snapshot.expected.run))
            assert h.result(handle) == output
            assert "first" not in kept.bodies[handle.id], "what had completed is carried over"


def test_what_a_kept_run_committed_is_still_there() -> None:
    snapshot = KEPT["v1/completed"]
    with Harness(open_app().app) as h:
        restore(h, snapshot)
        stored = h.wait_for(h.client.aread("ledger", snapshot.expected.run))
        assert stored == {"n": 15, "even": False, "seen": frozenset({15})}


# ---- piece by piece -------------------------------------------------------------------------------------------------


@every_kept_run
def test_a_kept_definition_is_read_and_is_the_version_it_was(name: str) -> None:
    definitions = [(key, item) for key, item in KEPT[name].items if key.pk.startswith("definitions#")]
    assert definitions
    for key, item in definitions:
        text = item.get("definition") or KEPT[name].blobs[str(item["definition_ref"])]
        definition = Definition.from_json(str(text))
        assert (f"definitions#{definition.name}", definition.version) == key
        assert graph_of(definition).successors["@start"]


@pytest.mark.parametrize("name", [name for name in KEPT if name.startswith("v1/")])
def test_a_version_of_an_older_detent_strands_nothing_under_the_same_code(name: str) -> None:
    """The older detent wrote defaults too, so the same code had another version."""
    kept, run = open_app(), KEPT[name].expected.run
    with Harness(kept.app) as h:
        lay_down(h, KEPT[name])
        record = h.wait_for(h.client.aget(run))
        assert record.version != kept.app.definitions()[record.workflow].version
        found = h.wait_for(outlook(h.client.lifecycle, kept.app.definitions()))
        assert found == Outlook((), looked=1 if record.status.live else 0, more=False)


def test_a_run_started_by_name_has_the_version_that_an_older_detent_registered() -> None:
    snapshot, kept = KEPT["v1/just_started"], open_app()
    with Harness(kept.app) as h:
        restore(h, snapshot)
        old = h.wait_for(h.client.aget(snapshot.expected.run))
        stored = PutItem(workflow_key("chain"), {"version": old.version, "registered": 0}, expect=None)
        h.wait_for(h.backend.table.write(stored))
        by_name = h.wait_for(h.client.lifecycle.start_by_name("chain", "1"))
        assert h.wait_for(h.client.aget(by_name)).version == old.version
        assert h.result(h.client.handle(by_name)) == "sent 21"


def test_kept_messages_of_both_kinds_say_what_they_said() -> None:
    bodies = {message.body for kept in KEPT.values() for message in (*kept.messages, *kept.dead_letters)}
    assert {type(decode(body)) for body in bodies} == {Start, Drive}
    run = KEPT["v1/just_started"].expected.run
    assert [decode(message.body) for message in KEPT["v1/just_started"].messages] == [Start(run, fresh=True)]
    run = KEPT["v1/retrying"].expected.run
    assert [decode(message.body) for message in KEPT["v1/retrying"].messages] == [Drive(run, "third")]


# ---- the files themselves -------------------------------------------------------------------------------------------


def test_a_format_that_was_raised_has_files_of_its_own() -> None:
    number, formats = newest()
    assert formats == FORMATS, (
        f"A format was raised, and records/v{number} stands for {formats}. "
        "Run `python -m tests.compatibility.record`; see docs/internals/compatibility.md."
    )


def test_every_situation_that_can_be_recorded_is_kept_for_the_formats_of_today() -> None:
    number, _ = newest()
    kept = {name.partition("/")[2] for name in KEPT if name.startswith(f"v{number}/")}
    assert set(SITUATIONS) == kept, "Run `python -m tests.compatibility.record`."
    assert (RECORDS / f"v{number}" / DATABASE).exists()


def test_nothing_is_written_today_that_no_kept_file_shows() -> None:
    number, _ = newest()
    kept = [snapshot for name, snapshot in KEPT.items() if name.startswith(f"v{number}/")]
    today = [record(name) for name in SITUATIONS]
    assert _shapes(today) - _shapes(kept) == set(), (
        "Records got attributes that the kept files do not have. If an older worker would misread them, raise FORMAT; "
        "if it can pass over them, add a situation. docs/internals/compatibility.md tells the two apart."
    )


def _shapes(snapshots: Sequence[Snapshot]) -> set[str]:
    """Every attribute of every kind of record, with its type; the same of what is stored as JSON text."""
    found: set[str] = set()
    for snapshot in snapshots:
        for key, item in snapshot.items:
            if key.pk.startswith("data#"):
                continue  # the user's own
            kind = key.pk.partition("#")[0] + " " + key.sk.partition("#")[0] * key.pk.startswith("run#")
            for name, value in item.items():
                found.add(f"{kind}.{name}: {type(value).__name__}")
                if name in ("definition", "error", "history"):
                    found |= _inside(f"{kind}.{name}", json.loads(str(value)))
        for message in (*snapshot.messages, *snapshot.dead_letters):
            found |= _inside("message", json.loads(message.body))
        for line in snapshot.logs:
            found |= {shape for shape in _inside("line", json.loads(line)) if shape != "line.n: int"}
    return found


def _inside(where: str, value: object) -> set[str]:
    if isinstance(value, dict) and not where.endswith("_schema"):
        return {shape for name, part in value.items() for shape in _inside(f"{where}.{name}", part)}
    if isinstance(value, list):
        return {f"{where}: list"} | {shape for part in value for shape in _inside(f"{where}[]", part)}
    return {f"{where}: {type(value).__name__}"}
