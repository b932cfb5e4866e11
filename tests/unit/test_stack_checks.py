"""What `detent doctor --stack` finds: each fault that a stack can have, on facts that are otherwise in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from detent_infra.ops.doctor.findings import Finding
from detent_infra.ops.doctor.stack_checks import CHECKS, RESOURCES, judge
from detent_infra.ops.stack.facts import (
    AccountFacts,
    AlarmFacts,
    FunctionFacts,
    MappingFacts,
    Needed,
    QueueFacts,
    RuleFacts,
    StackFacts,
    StepTimeout,
    TableFacts,
    Unread,
)
from detent_infra.ops.stack.permissions import NEEDED
from detent_state_machine.kinds.call import TIME_MARGIN

from tests.support.sam_template import allowed, template

WORKER = FunctionFacts(
    logical="Worker",
    name="shop-Worker-1",
    runtime="python3.13",
    architecture="arm64",
    timeout=900,
    memory=1024,
    state="Active",
    update="Successful",
    recursive_loop="Allow",
    reserved=None,
    url_auth=None,
)
DEAD_LETTERS = replace(WORKER, logical="DeadLetters", name="shop-DeadLetters-1", timeout=120, memory=512)
START = replace(WORKER, logical="Start", name="shop-Start-1", timeout=29, url_auth="AWS_IAM")
UNREACHED = replace(START, url_auth=None)
TICK = replace(WORKER, logical="Tick", name="shop-Tick-1", timeout=60, memory=512)
SOURCE = MappingFacts(
    id="1-2", function="Worker", source="arn:queue", state="Enabled", partial=True, maximum=100, window=0,
    last_result="",
)  # fmt: skip
DEAD_SOURCE = replace(SOURCE, id="3-4", function="DeadLetters", source="arn:dead", maximum=2)
QUEUE = QueueFacts(
    name="shop-Queue-1", url="https://queue", arn="arn:queue", visibility=960, retention=1_209_600, max_receives=10,
    dead_letters_to="arn:dead", visible=3, in_flight=2, oldest=4,
)  # fmt: skip
DEAD = replace(
    QUEUE, name="shop-Dead-1", arn="arn:dead", max_receives=None, dead_letters_to=None, visible=0, in_flight=0
)
FAILED = replace(DEAD, name="shop-FailedStarts-1", arn="arn:failed", visibility=30)
TABLE = TableFacts(
    name="shop-Table-1", status="ACTIVE", indexes={"runs": "ACTIVE"}, expiry="expires", recovery=True, peak_writes=None
)
ACCOUNT = AccountFacts(concurrency=1000, unreserved=1000, code_size=10**9, code_limit=80 * 10**9, peak=12)
WELL = StackFacts(
    name="shop",
    region="eu-west-1",
    status="UPDATE_COMPLETE",
    resources={name: f"shop-{name}-1" for name in RESOURCES},
    clock=0.4,
    functions=(WORKER, START, TICK, DEAD_LETTERS),
    mappings=(SOURCE, DEAD_SOURCE),
    queues={"Queue": QUEUE, "DeadLetterQueue": DEAD, "FailedStarts": FAILED},
    failed_starts_to="arn:failed",
    table=TABLE,
    public_access=(),
    log_retention=30,
    alarms=(AlarmFacts("shop-Alarm-1", "OK", 1),),
    rules=(RuleFacts("shop-Minute-1", enabled=True, schedule="rate(1 minute)", targets=1),),
    account=ACCOUNT,
    table_quota=40_000.0,
    denied=dict.fromkeys(NEEDED, ()),
    steps=(StepTimeout("orders", "charge", 30.0),),
)


GONE = Unread("AWS does not find it.", gone=True)


def worker(**changed: Any) -> StackFacts:
    return replace(WELL, functions=(replace(WORKER, **changed), START, TICK, DEAD_LETTERS))


def source(**changed: Any) -> StackFacts:
    return replace(WELL, mappings=(replace(SOURCE, **changed), DEAD_SOURCE))


def queue(**changed: Any) -> StackFacts:
    return replace(WELL, queues={"Queue": replace(QUEUE, **changed), "DeadLetterQueue": DEAD})


def triggered(**changed: Any) -> StackFacts:
    """With a queue of the user's, whose messages start runs."""
    source = replace(QUEUE, name="orders", url="https://orders", arn="arn:sqs:orders", visibility=30)
    return replace(
        WELL,
        functions=(WORKER, START, TICK, DEAD_LETTERS, replace(WORKER, logical="QueueTrigger", timeout=30)),
        mappings=(SOURCE, DEAD_SOURCE, replace(SOURCE, function="QueueTrigger", source="arn:sqs:orders", maximum=10)),
        queues={**WELL.queues, "TriggerQueueArn": replace(source, **changed)},
    )


def dead(**changed: Any) -> StackFacts:
    return replace(WELL, queues={"Queue": QUEUE, "DeadLetterQueue": replace(DEAD, **changed)})


def table(**changed: Any) -> StackFacts:
    return replace(WELL, table=replace(TABLE, **changed))


def account(**changed: Any) -> StackFacts:
    return replace(WELL, account=replace(ACCOUNT, **changed))


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in WELL.resources.items() if name not in names}


def functions(*names: str) -> StackFacts:
    """Only these of them are there."""
    return replace(WELL, functions=tuple(each for each in (WORKER, START, TICK, DEAD_LETTERS) if each.logical in names))


def gone(fact: str) -> StackFacts:
    changed: dict[str, Any] = {fact: GONE}
    return replace(WELL, **changed)


FAULTS: list[tuple[StackFacts, str, str, str]] = [
    (replace(WELL, status="UPDATE_ROLLBACK_FAILED"), "stack", "fail", "describe-stack-events --stack-name shop"),
    (replace(WELL, status="ROLLBACK_COMPLETE"), "stack", "fail", "nothing runs"),
    (replace(WELL, status="UPDATE_ROLLBACK_COMPLETE"), "stack", "warn", "undone"),
    (replace(WELL, status="UPDATE_IN_PROGRESS"), "stack", "warn", "under way"),
    (replace(WELL, resources=without("TickMinute", "Start")), "resources", "fail", "lacks Start, TickMinute"),
    (functions("Worker", "DeadLetters"), "resources", "fail", "lists Start, Tick, and"),
    (replace(WELL, clock=-12.2), "clock", "warn", "12 s behind"),
    (replace(WELL, clock=301.0), "clock", "fail", "301 s ahead"),
    (worker(state="Failed"), "functions", "fail", "get-function-configuration --function-name shop-Worker-1"),
    (worker(update="Failed"), "functions", "fail", "update Failed"),
    (worker(update="InProgress"), "functions", "warn", "being updated"),
    (worker(url_auth="NONE"), "functions", "fail", "Anybody may call"),
    (replace(WELL, functions=(WORKER, UNREACHED, TICK, DEAD_LETTERS)), "functions", "fail", "URL of Start"),
    (worker(recursive_loop="Terminate"), "recursion", "fail", "put-function-recursion-config"),
    (worker(recursive_loop=Unread("no right")), "recursion", "skip", "no right"),
    (worker(runtime="python3.10"), "runtime", "fail", "python3.11 or newer"),
    (worker(runtime=""), "runtime", "fail", "no managed runtime"),
    (worker(architecture="x86_64"), "runtime", "fail", "python3.13 on arm64, python3.13 on x86_64"),
    (worker(memory=128), "runtime", "warn", "128 MB"),
    (replace(WELL, steps=()), "steps", "warn", "No workflow is registered"),
    (worker(timeout=31), "steps", "warn", "orders.charge may take 30 s"),
    (replace(WELL, denied={"Worker": (Needed("sqs:Send", "Queue"),)}), "permissions", "fail", "sqs:Send on Queue"),
    (source(state="Disabled"), "sources", "fail", "update-event-source-mapping --uuid 1-2 --enabled"),
    (source(partial=False), "sources", "fail", "ReportBatchItemFailures"),
    (source(last_result="PROBLEM: Function call failed"), "sources", "warn", "Function call failed"),
    (replace(WELL, mappings=(DEAD_SOURCE,)), "sources", "fail", "Nothing hands the messages of Queue to Worker"),
    (queue(visibility=899), "visibility", "fail", "VisibilityTimeout=960"),
    (source(window=100), "visibility", "fail", "hold it for 1000 s"),
    (source(maximum=None), "concurrency", "warn", "no MaximumConcurrency"),
    (worker(reserved=0), "concurrency", "fail", "delete-function-concurrency"),
    (worker(reserved=10), "concurrency", "fail", "after 10 deliveries"),
    (worker(reserved=Unread("no right")), "concurrency", "skip", "no right"),
    (account(unreserved=10), "concurrency", "warn", "up to 102 at once, but 10"),
    (account(unreserved=10), "concurrency", "warn", "Deploy with `-p MaximumConcurrency=8`, or ask for a higher quota"),
    (account(unreserved=3), "concurrency", "warn", "dead letters. Ask for a higher quota"),
    (queue(max_receives=None), "redrive", "fail", "no dead-letter queue"),
    (triggered(max_receives=None), "redrive", "warn", "TriggerDeadLetterQueueArn"),
    (triggered(max_receives=3), "redrive", "warn", "orders gives a message up after 3"),
    (triggered(visibility=20), "visibility", "fail", "--queue-url https://orders"),
    (queue(max_receives=3), "redrive", "warn", "after 3 deliveries"),
    (queue(dead_letters_to="arn:other"), "redrive", "fail", "arn:other"),
    (dead(retention=345_600), "redrive", "warn", "until 96 h"),
    (dead(visible=7), "messages", "warn", "DeadLetterQueue has 7 waiting"),
    (queue(oldest=4000), "messages", "warn", "4000 s old"),
    (queue(oldest=Unread("no right")), "messages", "skip", "no right"),
    (queue(in_flight=100_000), "messages", "warn", "near the quota"),
    (table(status="UPDATING"), "table", "warn", "UPDATING"),
    (table(indexes={}), "table", "fail", "'runs' is missing"),
    (table(expiry=None), "table", "fail", "AttributeName=expires"),
    (table(expiry="ttl"), "table", "fail", "on 'ttl'"),
    (table(expiry=Unread("no right")), "table", "skip", "no right"),
    (table(recovery=False), "table", "warn", "PointInTimeRecoveryEnabled=true"),
    (table(recovery=Unread("no right")), "table", "skip", "no right"),
    (replace(WELL, public_access=("BlockPublicAcls",)), "bucket", "fail", "BlockPublicAcls"),
    (replace(WELL, log_retention=None), "logs", "warn", "for ever"),
    (replace(WELL, rules=(RuleFacts("m", enabled=False, schedule="", targets=1),)), "schedule", "fail", "enable-rule"),
    (replace(WELL, rules=(RuleFacts("m", enabled=True, schedule="", targets=0),)), "schedule", "fail", "nothing."),
    (gone("table"), "table", "fail", "REVERT_DRIFT"),
    (gone("public_access"), "bucket", "fail", "REVERT_DRIFT"),
    (gone("log_retention"), "logs", "fail", "REVERT_DRIFT"),
    (gone("rules"), "schedule", "fail", "REVERT_DRIFT"),
    (replace(WELL, denied={"Worker": GONE}), "permissions", "fail", "REVERT_DRIFT"),
    (replace(WELL, queues={"Queue": GONE, "DeadLetterQueue": DEAD}), "messages", "fail", "REVERT_DRIFT"),
    (replace(WELL, failed_starts_to=None), "starts", "fail", "forgets"),
    (replace(WELL, failed_starts_to="arn:other"), "starts", "warn", "go to arn:other, not to shop-FailedStarts-1"),
    (
        replace(WELL, queues={**WELL.queues, "FailedStarts": replace(FAILED, visible=2)}),
        "messages", "warn", "2 waiting, 0 in flight: events that started nothing. `detent failed-starts`",
    ),
    (replace(WELL, alarms=(AlarmFacts("a", None, 0), AlarmFacts("b", "OK", 1))), "alarms", "fail", "a, which"),
    (replace(WELL, rules=()), "schedule", "fail", "no schedule"),
    (replace(WELL, alarms=(AlarmFacts("a", "ALARM", 1),)), "alarms", "warn", "a is in alarm"),
    (replace(WELL, alarms=(AlarmFacts("a", "OK", 0),)), "alarms", "warn", "1 of 1 alarms notify nobody"),
    (replace(WELL, alarms=()), "alarms", "warn", "no alarms"),
    (account(peak=800), "quotas", "warn", "800 of 1,000 invocations"),
    (account(code_size=79 * 10**9), "quotas", "warn", "near the quota"),
    (account(peak=Unread("no right")), "quotas", "skip", "no right"),
    (table(peak_writes=32_000.0), "quotas", "warn", "32,000 of 40,000 write units"),
    (table(peak_writes=Unread("no right")), "quotas", "skip", "no right"),
]  # fmt: skip


def named(fault: object) -> str:
    return fault if isinstance(fault, str) else ""


@pytest.mark.parametrize(("facts", "name", "verdict", "words"), FAULTS, ids=named)
def test_a_fault_is_found_with_what_mends_it(facts: StackFacts, name: str, verdict: str, words: str) -> None:
    found = [check for check in judge(facts) if check.verdict != "ok"]
    # What is gone is one fault; the other questions about it are skipped.
    behind = {(check.name, "skip") for check in found if verdict == "fail" and check.message == GONE.why}
    assert {(check.name, check.verdict) for check in found} - behind == {(name, verdict)}
    assert words in " ".join(f"{check.message} {check.fix} {check.command}" for check in found)
    assert verdict == "skip" or all(
        check.verdict == "skip" or (check.fix and check.message.endswith(".")) for check in found
    )


def test_a_stack_that_is_in_order_has_no_fault_and_every_question_says_so() -> None:
    found = list(judge(WELL))
    assert {check.verdict for check in found} == {"ok"}
    assert {check.verdict for check in judge(triggered())} == {"ok"}
    assert all(list(question(WELL)) for question in CHECKS)


def test_each_question_has_a_fault_here() -> None:
    """So that one added to the table is not forgotten."""

    def complains(question: Callable[[StackFacts], Any]) -> bool:
        return any(check.verdict != "ok" for facts, *_ in FAULTS for check in question(facts))

    assert [question.__name__ for question in CHECKS if not complains(question)] == []


ASKED_OF = {
    "clock": {"clock"},
    "functions": {
        "resources",
        "functions",
        "recursion",
        "runtime",
        "steps",
        "permissions",
        "visibility",
        "concurrency",
        "starts",
    },
    "mappings": {"recursion", "sources", "visibility", "concurrency"},
    "queues": {"visibility", "concurrency", "redrive", "starts", "messages"},
    "failed_starts_to": {"starts"},
    "table": {"table", "quotas"},
    "public_access": {"bucket"},
    "log_retention": {"logs"},
    "alarms": {"alarms"},
    "rules": {"schedule"},
    "account": {"concurrency", "quotas"},
    "table_quota": {"quotas"},
    "denied": {"permissions"},
    "steps": {"steps"},
}
"""Which questions a fact is needed for."""


@pytest.mark.parametrize(
    "fact", [each.name for each in fields(StackFacts) if each.name not in ("name", "region", "status", "resources")]
)
def test_what_could_not_be_read_is_skipped_with_the_reason_and_is_never_well(fact: str) -> None:
    """Every question that needs it says so, and none of them says that all is well."""
    why = Unread("AWS denied it", "Allow it.")
    value: Any = dict.fromkeys(getattr(WELL, fact), why) if fact in ("queues", "denied") else why
    found = list(judge(replace(WELL, **{fact: value})))
    skipped = [check for check in found if check.verdict == "skip"]
    assert {check.name for check in skipped} == ASKED_OF[fact]
    well = {check.name for check in found if check.verdict == "ok"}
    assert well & ASKED_OF[fact] <= {"quotas", "permissions"}, "which ask several things, each by itself"
    assert {check.verdict for check in found} == {"ok", "skip"}
    assert all((check.message, check.fix) == (why.why, why.fix) for check in skipped)


def test_a_limit_on_the_steps_timeout_is_the_engines() -> None:
    limit = WORKER.timeout - TIME_MARGIN / 1000
    fits = replace(WELL, steps=(StepTimeout("orders", "charge", limit), StepTimeout("orders", "ship", limit + 1)))
    assert [check.message.partition(" ")[0] for check in judge(fits) if check.verdict == "warn"] == ["orders.ship"]


def test_resources_and_permissions_are_those_of_the_template() -> None:
    made = set(template()["Resources"])
    # SAM makes these four kinds out of a function's properties.
    implied = {"StartUrl", "StartEventInvokeConfig", "TickMinute", "WorkerMessages", "DeadLettersMessages"}
    assert set(RESOURCES) - implied <= made
    for function, needs in NEEDED.items():
        assert {(need.action, need.on) for need in needs} == allowed(f"{function}Role")


def test_commands_stand_alone_so_that_they_can_be_copied() -> None:
    commands = [check.command for facts, *_ in FAULTS for check in judge(facts) if check.command]
    assert commands
    assert all(each.startswith("aws ") and each.endswith("--region eu-west-1") for each in commands)
    assert Finding("a", "ok", "b").command == ""
