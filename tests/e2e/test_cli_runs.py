"""`detent run`, `runs`, `show`, `logs`, `cancel`, `retry`: the life of a run, as a user sees it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from detent.cli import follow
from detent.run_handle import FOLLOW_EVERY
from detent_state_machine.backoff import Backoff

from tests.support.cli_project import Project, Result

NAPS = """
import time

from detent import App

app = App("naps", url="memory://")
nap = app.workflow("nap", output=str)


@nap.step
async def doze() -> str:
    time.sleep(0.3)  # as much async code in the wild does: nothing else moves meanwhile
    return "awake"


@nap.step(after=[doze])
def linger() -> str:
    time.sleep(0.3)
    return "awake"
"""
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, monkeypatch, capsys)


def started(project: Project, id: str, *more: str) -> str:
    """The id of a new run of this order, which nobody works on."""
    result = project.call("run", "orders", f'{{"id": "{id}", "total": 2}}', *more)
    assert result.code == 0, result.err
    return result.out.strip()


def ended(project: Project, id: str, *more: str) -> Result:
    """A run of this order, worked on here until it ended."""
    return project.call("run", "orders", f'{{"id": "{id}", "total": 2}}', "--here", *more)


def shown(project: Project, run: str) -> Any:
    return project.call("show", run, "--json").json


def renamed(project: Project, step: str) -> None:
    """A deploy of code that has the step under another name."""
    file = project.path / "shop.py"
    file.write_text(file.read_text().replace(f"def {step}(", f"def {step}_now(").replace(f"{step}.", f"{step}_now."))


# ---- run ------------------------------------------------------------------------------------------------------


def test_run_prints_nothing_but_the_id_on_standard_output(project: Project) -> None:
    result = project.run("run", "orders", '{"id": "a"}')
    assert result.code == 0
    assert re.fullmatch(r"[0-9a-v]{26}\n", result.out)
    assert shown(project, result.out.strip())["status"] == "RUNNING"


def test_run_here_needs_no_worker_and_ends_with_the_result_on_standard_output(project: Project) -> None:
    result = project.run("run", "orders", '{"id": "a", "total": 2}', "--here")
    assert (result.code, result.out) == (0, '"a for 2.0"\n')
    assert "✓ reserve" in result.err
    assert "✓ ship" in result.err


def test_run_here_never_says_that_no_worker_is_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "NO_WORKER_AFTER", 0.0)
    (project.path / "naps.py").write_text(NAPS)
    result = project.call("run", "nap", "--here", "--app", "naps:app")
    assert (result.code, result.out) == (0, '"awake"\n')
    assert "worker" not in result.err


def test_a_failed_run_exits_with_1_and_names_the_step_and_its_error_which_keeps_its_lines(project: Project) -> None:
    result = ended(project, "refused")
    assert (result.code, result.out) == (1, "")
    first, second = result.err.splitlines()[-2:]
    assert first.startswith("detent: Run ")
    assert first.endswith("failed at step 'charge' with ValueError: the card was")
    assert second.startswith("    refused. See `detent show "), "so that it passes for no line of ours"


def test_run_here_works_in_memory(project: Project) -> None:
    assert ended(project, "a", "--url", "memory://").out == '"a for 2.0"\n'
    assert not (project.path / ".detent").exists()


def test_input_comes_from_standard_input_or_a_file(project: Project) -> None:
    (project.path / "order.json").write_text('{"id": "from a file"}')
    assert project.call("run", "orders", "@order.json", "--here").out == '"from a file for None"\n'
    assert project.run("run", "orders", "-", "--here", stdin='{"id": "from é pipe"}').out == '"from é pipe for None"\n'


def test_a_workflow_without_input_needs_none(project: Project) -> None:
    assert project.call("run", "hello", "--here").out == '"hello"\n'


def test_the_same_key_starts_one_run(project: Project) -> None:
    assert started(project, "a", "--key", "A-17") == started(project, "a", "--key", "A-17")
    project.call("run", "orders", '{"id": "other"}', "--key", "A-17").refused("A-17", "another input")


def test_following_as_json_is_an_object_per_change_and_ends_with_the_output(project: Project) -> None:
    lines = ended(project, "flaky", "--json").json_lines
    assert [line["event"] for line in lines][:1] == ["run"]
    assert [line["event"] for line in lines][-1:] == ["end"]
    assert {(line["step"], line["status"]) for line in lines if line["event"] == "step"} >= {
        ("reserve", "COMPLETED"),
        ("charge", "COMPLETED"),
        ("ship", "COMPLETED"),
    }
    assert len({line["run_id"] for line in lines}) == 1
    assert all(ISO.fullmatch(str(line["time"])) for line in lines)
    assert (lines[-1]["status"], lines[-1]["output"], lines[-1]["error"]) == ("COMPLETED", "flaky for 2.0", None)


@pytest.mark.parametrize("second_look", [0.01, 1.0], ids=["many looks", "a look when all is over"])
def test_what_is_followed_is_told_whole_however_often_it_is_looked_at(
    project: Project, monkeypatch: pytest.MonkeyPatch, second_look: float
) -> None:
    monkeypatch.setattr(follow, "LOOKS", Backoff(second_look, max(second_look, FOLLOW_EVERY)))
    lines = [line for line in ended(project, "flaky", "--json").json_lines if line["event"] == "step"]
    assert [(line["step"], line["status"], line["attempt"]) for line in lines if line["status"] != "RUNNING"] == [
        ("reserve", "COMPLETED", 1),
        ("charge", "RETRYING", 1),
        ("charge", "COMPLETED", 2),
        ("ship", "COMPLETED", 1),
    ]
    assert [line["time"] for line in lines] == sorted(str(line["time"]) for line in lines)
    said = ended(project, "flaky").err
    assert re.search(r"↻ charge attempt 1 failed, again in [\d.]+ m?s: ValueError: the card was refused\n", said), said
    assert re.search(r"✓ charge [\d.]+ m?s, attempt 2\n", said), said


def test_following_a_failure_as_json_ends_with_the_error(project: Project) -> None:
    result = ended(project, "refused", "--json")
    last: Any = result.json_lines[-1]
    assert result.code == 1
    assert (last["event"], last["status"], last["output"]) == ("end", "FAILED", None)
    assert (last["error"]["step"], last["error"]["type"]) == ("charge", "ValueError")


def test_without_an_app_a_registered_workflow_is_started_by_name(project: Project) -> None:
    started(project, "a")
    (project.path / "pyproject.toml").unlink()
    assert project.call("run", "orders", '{"id": "b"}').code == 0
    project.call("run", "orders").refused("takes an input")
    project.call("run", "nope", "{}").refused("No workflow 'nope'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("orders", '{"id":'), "not JSON"),
        (("orders", '{"id": NaN}'), "not JSON"),
        (("orders", '{"total": 2}'), "$.id: Field required"),
        (("orders",), "takes an input"),
        (("orders", "@missing.json"), "missing.json cannot be read"),
        (("ordrs", "{}"), "Did you mean 'orders'?"),
        (("orders", '{"id": "a"}', "--metadata", "x"), "--metadata customer=42"),
        (("orders", '{"id": "a"}', "--url", "memory://"), "one process"),
    ],
)
def test_a_run_that_cannot_start_says_why_in_one_line_and_writes_nothing(
    project: Project, arguments: tuple[str, ...], said: str
) -> None:
    project.call("run", *arguments).refused(said)
    assert not (project.path / ".detent").exists()


# ---- runs -----------------------------------------------------------------------------------------------------


def test_runs_lists_the_newest_first_and_filters(project: Project) -> None:
    ended(project, "a", "--metadata", "customer=42", "-m", "region=eu")
    ended(project, "refused")
    live = project.call("run", "hello").out.strip()

    def ids(*filters: str) -> list[str]:
        result = project.call("runs", "--json", *filters)
        assert result.code == 0, result.err
        listed: Any = result.json
        return [run["run_id"] for run in listed["runs"]]

    newest, failed, oldest = ids()
    assert newest == live
    assert ids("--workflow", "hello") == [newest]
    assert ids("--status", "failed") == [failed]
    assert ids("--status", "failed,Running") == ids("-s", "failed", "-s", "running") == [newest, failed]
    assert ids("--metadata", "customer=42", "-m", "region=eu") == [oldest]
    assert ids("--metadata", "customer=43") == []
    assert ids("--since", "1h") == [newest, failed, oldest]
    assert ids("--since", "2099-01-01") == []
    assert ids("--limit", "1") == [newest]


def test_a_full_list_says_that_there_are_more_and_only_then(project: Project) -> None:
    ids = [started(project, str(number)) for number in range(3)]
    part = project.call("runs", "--limit", "2")
    [_, said] = part.err.splitlines()
    assert said.startswith("2 of more: detent runs --limit 2 --after ")
    assert [run in part.out for run in ids] == [False, True, True]
    rest = project.call(*said.partition("detent ")[2].split())
    assert ([run in rest.out for run in ids], rest.err) == ([True, False, False], "the module prints\n")
    assert project.call("runs", "--limit", "3").err == "the module prints\n"
    assert project.call("runs", "--limit", "2", "--status", "failed").err == "the module prints\nNo run matches.\n"


def test_a_list_that_is_cut_says_how_to_go_on_with_the_same_filters(project: Project) -> None:
    for number in range(3):
        started(project, str(number), "--metadata", "team=red and blue")
    filters = ("--workflow", "orders", "--status", "running", "--since", "1h", "--metadata", "team=red and blue")
    [_, said] = project.call("runs", "--limit", "2", *filters).err.splitlines()
    _, *command = shlex.split(said.partition(": ")[2])
    assert command[:-2] == ["runs", *filters, "--limit", "2"]
    assert len(project.call(*command).out.splitlines()) == 2


def test_runs_as_json_say_whether_there_are_more(project: Project) -> None:
    ids = [started(project, str(number)) for number in range(3)]
    first: Any = project.call("runs", "--limit", "2", "--json").json
    second: Any = project.call("runs", "--limit", "2", "--json", "--after", first["next"]).json
    assert [run["run_id"] for page in (first, second) for run in page["runs"]] == ids[::-1]
    assert second["next"] is None
    project.call("runs", "--after", "yesterday").refused("'yesterday' is not the cursor")


@pytest.mark.parametrize("columns", [20, 40, 60, 79, 80, 100, 120, 200])
def test_a_run_id_is_never_cut(columns: int, project: Project) -> None:
    run = started(project, "a", "--key", "k" * 60)
    assert f"{run} " in project.call("runs", columns=columns).out


def test_a_part_of_a_run_id_is_taken_by_every_command(project: Project) -> None:
    ended(project, "refused")
    listed: Any = project.call("runs", "--json").json
    run: str = listed["runs"][0]["run_id"]
    for part in (run[-6:], run[:20], run[8:]):
        assert run in project.call("show", part).out
        assert project.call("logs", part).code == 0
        assert project.call("cost", part).code == 0
    assert project.call("retry", run[-6:]).code == 0
    live = started(project, "b")
    assert project.call("cancel", live[-6:]).out == f"Cancelled {live}.\n"
    project.call("show", live[:4]).refused("is a part of", live, run)
    project.call("show", "zzzz").refused("the whole id")
    project.call("cancel", live[-3:]).refused("4 characters")


def test_runs_as_json_has_stable_names_and_iso_times(project: Project) -> None:
    ended(project, "a", "--metadata", "customer=42", "--key", "A-17")
    listed: Any = project.run("runs", "--json").json
    (run,) = listed["runs"]
    assert list(run) == [
        "run_id",
        "workflow",
        "version",
        "status",
        "created",
        "ended",
        "duration",
        "key",
        "metadata",
        "waits_for_code",
    ]
    assert ISO.fullmatch(run["created"])
    assert ISO.fullmatch(run["ended"])
    assert (run["status"], run["key"], run["metadata"]) == ("COMPLETED", "A-17", {"customer": "42"})
    assert 0 <= run["duration"] < 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--status", "bogus"), "running, failing, completed, failed, cancelled"),
        (("--since", "yesterday"), "10m"),
        (("--limit", "0"), "detent runs --help"),
        (("--workflow", "nope"), "No workflow 'nope'"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(project: Project, arguments: tuple[str, str], said: str) -> None:
    started(project, "a")
    project.call("runs", *arguments).refused(said)


def test_a_list_of_no_runs_is_no_error(project: Project) -> None:
    started(project, "a")
    assert project.call("runs", "--status", "failed", "--json").json == {"runs": [], "next": None}
    assert "No run matches" in project.call("runs", "--status", "failed").err


# ---- code that no worker has ----------------------------------------------------------------------------------


def test_a_run_that_waits_for_code_says_so_wherever_it_is_shown(project: Project) -> None:
    run = started(project, "a")
    renamed(project, "reserve")
    assert ended(project, "b").code == 0  # its worker takes both
    steps = {step["step"]: step for step in shown(project, run)["steps"]}
    assert ISO.fullmatch(steps["reserve"]["waits_for_code"])
    assert steps["ship"]["waits_for_code"] is None
    told = project.call("show", run).out
    assert "reserve  waits for code" in told
    assert "No worker that looked has this step of 'orders'" in told
    listed: Any = project.call("runs", "--json").json
    assert {each["run_id"]: each["waits_for_code"] for each in listed["runs"]}[run] == ["reserve"]
    table = project.call("runs")
    assert "running!" in table.out
    assert f"detent show {run}" in table.err
    assert "step 'reserve' waits for code" in project.call("logs", run).out
    checks: Any = project.call("doctor", "--json").json
    [code] = [check for check in checks["checks"] if check["name"] == "code"]
    assert (code["verdict"], code["command"]) == ("warn", f"detent show {run}")


# ---- show -----------------------------------------------------------------------------------------------------


def test_show_tells_the_whole_story_of_a_failure_and_what_to_try_next(project: Project) -> None:
    ended(project, "refused")
    text = project.run("show", "last").out
    assert text.startswith("✗ FAILED  orders  ")
    assert '"id":"refused"' in text
    assert re.search(r"✗ charge +[\d.]+ m?s +\N{MULTIPLICATION SIGN}2 +▒", text)
    assert "ship       not run" in text
    assert "shop.py" in text
    assert "in charge" in text
    assert text.count("ValueError: the card was refused") == 2, "the two attempts"
    assert text.count("ValueError: the card was\n") == 1, "the error, and not once more under its trace"
    assert text.count("refused\n") == 3, "a message of two lines is left out of the trace whole"
    assert "detent retry " in text


def test_show_as_json_has_every_step_with_its_attempts(project: Project) -> None:
    ended(project, "flaky")
    run = shown(project, "last")
    assert (run["status"], run["input"], run["output"]) == ("COMPLETED", {"id": "flaky", "total": 2.0}, "flaky for 2.0")
    steps = {step["step"]: step for step in run["steps"]}
    assert list(steps) == ["reserve", "charge", "ship", "undo"]
    assert (steps["reserve"]["status"], steps["reserve"]["attempt"], steps["reserve"]["output"]) == (
        "COMPLETED",
        1,
        "held flaky",
    )
    assert steps["charge"]["attempt"] == 2
    (past,) = steps["charge"]["past_attempts"]
    assert past["error"].startswith("ValueError: the card was")
    assert ISO.fullmatch(past["started"])
    assert steps["undo"]["status"] is None


@pytest.mark.parametrize("width", [40, 50, 80, 120])
def test_no_line_is_wider_than_the_terminal(project: Project, width: int) -> None:
    ended(project, "refused", "--metadata", f"a_long_name={'long ' * 40}")
    ended(project, "flaky")
    commands = [("show", "last"), ("runs",), ("graph", "orders"), ("graph", "--list")]
    for arguments in commands:
        result = project.call(*arguments, columns=width)
        assert result.code == 0, result.err
        lines = [line for line in result.out.splitlines() if "detent " not in line]  # commands are to be copied
        assert max(map(len, lines)) <= width, result.out


@pytest.mark.parametrize("width", [40, 60])
def test_the_error_of_an_attempt_that_was_retried_is_shown_whole_in_a_narrow_terminal(
    project: Project, width: int
) -> None:
    cause = " ".join(f"word{number}" for number in range(20))
    shop = project.path / "shop.py"
    shop.write_text(shop.read_text().replace("the card was\\nrefused", cause))
    ended(project, "flaky")
    shown = project.call("show", "last", columns=width).out
    assert f"ValueError: {cause}" in " ".join(shown.split())
    assert max(map(len, (line for line in shown.splitlines() if "detent " not in line))) <= width


def test_an_unknown_run_is_told_by_every_command(project: Project) -> None:
    started(project, "a")
    for name in ("show", "logs", "cancel", "retry"):
        project.call(name, "nope").refused("No run 'nope'", "detent runs")


# ---- logs -----------------------------------------------------------------------------------------------------


def test_logs_are_printed_filtered_and_as_json_lines(project: Project) -> None:
    ended(project, "flaky")
    assert "charge charging the card total=2.0" in project.run("logs", "last").out
    lines: list[Any] = project.call("logs", "last", "--json").json_lines
    own = [line for line in lines if line["engine"] is None]
    assert [(line["level"], line["attempt"]) for line in own] == [("INFO", 1), ("INFO", 2)]
    assert own[0]["fields"] == {"total": 2.0}
    assert ISO.fullmatch(own[0]["time"])
    assert len(project.call("logs", "last", "--json", "--filter", "{ $.level = WARN }").json_lines) == 1
    assert project.call("logs", "last", "--since", "2099-01-01").out == ""
    project.call("logs", "last", "--filter", "{ $.level").refused("filter pattern")


# ---- cancel, retry --------------------------------------------------------------------------------------------


def test_a_live_run_is_cancelled_and_an_ended_one_is_not(project: Project) -> None:
    run = started(project, "a")
    assert project.run("cancel", run).out == f"Cancelled {run}.\n"
    assert project.call("cancel", run).code == 0, "cancelling again is fine"
    assert shown(project, run)["status"] == "CANCELLED"
    ended(project, "b")
    project.call("cancel", "last").refused("COMPLETED")


def test_retry_prints_the_new_run_and_carries_completed_steps_over(project: Project) -> None:
    ended(project, "refused")
    old: Any = shown(project, "last")
    new = project.run("retry", "last").out.strip()
    run = shown(project, new)
    assert (run["status"], run["retry_of"]) == ("RUNNING", old["run_id"])
    assert run["steps"][0]["status"] == "COMPLETED"
    assert "reserve    earlier" in project.call("show", new).out
    project.call("retry", new).refused("RUNNING")


# ---- the whole ------------------------------------------------------------------------------------------------


def test_no_escape_code_goes_to_a_pipe_or_with_no_color(project: Project) -> None:
    ended(project, "refused")
    for arguments in (("show", "last"), ("runs",), ("logs", "last"), ("run", "hello", "--here")):
        result = project.run(*arguments)
        assert "\x1b" not in result.out + result.err
    assert "\x1b[" in project.run("show", "last", FORCE_COLOR="1").out
    assert "\x1b" not in project.run("show", "last", FORCE_COLOR="1", NO_COLOR="1").out


def test_a_terminal_without_unicode_gets_ascii(project: Project) -> None:
    ended(project, "flaky")
    for arguments in (("show", "last"), ("runs",), ("graph", "orders")):
        result = project.run(*arguments, PYTHONIOENCODING="ascii")
        assert result.code == 0, result.err
        assert result.out.isascii()
    assert project.run("show", "last", PYTHONIOENCODING="ascii").out.startswith("+ COMPLETED")


def test_what_a_terminal_would_obey_is_not_printed(project: Project) -> None:
    project.call("run", "orders", '{"id": "a"}', "--key", "\x1b[2J", "--metadata", "x=\x1b]0;title\x07")
    result = project.call("show", "last")
    assert "\x1b" not in result.out + project.call("runs").out
    assert "\\x1b[2J" in result.out
