"""What a deploy would take from live runs, and what is said of it."""

from __future__ import annotations

import pytest
from detent_infra.ops.deployer import ChangeSet, ResourceChange
from detent_infra.ops.loss import judge_changes, judge_runs
from detent_infra.ops.stranding import Outlook, Stranded
from detent_state_machine.errors import WrongState

URL = "aws://shop?region=eu-west-1"
PACK = Stranded("orders", "v1", "pack", 2, ("r1", "r2"))


def change(action: str, kind: str, replaced: str = "False") -> ChangeSet:
    fine = ResourceChange("Modify", "Worker", "AWS::Lambda::Function")
    return ChangeSet("shop", "id", creates=False, changes=(fine, ResourceChange(action, "It", kind, replaced)))


@pytest.mark.parametrize("kind", ["AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue"])
@pytest.mark.parametrize(
    ("action", "replaced", "said"),
    [("Remove", "False", "removed"), ("Modify", "True", "replaced"), ("Modify", "Conditional", "may be replaced")],
)
def test_what_holds_runs_is_lost_only_if_told(kind: str, action: str, replaced: str, said: str) -> None:
    changes = change(action, kind, replaced)
    with pytest.raises(WrongState, match=rf"It \({kind}, {said}\)\. Nothing was deployed") as refused:
        judge_changes(changes, strand=False)
    assert "--strand" in refused.value.advice
    judge_changes(changes, strand=True)


@pytest.mark.parametrize(
    ("action", "kind", "replaced"),
    [
        ("Add", "AWS::SQS::Queue", "False"),
        ("Modify", "AWS::DynamoDB::Table", "False"),
        ("Modify", "AWS::Lambda::Permission", "True"),
        ("Remove", "AWS::CloudWatch::Alarm", "False"),
    ],
)
def test_what_holds_nothing_or_stays_may_change(action: str, kind: str, replaced: str) -> None:
    judge_changes(change(action, kind, replaced), strand=False)


def test_stranded_runs_are_refused_with_a_way_to_see_them() -> None:
    with pytest.raises(WrongState, match=r"orders\.pack in 2 runs of version v1\. Nothing was deployed") as refused:
        judge_runs(Outlook((PACK,), 5, more=False), URL, strand=False)
    assert f"--url '{URL}'" in refused.value.advice
    assert "detent show r1" in refused.value.advice
    assert (
        judge_runs(Outlook((PACK,), 5, more=False), URL, strand=True) == "strands orders.pack in 2 runs of version v1"
    )
    assert judge_runs(Outlook((), 5, more=False), URL, strand=False) == "5 live runs, none stranded"


def test_runs_that_were_not_looked_at_are_refused_too() -> None:
    unread = r"more than 10,000 runs are of versions that have such steps, and the others were not looked at"
    for found in (Outlook((), 10_000, more=True), Outlook((PACK,), 10_000, more=True)):
        with pytest.raises(WrongState, match=rf"{unread}\. Nothing was deployed"):
            judge_runs(found, URL, strand=False)
        assert judge_runs(found, URL, strand=True).endswith(unread)


def test_of_many_stranded_steps_some_are_told() -> None:
    found = Outlook(tuple(Stranded("orders", "v1", f"s{n}", 1, ("r",)) for n in range(8)), 9, more=False)
    assert judge_runs(found, URL, strand=True).endswith("orders.s4 in 1 run of version v1; and 3 more")
