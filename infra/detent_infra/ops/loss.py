"""What a deploy would take from live runs. Such a deploy is refused unless the user passes --strand."""

from __future__ import annotations

import shlex

from detent_state_machine.errors import WrongState

from detent_infra.ops.deployer import ChangeSet, ResourceChange
from detent_infra.ops.stranding import MAX_RUNS, Outlook, Stranded

SHOWN = 5
"""Stranded steps that a message names."""
_WEIGHTY = ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue")
"""What holds something: replaced or removed, it starts empty or is left behind."""


def judge_runs(found: Outlook, url: str, *, strand: bool) -> str:
    """A line about the live runs. Raises `WrongState` if some are stranded, or may be, unless `strand`."""
    if not found.stranded and not found.more:
        return f"{found.looked:,} live runs, none stranded"
    if strand:
        return f"strands {told(found)}" if found.stranded else f"may strand runs: {_unread()}"
    if found.stranded:
        said = f"Live runs still have to do steps that this code does not have: {told(found)}."
        example = f"; `detent show {found.stranded[0].run_ids[0]}` shows one"
    else:
        said, example = f"Live runs may have to do steps that this code does not have: {_unread()}.", ""
    raise WrongState(
        f"{said} Nothing was deployed.",
        advice=f"Wait for them (`detent runs --status running,failing --url {shlex.quote(url)}`{example}), keep the "
        "steps for now, or pass --strand: those runs then wait until a worker has the steps again.",
    )


def told(found: Outlook) -> str:
    said = [_said(each) for each in found.stranded[:SHOWN]]
    if (others := len(found.stranded) - SHOWN) > 0:
        said.append(f"and {others} more")
    return "; ".join([*said, _unread()] if found.more else said)


def _said(each: Stranded) -> str:
    return f"{each.workflow}.{each.step} in {each.runs:,} run{'s' if each.runs != 1 else ''} of version {each.version}"


def _unread() -> str:
    return f"more than {MAX_RUNS:,} runs are of versions that have such steps, and the others were not looked at"


def lost(change_set: ChangeSet) -> list[ResourceChange]:
    """Changes after which a table, queue or bucket is gone, or may be: what it holds is left behind."""
    return [
        each
        for each in change_set.changes
        if each.kind in _WEIGHTY and (each.action == "Remove" or each.replaced != "False")
    ]


def judge_changes(change_set: ChangeSet, *, strand: bool) -> None:
    """Raises `WrongState` if something that holds runs is lost, unless `strand`."""
    if strand or not (gone := lost(change_set)):
        return
    said = ", ".join(f"{each.logical} ({each.kind}, {_verb(each)})" for each in gone)
    raise WrongState(
        f"What these hold is left behind, and live runs with it: {said}. Nothing was deployed.",
        advice="Undo that change of template.yaml or of the parameters, or pass --strand.",
    )


def _verb(change: ResourceChange) -> str:
    if change.action == "Remove":
        return "removed"
    return "replaced" if change.replaced == "True" else "may be replaced"
