"""`detent cost`: what a run would cost on AWS, as a user sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detent_infra.ops.cost.prices import US_EAST_1

from tests.support.cli_project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    found = Project(tmp_path, monkeypatch, capsys)
    ended = found.call("run", "orders", '{"id": "flaky", "total": 2}', "--here")
    assert ended.code == 0, ended.err
    return found


def cost(project: Project, *arguments: str) -> Any:
    result = project.call("cost", *arguments, "--json")
    assert result.code == 0, result.err
    return result.json


def test_cost_says_what_a_run_and_a_million_such_would_cost_and_what_each_step_has_of_it(project: Project) -> None:
    result = project.call("cost", "last")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[1].startswith("would cost on AWS $0.0000")
    assert "and a million such runs $" in lines[1]
    listed = [line.split()[0] for line in lines if line.startswith(("reserve", "charge", "ship", "undo"))]
    assert listed == ["reserve", "charge", "ship"], "a step that never ran costs nothing"
    assert "DynamoDB" in result.out
    assert US_EAST_1.read_on in result.out


def test_the_json_adds_up(project: Project) -> None:
    found = cost(project, "last")
    assert found["workflow"] == "orders"
    assert found["status"] == "COMPLETED"
    dollars = found["dollars_per_million_runs"]
    services = [dollars[name] for name in ("DynamoDB", "SQS", "S3", "Lambda", "CloudWatch Logs")]
    assert sum(services) == pytest.approx(dollars["total"])
    assert sum(part["dollars_per_million_runs"]["total"] for part in found["parts"]) == pytest.approx(dollars["total"])
    assert [part["step"] for part in found["parts"]] == [None, "reserve", "charge", "ship"]
    assert found["requests"]["sqs.SendMessageBatch"] == 2, "the start, and the retry of `charge`"


def test_memory_and_architecture_change_what_lambda_costs_and_nothing_else(project: Project) -> None:
    plain = cost(project, "last")["dollars_per_million_runs"]
    other = cost(project, "last", "--memory", "2048", "--architecture", "x86_64")["dollars_per_million_runs"]
    assert other["Lambda"] > plain["Lambda"]
    assert other["DynamoDB"] == plain["DynamoDB"]


def test_a_workflow_costs_the_average_of_its_newest_ended_runs(project: Project) -> None:
    flaky = cost(project, "last")
    assert project.call("run", "orders", '{"id": "smooth", "total": 2}', "--here").code == 0
    smooth = cost(project, "last")
    assert project.call("run", "orders", '{"id": "live"}').code == 0
    average = cost(project, "--workflow", "orders")
    assert (average["runs"], average["run_id"]) == (2, None)
    for figure in ("write_units", "read_units", "log_bytes"):
        assert average[figure] == pytest.approx((flaky[figure] + smooth[figure]) / 2, abs=1)
    assert cost(project, "--workflow", "orders", "--limit", "1")["runs"] == 1


@pytest.mark.parametrize("columns", [40, 50, 66, 70])
def test_on_a_narrow_terminal_the_table_keeps_steps_and_dollars_and_breaks_no_word(
    columns: int, project: Project
) -> None:
    wide = project.call("cost", "last").out.split()
    result = project.call("cost", "last", columns=columns)
    assert all(len(line.rstrip()) <= columns for line in result.out.splitlines() if "a million such" not in line)
    assert set(result.out.split()) <= set(wide)
    assert {"reserve", "$/MILLION", "DynamoDB"} <= set(result.out.split())


def test_what_cannot_be_answered_is_one_line(project: Project) -> None:
    project.call("cost").refused("a run or a workflow", "detent cost last")
    project.call("cost", "last", "--workflow", "orders").refused("a run or a workflow")
    project.call("cost", "nothing").refused("No run 'nothing'")
    project.call("cost", "--workflow", "oders").refused("No workflow 'oders'")
    project.call("cost", "--workflow", "hello").refused("No run of 'hello' has ended")
    project.call("cost", "last", "--architecture", "mips").refused("arm64 or x86_64")
    project.call("cost", "last", "--memory", "64").refused("memory")
