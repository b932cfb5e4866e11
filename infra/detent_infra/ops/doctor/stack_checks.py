"""Checks of a deployed stack: one function per question, over facts, all of them in the table `CHECKS`.

Nothing here asks AWS anything. What could not be read is a `skip` with the reason, never an `ok`; what is not there
though the stack lists it is a `fail`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from detent_state_machine.kinds.call import TIME_MARGIN

from detent_infra.aws.table import INDEX
from detent_infra.ops.doctor import queue_checks
from detent_infra.ops.doctor.findings import Finding
from detent_infra.ops.doctor.judgement import AGAIN, NEAR, REVERT, aws, or_well, skipped, when_read
from detent_infra.ops.packaging.target import OLDEST
from detent_infra.ops.stack.facts import (
    AccountFacts,
    AlarmFacts,
    FunctionFacts,
    Needed,
    RuleFacts,
    StackFacts,
    TableFacts,
    Unread,
)
from detent_infra.ops.stack.permissions import NEEDED

RESOURCES = (
    "Table", "Bucket", "Queue", "DeadLetterQueue", "FailedStarts", "Logs",
    "Worker", "WorkerMessages", "Start", "StartUrl", "StartEventInvokeConfig", "Tick", "TickMinute",
    "DeadLetters", "DeadLettersMessages",
)  # fmt: skip
"""What the template makes, by logical name. An emulator's stack may be complete and lack one; people delete others."""
EXPIRES = "expires"
SKEW, REFUSED_SKEW = 5, 300
"""Seconds: what a lease of 30 s bears, and where AWS refuses a signature."""
LITTLE_MEMORY = 256
"""MB."""


def judge(facts: StackFacts) -> Iterator[Finding]:
    """Every finding, in the order of the table."""
    for question in CHECKS:
        yield from question(facts)


# ---- the stack ------------------------------------------------------------------------------------------------


def _stack(facts: StackFacts) -> Iterator[Finding]:
    said = f"{facts.name} in {facts.region} is {facts.status}"
    if facts.status.endswith("_FAILED"):
        why = aws(facts, f"cloudformation describe-stack-events --stack-name {facts.name}")
        yield Finding("stack", "fail", f"{said}.", "Its events say why. Fix that, and deploy again.", why)
    elif facts.status.endswith("_IN_PROGRESS"):
        yield Finding("stack", "warn", f"{said}.", "A deploy is under way: look again when it is done.")
    elif facts.status == "ROLLBACK_COMPLETE":
        why = aws(facts, f"cloudformation describe-stack-events --stack-name {facts.name}")
        fix = "Its events say why. Delete the stack, and deploy again."
        yield Finding("stack", "fail", f"{said}: its first deploy failed and was undone, so nothing runs.", fix, why)
    elif "ROLLBACK" in facts.status:
        yield Finding("stack", "warn", f"{said}.", "The last deploy failed and was undone: the one before it runs.")
    else:
        yield Finding("stack", "ok", said)


def _resources(facts: StackFacts) -> Iterator[Finding]:
    if missing := [name for name in RESOURCES if not facts.resources.get(name)]:
        yield Finding("resources", "fail", f"The stack lacks {', '.join(missing)}.", "Deploy detent's template again.")

    def judged(functions: tuple[FunctionFacts, ...]) -> Iterator[Finding]:
        found = {each.logical for each in functions}
        if gone := [name for name in NEEDED if name in facts.resources and name not in found]:
            said = f"The stack lists {', '.join(gone)}, and AWS has no such function of detent's: changed by hand."
            yield Finding("resources", "fail", said, REVERT)
        elif not missing:
            yield Finding("resources", "ok", f"{len(facts.resources)}, with all that detent needs")

    yield from when_read("resources", facts.functions, judged)


def _clock(facts: StackFacts) -> Iterator[Finding]:
    def judged(ahead: float) -> Iterator[Finding]:
        said = f"This machine is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS."
        if abs(ahead) >= REFUSED_SKEW:
            yield Finding("clock", "fail", said, "Set it by NTP: AWS refuses requests that are 5 minutes off.")
        elif abs(ahead) >= SKEW:
            yield Finding("clock", "warn", said, "Set it by NTP: a worker on it would misjudge leases, which are 30 s.")

    well = "this machine's is in step with AWS, to a second or two"
    return when_read("clock", facts.clock, lambda ahead: or_well("clock", judged(ahead), well))


# ---- functions ------------------------------------------------------------------------------------------------


def _functions(facts: StackFacts) -> Iterator[Finding]:
    def judged(functions: Iterable[FunctionFacts]) -> Iterator[Finding]:
        for each in functions:
            if "Failed" in (each.state, each.update):
                why = aws(facts, f"lambda get-function-configuration --function-name {each.name}")
                said = f"{each.logical} is {each.state}, and its last update {each.update}."
                yield Finding("functions", "fail", said, "Its configuration says why.", why)
            elif each.update == "InProgress" or each.state == "Pending":
                yield Finding("functions", "warn", f"{each.logical} is being updated.", "Look again in a minute.")
            if each.url_auth == "NONE":
                close = f"lambda update-function-url-config --function-name {each.name} --auth-type AWS_IAM"
                said = f"Anybody may call the URL of {each.logical}: it asks for no signature."
                yield Finding("functions", "fail", said, "Demand one.", aws(facts, close))
            if each.logical == "Start" and each.url_auth is None and "StartUrl" in facts.resources:
                yield Finding("functions", "fail", "The URL of Start, which the stack lists, is gone.", REVERT)

    def well(functions: tuple[FunctionFacts, ...]) -> Iterator[Finding]:
        return or_well("functions", judged(functions), ", ".join(each.logical for each in functions))

    return when_read("functions", facts.functions, well)


def _recursion(facts: StackFacts) -> Iterator[Finding]:
    """Of the functions that a queue invokes: a chain is counted where it comes back to one."""
    if isinstance(facts.mappings, Unread):
        return skipped("recursion", facts.mappings)
    fed = {each.function for each in facts.mappings}

    def judged(functions: Iterable[FunctionFacts]) -> Iterator[Finding]:
        for each in (each for each in functions if each.logical in fed):
            if isinstance(each.recursive_loop, Unread):
                yield Finding("recursion", "skip", each.recursive_loop.why, each.recursive_loop.fix)
            elif each.recursive_loop != "Allow":
                allow = f"lambda put-function-recursion-config --function-name {each.name} --recursive-loop Allow"
                said = (
                    f"Lambda stops {each.logical} after about 16 messages in a chain (RecursiveLoop is "
                    f"{each.recursive_loop}): longer runs end among the dead letters."
                )
                yield Finding("recursion", "fail", said, "Allow it.", aws(facts, allow))

    def well(functions: tuple[FunctionFacts, ...]) -> Iterator[Finding]:
        return or_well("recursion", judged(functions), "allowed, for chains of more than 16 messages")

    return when_read("recursion", facts.functions, well)


def _runtime(facts: StackFacts) -> Iterator[Finding]:
    def judged(functions: tuple[FunctionFacts, ...]) -> Iterator[Finding]:
        for each in functions:
            version = re.fullmatch(r"python(\d+)\.(\d+)", each.runtime)
            if version is None or (int(version[1]), int(version[2])) < OLDEST:
                said = f"{each.logical} runs on {each.runtime or 'no managed runtime'}."
                yield Finding("runtime", "fail", said, "detent needs python3.11 or newer. " + AGAIN)
            if each.memory < LITTLE_MEMORY:
                said = f"{each.logical} has {each.memory} MB: it starts in seconds rather than one."
                yield Finding("runtime", "warn", said, f"Give it {LITTLE_MEMORY} MB or more (`WorkerMemory`).")
        if len(kinds := sorted({f"{each.runtime} on {each.architecture}" for each in functions})) > 1:
            said = f"The functions differ: {', '.join(kinds)}."
            yield Finding("runtime", "fail", said, "Their one folder of code fits one of these. " + AGAIN)

    def well(functions: tuple[FunctionFacts, ...]) -> Iterator[Finding]:
        kind = "".join(sorted({f"{each.runtime} on {each.architecture}; " for each in functions}))
        said = kind + ", ".join(f"{each.logical} {each.memory} MB" for each in functions)
        return or_well("runtime", judged(functions), said)

    return when_read("runtime", facts.functions, well)


def _steps(facts: StackFacts) -> Iterator[Finding]:
    """An attempt is cut off at the end of its invocation, whatever its own timeout."""
    if isinstance(facts.functions, Unread) or isinstance(facts.steps, Unread):
        yield from skipped("steps", facts.functions, facts.steps)
        return
    worker = next((each for each in facts.functions if each.logical == "Worker"), None)
    if not facts.steps:
        fix = "`detent deploy` registers the app's, and the tick each minute: if it does not, its log says why."
        yield Finding("steps", "warn", "No workflow is registered.", fix)
    elif worker is not None:
        longest = worker.timeout - TIME_MARGIN // 1000
        for each in (each for each in facts.steps if each.timeout > longest):
            said = (
                f"{each.workflow}.{each.step} may take {each.timeout:g} s, but an invocation of the worker ends after "
                f"{worker.timeout} s: an attempt gets {longest} s at most."
            )
            fix = "Raise `WorkerTimeout` (900 s at most), or work on it outside of Lambda, with `detent worker`."
            yield Finding("steps", "warn", said, fix)
        slowest = max(facts.steps, key=lambda each: each.timeout)
        if slowest.timeout <= longest:
            said = f"the longest may take {slowest.timeout:g} s, which fits into the worker's {worker.timeout} s"
            yield Finding("steps", "ok", f"{len(facts.steps)} steps; {said}")


def _permissions(facts: StackFacts) -> Iterator[Finding]:
    yield from skipped("permissions", facts.functions)
    for function, denied in facts.denied.items():
        yield from when_read("permissions", denied, lambda d, f=function: _denied(f, d))  # type: ignore[misc]


def _denied(function: str, denied: tuple[Needed, ...]) -> Iterator[Finding]:
    if not denied:
        yield Finding("permissions", "ok", f"{function} may do what it has to, by IAM's simulation of its role")
        return
    by_resource = groupby(denied, lambda each: each.on)
    said = "; ".join(f"{', '.join(each.action for each in group)} on {on}" for on, group in by_resource)
    fix = AGAIN + " If it did, a boundary or a policy of the organisation forbids it."
    yield Finding("permissions", "fail", f"The role of {function} may not {said}.", fix)


# ---- what is kept ---------------------------------------------------------------------------------------------


def _table(facts: StackFacts) -> Iterator[Finding]:
    def well(table: TableFacts) -> Iterator[Finding]:
        return or_well("table", _table_lacks(facts, table), f"{table.name}: index, expiry and backups are on")

    return when_read("table", facts.table, well)


def _table_lacks(facts: StackFacts, table: TableFacts) -> Iterator[Finding]:
    if table.status != "ACTIVE":
        yield Finding("table", "warn", f"{table.name} is {table.status}.", "Look again in a minute.")
    if (index := table.indexes.get(INDEX, "missing")) != "ACTIVE":
        yield Finding(
            "table", "fail", f"Its index {INDEX!r} is {index}: runs cannot be listed, nor found again.", AGAIN
        )
    if isinstance(table.expiry, Unread):
        yield Finding("table", "skip", table.expiry.why, table.expiry.fix)
    elif table.expiry != EXPIRES:
        said = "off" if table.expiry is None else f"on {table.expiry!r}"
        specification = f"--time-to-live-specification Enabled=true,AttributeName={EXPIRES}"
        turn_on = f"dynamodb update-time-to-live --table-name {table.name} {specification}"
        said = f"It keeps ended runs for ever: time to live is {said}."
        yield Finding("table", "fail", said, "Turn it on.", aws(facts, turn_on))
    if isinstance(table.recovery, Unread):
        yield Finding("table", "skip", table.recovery.why, table.recovery.fix)
    elif not table.recovery:
        specification = "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
        turn_on = f"dynamodb update-continuous-backups --table-name {table.name} {specification}"
        yield Finding("table", "warn", "It has no point-in-time recovery.", "Turn it on.", aws(facts, turn_on))


def _bucket(facts: StackFacts) -> Iterator[Finding]:
    def judged(missing: tuple[str, ...]) -> Iterator[Finding]:
        if missing:
            yield Finding("bucket", "fail", f"It does not block public access: {', '.join(missing)}.", AGAIN)
        else:
            yield Finding("bucket", "ok", "public access is blocked")

    return when_read("bucket", facts.public_access, judged)


def _logs(facts: StackFacts) -> Iterator[Finding]:
    def judged(days: int | None) -> Iterator[Finding]:
        if days is None:
            yield Finding(
                "logs", "warn", "Log lines are kept, and paid for, for ever.", AGAIN + " (`LogRetentionDays`)"
            )
        else:
            yield Finding("logs", "ok", f"kept for {days} days")

    return when_read("logs", facts.log_retention, judged)


# ---- who acts, who is told, and how much there is ---------------------------------------------------------------


def _rules(facts: StackFacts) -> Iterator[Finding]:
    return when_read("schedule", facts.rules, lambda rules: _ticks(facts, rules))


def _ticks(facts: StackFacts, rules: tuple[RuleFacts, ...]) -> Iterator[Finding]:
    if not rules:
        yield Finding("schedule", "fail", "The stack has no schedule: nothing invokes the tick.", AGAIN)
    for each in rules:
        if not each.enabled:
            said = f"{each.name} is switched off: runs that lost their message stay so, and nothing is registered."
            enable = aws(facts, f"events enable-rule --name {each.name}")
            yield Finding("schedule", "fail", said, "Switch it on.", enable)
        elif not each.targets:
            yield Finding("schedule", "fail", f"{each.name} invokes nothing.", AGAIN)
        else:
            yield Finding("schedule", "ok", f"{each.schedule} invokes the tick")


def _alarms(facts: StackFacts) -> Iterator[Finding]:
    return when_read("alarms", facts.alarms, _listening)


def _listening(alarms: tuple[AlarmFacts, ...]) -> Iterator[Finding]:
    for each in alarms:
        if each.state is None:
            yield Finding(
                "alarms", "fail", f"{each.name}, which the stack lists, is not there: deleted by hand.", REVERT
            )
        elif each.state == "ALARM":
            yield Finding("alarms", "warn", f"{each.name} is in alarm.", "Its description says what that means.")
    there = [each for each in alarms if each.state is not None]
    if silent := [each.name for each in there if not each.actions]:
        said = f"{len(silent)} of {len(there)} alarms notify nobody."
        yield Finding("alarms", "warn", said, "Deploy with `AlarmTopic`, the ARN of an SNS topic that somebody reads.")
    elif there and not any(each.state in (None, "ALARM") for each in alarms):
        yield Finding("alarms", "ok", f"{len(there)}, none in alarm, and each has somebody to tell")
    elif not alarms:
        yield Finding("alarms", "warn", "The stack has no alarms.", AGAIN)


def _quotas(facts: StackFacts) -> Iterator[Finding]:
    yield from when_read("quotas", facts.account, _account_quotas)
    peak = facts.table if isinstance(facts.table, Unread) else facts.table.peak_writes
    if isinstance(peak, Unread) or isinstance(facts.table_quota, Unread):
        yield from skipped("quotas", peak, facts.table_quota)
    else:
        yield _share("write units a second of the table", peak or 0, facts.table_quota)


def _account_quotas(account: AccountFacts) -> Iterator[Finding]:
    if isinstance(account.peak, Unread):
        yield Finding("quotas", "skip", account.peak.why, account.peak.fix)
    else:
        yield _share("invocations at once, of all functions of the account", account.peak or 0, account.concurrency)
    yield _share("bytes of functions' code", account.code_size, account.code_limit)


def _share(what: str, used: float, quota: float) -> Finding:
    said = f"{used:,.0f} of {quota:,.0f} {what}"
    if quota and used >= NEAR * quota:
        return Finding("quotas", "warn", f"{said}: near the quota.", "Ask for more in the Service Quotas console.")
    return Finding("quotas", "ok", said)


CHECKS: tuple[Callable[[StackFacts], Iterator[Finding]], ...] = (
    _stack,
    _resources,
    _clock,
    _functions,
    _recursion,
    _runtime,
    _steps,
    _permissions,
    *queue_checks.CHECKS,
    _table,
    _bucket,
    _logs,
    _rules,
    _alarms,
    _quotas,
)
