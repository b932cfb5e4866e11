"""Every conditional write accepts the statuses that the tables name, under the right owner and lease, and no others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from detent_state_machine import transitions
from detent_state_machine.begin import begin
from detent_state_machine.decisions import Beginning, Ended, Fact, Go, HandOver, Here, Run, Transition, later
from detent_state_machine.definition import StepDefinition
from detent_state_machine.kinds import EventWait
from detent_state_machine.kinds.timer import At, Sleep, Timer
from detent_state_machine.records import ErrorInfo, NoRecord, Payload, Seen, StepRecord, seen_of
from detent_state_machine.run_transitions import RUN_TABLE
from detent_state_machine.status import Delivery, RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.transitions import STEP_TABLE, Change, wrote
from detent_state_machine.turn import Moment, Turn, Writer
from detent_state_machine.writes import Item, Key, UpdateItem, Value, apply, holds
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_000_000
LEASE = NOW + 30_000
EXPIRES = 2_000
STEP = StepDefinition(name="charge")
ONCE = StepDefinition(name="charge", delivery=Delivery.AT_MOST_ONCE)
PAUSE = StepDefinition(name="charge", kind=Timer(due=Sleep(seconds=60)))
PAST = StepDefinition(name="charge", kind=Timer(due=At(time=NOW)))
PAYMENT = StepDefinition(name="charge", kind=EventWait(event="paid"))
MISFIT = Fact(Key("events#paid#", "event#1#p"), Payload("1"), ErrorInfo("InputError", "it is not text"))
USED_UP = StepDefinition(name="charge", takeovers=0)
ERROR = ErrorInfo("Refused", "card refused")
PATH = StepPath("charge")
AT = Moment(NOW, EXPIRES, LEASE)
ME = Writer("run-1", PATH, "me", Turn.INLINE)
NOTHING = NoRecord(PATH)
GO = Go(lambda _: None)
HERE = Here(knows=True, arrived=NOW)
TERMINAL = [status for status in StepStatus if status.terminal]


def stored(status: StepStatus, *, owner: str = "other", lease: int = NOW, **more: Value) -> Item:
    item: dict[str, Value] = {"v": 1, "status": status.value, "owner": owner, "inline": False, "started": NOW - 50_000}
    if status is StepStatus.RUNNING:
        item["lease"] = lease
    if status is StepStatus.RETRYING:
        item |= {"due": NOW, "errors": 1}
    if status is StepStatus.WAITING:
        item["due"] = NOW
    return {**item, **more}


def decided(item: Item | None, step: StepDefinition = STEP, turn: Turn = Turn.AGAIN, token: str = "me") -> UpdateItem:
    """The write that follows from what is stored."""
    found = begun(item, step, turn, token)
    assert isinstance(found, Transition)
    return found.write


def begun(item: Item | None, step: StepDefinition = STEP, turn: Turn = Turn.AGAIN, token: str = "me") -> Beginning:
    here = replace(HERE, fact=MISFIT) if step is PAYMENT else HERE
    return begin(step, Writer("run-1", PATH, token, turn), seen_of(PATH, item), GO, here, AT)


def record(item: Item) -> StepRecord:
    return StepRecord.from_item(PATH, item)


# ---- conditions -------------------------------------------------------------------------------------------------

Accepts = Callable[[StepStatus | None, str, int], bool]
"""By status (None: no record), owner and lease."""


@dataclass(frozen=True)
class Case:
    """A write, and what it should accept."""

    change: Change
    name: str
    write: UpdateItem
    accepts: Accepts


def where_missing(status: StepStatus | None, owner: str, lease: int) -> bool:
    return status is None


def where_mine(status: StepStatus | None, owner: str, lease: int) -> bool:
    return status is StepStatus.RUNNING and owner == "me"


def where_missing_or_mine(status: StepStatus | None, owner: str, lease: int) -> bool:
    return status is None or where_mine(status, owner, lease)


def where_expired(status: StepStatus | None, owner: str, lease: int) -> bool:
    return status is StepStatus.RUNNING and owner == "other" and lease <= NOW


def where_running(status: StepStatus | None, owner: str, lease: int) -> bool:
    return status is StepStatus.RUNNING and owner == "other"


def where_retrying(status: StepStatus | None, owner: str, lease: int) -> bool:
    return status is StepStatus.RETRYING and owner == "other"


def where_waiting(status: StepStatus | None, owner: str, lease: int) -> bool:
    return status is StepStatus.WAITING and owner == "other"


MINE = record(stored(StepStatus.RUNNING, owner="me"))
"""What a writer has seen that claimed the step run, or renewed its lease."""


def owned(seen: Seen) -> Iterator[tuple[Change, UpdateItem]]:
    yield Change.HEARTBEAT, transitions.heartbeat(ME, seen, AT, started=NOW)
    yield Change.COMPLETE, transitions.complete(ME, seen, AT, started=1, output=Payload("1"))
    yield Change.RETRY, transitions.retry(ME, seen, AT, started=1, due=3, error=ERROR)
    yield Change.FAIL, transitions.fail(ME, seen, AT, started=1, error=ERROR)


def cases() -> Iterator[Case]:
    running, retrying = stored(StepStatus.RUNNING), stored(StepStatus.RETRYING)
    waiting = stored(StepStatus.WAITING)
    yield Case(Change.CLAIM, "claim", transitions.claim(ME, NOTHING, AT), where_missing)
    yield Case(Change.SKIP, "skip", transitions.skip(ME, NOTHING, AT), where_missing)
    yield Case(Change.RECLAIM, "reclaim", decided(retrying), where_retrying)
    yield Case(Change.TAKE_OVER, "take over", decided(running), where_expired)
    for change, write in owned(MINE):
        yield Case(change, f"{change} held", write, where_mine)
    for change, write in owned(NOTHING):
        yield Case(change, f"{change} unheld", write, where_missing_or_mine)
    for seen in (NOTHING, MINE):
        yield Case(Change.CANCEL, f"cancel {seen}", transitions.cancel(ME, seen, AT, started=1), where_mine)
    yield Case(Change.RELEASE, "release", transitions.release(ME, MINE, AT), where_mine)
    for name, item, accepts in (
        ("missing", None, where_missing),
        ("running", running, where_running),
        ("retrying", retrying, where_retrying),
        ("waiting", waiting, where_waiting),
    ):
        yield Case(Change.CLOSE, f"close {name}", transitions.close(ME, seen_of(PATH, item), AT), accepts)
    for name, item, accepts in (
        ("missing", None, where_missing),
        ("running", running, where_expired),
        ("retrying", retrying, where_retrying),
    ):
        yield Case(Change.GIVE_UP, f"give up {name}", transitions.give_up(ME, seen_of(PATH, item), AT), accepts)
    for turn in Turn:
        yield Case(Change.WAIT, f"wait {turn}", decided(None, PAUSE, turn), where_missing)
        yield Case(Change.MEET, f"meet, due when it is reached {turn}", decided(None, PAST, turn), where_missing)
        yield Case(Change.MEET, f"meet {turn}", decided(waiting, PAUSE, turn), where_waiting)
        yield Case(Change.REFUSE, f"refuse {turn}", decided(waiting, PAYMENT, turn), where_waiting)
    for step, change in ((STEP, Change.REVIVE), (USED_UP, Change.INTERRUPT)):
        yield Case(change, f"{change} missing", decided(None, step, Turn.DEAD), where_missing)
        yield Case(change, f"{change} running", decided(running, step, Turn.DEAD), where_expired)
        yield Case(change, f"{change} retrying", decided(retrying, step, Turn.DEAD), where_retrying)
    for turn in (Turn.AGAIN, Turn.DEAD):
        yield Case(Change.INTERRUPT, f"interrupt once {turn}", decided(running, ONCE, turn), where_expired)


CASES = list(cases())
SITUATIONS = list(itertools.product([None, *StepStatus], ["me", "other", "third"], [NOW - 1, NOW, NOW + 1]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_write_is_accepted_in_exactly_the_situations_of_its_transition(case: Case) -> None:
    for status, owner, lease in SITUATIONS:
        item = None if status is None else stored(status, owner=owner, lease=lease)
        assert holds(case.write.expect, item) == case.accepts(status, owner, lease), (status, owner, lease)


@pytest.mark.parametrize("change", Change)
def test_the_statuses_that_the_writes_of_a_transition_accept_are_those_of_the_table(change: Change) -> None:
    accepted = {
        status
        for case in CASES
        for status, owner, lease in SITUATIONS
        if case.change is change
        and holds(case.write.expect, None if status is None else stored(status, owner=owner, lease=lease))
    }
    assert accepted == set(STEP_TABLE[change].sources)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_write_leads_to_the_status_of_the_table_under_my_token_and_can_be_read(case: Case) -> None:
    for status, owner, lease in SITUATIONS:
        item = None if status is None else stored(status, owner=owner, lease=lease)
        if holds(case.write.expect, item):
            after = apply(case.write, item)
            assert after is not None
            assert after["status"] == STEP_TABLE[case.change].target.value
            assert after["owner"] == "me"
            assert record(after).status is STEP_TABLE[case.change].target
            assert ("lease" in after) == (STEP_TABLE[case.change].target is StepStatus.RUNNING)
            assert wrote(ME, case.write, after)


def test_no_transition_leads_out_of_a_terminal_status() -> None:
    assert not {source for sources, _, _ in STEP_TABLE.values() for source in sources} & set(TERMINAL)
    ended = {status for status in RunStatus if not status.live}
    assert not {source for sources, _ in RUN_TABLE.values() for source in sources} & ended


def test_every_status_can_be_reached() -> None:
    assert {target for _, target, _ in STEP_TABLE.values()} == set(StepStatus)
    assert {target for _, target in RUN_TABLE.values()} | {RunStatus.RUNNING} == set(RunStatus)


# ---- what the writes record -----------------------------------------------------------------------------------------


def test_an_inline_step_that_stays_short_is_complete_with_one_write() -> None:
    write = transitions.complete(ME, NOTHING, Moment(7, EXPIRES), started=5, output=Payload("42"))
    after = apply(write, None)
    assert after is not None
    assert record(after) == StepRecord(
        PATH, StepStatus.COMPLETED, "me", True, started=5, ended=7, expires=EXPIRES, output=Payload("42")
    )


def test_a_claim_from_a_message_says_so_and_a_later_commit_keeps_it() -> None:
    me = replace(ME, turn=Turn.AGAIN)
    claimed = apply(transitions.claim(me, NOTHING, AT), None)
    after = apply(transitions.complete(me, seen_of(PATH, claimed), AT, started=1, output=Payload("1")), claimed)
    assert after is not None
    assert after["inline"] is False


def test_a_failed_attempt_is_counted_and_kept_in_the_history() -> None:
    seen = record(stored(StepStatus.RUNNING, owner="me", errors=1, takeovers=2))
    write = transitions.retry(ME, seen, Moment(20, EXPIRES), started=10, due=500, error=ERROR)
    after = record(apply(write, stored(StepStatus.RUNNING, owner="me", errors=1, takeovers=2)) or {})
    assert (after.errors, after.takeovers, after.due) == (2, 2, 500)
    assert after.attempt == 4
    assert [(past.started, past.ended, past.error) for past in after.history] == [(10, 20, "Refused: card refused")]


def test_the_number_of_the_attempt_counts_errors_and_lost_workers() -> None:
    item: Item | None = apply(transitions.claim(ME, NOTHING, Moment(NOW, EXPIRES, NOW)), None)
    assert item is not None
    attempts = [record(item).attempt]
    item = apply(transitions.retry(ME, record(item), AT, started=1, due=NOW, error=ERROR), item)
    assert item is not None
    attempts.append(record(item).attempt)
    for _ in range(2):  # the retry is claimed, its worker is lost, another one takes over
        item = apply(decided({**item, "owner": "other", "lease": NOW}), item)
        assert item is not None
        attempts.append(record(item).attempt)
    item = apply(transitions.fail(ME, record(item), AT, started=1, error=ERROR), item)
    assert attempts == [1, 1, 2, 3]
    assert record(item or {}).attempt == 3


@pytest.mark.parametrize("turn", [Turn.AGAIN, Turn.DEAD])
def test_an_interrupted_attempt_is_counted(turn: Turn) -> None:
    item = stored(StepStatus.RUNNING)
    after = record(apply(decided(item, ONCE, turn), item) or {})
    assert after.attempt == 1
    assert after.error is not None
    assert len(after.history) == 1


def test_a_dead_letter_of_a_due_retry_counts_no_attempt_twice() -> None:
    item = stored(StepStatus.RETRYING)
    after = record(apply(decided(item, USED_UP, Turn.DEAD), item) or {})
    assert (after.attempt, after.due) == (1, 0)


# ---- after a refused claim ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [Turn.AGAIN, Turn.DEAD])
@pytest.mark.parametrize("owner", ["me", "other"])
@pytest.mark.parametrize("status", TERMINAL)
def test_a_step_that_has_ended_has_ended_for_everybody(status: StepStatus, owner: str, turn: Turn) -> None:
    item = stored(status, owner=owner)
    assert begun(item, turn=turn) == Ended(record(item))


@pytest.mark.parametrize("turn", [Turn.AGAIN, Turn.DEAD])
@pytest.mark.parametrize("step", [STEP, ONCE], ids=["at least once", "at most once"])
def test_a_live_lease_is_waited_for(step: StepDefinition, turn: Turn) -> None:
    assert begun(stored(StepStatus.RUNNING, lease=NOW + 1), step, turn=turn) == HandOver((later(PATH, NOW + 1, NOW),))


@pytest.mark.parametrize("turn", [Turn.AGAIN, Turn.DEAD])
def test_a_retry_that_is_not_due_is_waited_for(turn: Turn) -> None:
    assert begun(stored(StepStatus.RETRYING, due=NOW + 1), turn=turn) == HandOver((later(PATH, NOW + 1, NOW),))


def test_a_due_retry_is_claimed_and_not_counted_as_a_take_over() -> None:
    item = stored(StepStatus.RETRYING, due=NOW, takeovers=1)
    after = apply(decided(item), item)
    assert after is not None
    assert (after["takeovers"], after["errors"], after["lease"], after["started"]) == (1, 1, LEASE, NOW)
    assert "due" not in after


def test_my_own_claim_whose_reply_was_lost_is_mine() -> None:
    item = stored(StepStatus.RUNNING, owner="me", lease=LEASE)
    assert begun(item) == Run(record(item))
    assert begun(item, ONCE) == Run(record(item))


def test_an_expired_lease_is_taken_over_and_the_lost_worker_is_recorded() -> None:
    item = stored(StepStatus.RUNNING, takeovers=4, errors=2)
    after = record(apply(decided(item), item) or {})
    assert (after.status, after.owner, after.takeovers, after.errors) == (StepStatus.RUNNING, "me", 5, 2)
    assert (after.lease, after.inline) == (LEASE, False)
    assert after.history[-1].error.startswith("LostLease")


def test_at_the_cap_of_take_overs_the_step_is_interrupted() -> None:
    item = stored(StepStatus.RUNNING, takeovers=5)
    ended = record(apply(decided(item), item) or {})
    assert ended.status is StepStatus.FAILED
    assert ended.error is not None
    assert ended.error.type == "Interrupted"
    assert "6 workers" in ended.error.message
    assert ended.attempt == 6


def test_a_step_without_take_overs_is_interrupted_at_the_first_lost_worker() -> None:
    item = stored(StepStatus.RUNNING)
    assert record(apply(decided(item, USED_UP), item) or {}).status is StepStatus.FAILED


def test_an_at_most_once_body_is_never_run_again() -> None:
    error = str(decided(stored(StepStatus.RUNNING), ONCE).set["error"])
    assert "Interrupted" in error
    assert "at_most_once" in error


CLAIMABLE = [None, stored(StepStatus.RUNNING, takeovers=2), stored(StepStatus.RETRYING, takeovers=2)]


@pytest.mark.parametrize(
    ("step", "item"),
    [*((STEP, item) for item in CLAIMABLE), (ONCE, CLAIMABLE[0]), (ONCE, CLAIMABLE[2])],
    ids=["missing", "expired", "due", "missing once", "due once"],
)
def test_a_dead_letter_of_what_could_be_claimed_lets_it_begin_again_and_counts_a_take_over(
    step: StepDefinition, item: Item | None
) -> None:
    seen = seen_of(PATH, item)
    after = record(apply(decided(item, step, Turn.DEAD), item) or {})
    assert (after.status, after.due, after.takeovers) == (StepStatus.RETRYING, NOW, seen.takeovers + 1)
    assert after.errors == seen.errors, "the retry policy does not hear of it"
    assert after.history[-1].error.startswith("DeadLetter")
    assert decided(apply(decided(item, step, Turn.DEAD), item), step).set["status"] == StepStatus.RUNNING


@pytest.mark.parametrize("item", CLAIMABLE, ids=["missing", "expired", "due"])
def test_a_dead_letter_ends_what_may_not_begin_again(item: Item | None) -> None:
    used_up = StepDefinition(name="charge", takeovers=seen_of(PATH, item).takeovers)
    write = decided(item, used_up, Turn.DEAD)
    assert write.set["status"] == StepStatus.FAILED
    assert "DeadLetter" in str(write.set["error"])
    assert f"takeovers={used_up.takeovers} allow" in str(write.set["error"])


def test_a_dead_letter_ends_an_at_most_once_step_whose_body_may_have_begun() -> None:
    write = decided(stored(StepStatus.RUNNING), ONCE, Turn.DEAD)
    assert "DeadLetter" in str(write.set["error"])
    assert "at_most_once" in str(write.set["error"])


def test_of_two_dead_letters_of_one_step_run_the_second_is_refused() -> None:
    item = stored(StepStatus.RUNNING)
    first, second = (decided(item, STEP, Turn.DEAD, token) for token in ("first", "second"))
    assert not holds(second.expect, apply(first, item))


def test_the_owner_of_an_expired_lease_that_renews_it_refuses_the_take_over() -> None:
    item = stored(StepStatus.RUNNING)
    take_over = decided(item)
    owner = replace(ME, token="other")
    renewed = apply(transitions.heartbeat(owner, record(item), Moment(NOW, EXPIRES, NOW + 1), started=1), item)
    assert not holds(take_over.expect, renewed)


def test_of_two_take_overs_of_one_lease_the_second_is_refused() -> None:
    item = stored(StepStatus.RUNNING)
    first, second = (decided(item, token=token) for token in ("first", "second"))
    assert holds(first.expect, item)
    assert not holds(second.expect, apply(first, item))


def test_only_my_token_with_the_status_i_wrote_is_my_own_write() -> None:
    write = transitions.complete(ME, NOTHING, AT, started=1, output=Payload("1"))
    assert wrote(ME, write, stored(StepStatus.COMPLETED, owner="me"))
    assert not wrote(ME, write, stored(StepStatus.COMPLETED, owner="other"))
    assert not wrote(ME, write, stored(StepStatus.FAILED, owner="me"))
    assert not wrote(ME, write, None)


# ---- any sequence of writes -------------------------------------------------------------------------------------


def all_writes(me: Writer, seen: Seen, now: int) -> list[UpdateItem]:
    """Every write that this writer could send, having seen this record."""
    at = Moment(now, EXPIRES, now + 10)
    writes = [
        transitions.claim(me, NOTHING, at),
        transitions.skip(me, NOTHING, at),
        transitions.cancel(me, seen, at, started=now),
        transitions.heartbeat(me, seen, at, started=now),
        transitions.complete(me, seen, at, started=now, output=Payload("1")),
        transitions.retry(me, seen, at, started=now, due=now + 5, error=ERROR),
        transitions.fail(me, seen, at, started=now, error=ERROR),
    ]
    if isinstance(seen, NoRecord) or not seen.terminal:
        writes.append(transitions.interrupt(me, seen, at, ERROR))
    for turn in (Turn.AGAIN, Turn.DEAD):
        found = begin(STEP, replace(me, turn=turn), seen, GO, HERE, at)
        if isinstance(found, Transition):
            writes.append(found.write)
    return writes


moves = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 9), st.integers(0, 3), st.sampled_from([0, 1, 20]))


@given(st.lists(moves, max_size=30))
@settings(max_examples=300)
def test_whatever_writers_send_however_late_a_terminal_record_never_changes(
    sequence: list[tuple[str, int, int, int]],
) -> None:
    states: list[Item | None] = [None]
    now = NOW
    for token, choice, age, passed in sequence:
        now += passed
        seen = states[max(0, len(states) - 1 - age)]  # a read of long ago
        writes = all_writes(Writer("run-1", PATH, token, Turn.AGAIN), seen_of(PATH, seen), now)
        write = writes[choice % len(writes)]
        before = states[-1]
        if holds(write.expect, before):
            states.append(apply(write, before))
            assert before is None or not record(before).status.terminal
            after = record(states[-1] or {})
            source = None if before is None else record(before).status
            assert any(source in sources and after.status is target for sources, target, _ in STEP_TABLE.values())


@pytest.mark.parametrize("turn", Turn)
def test_a_record_says_from_its_first_write_on_when_it_is_dropped(turn: Turn) -> None:
    # Its run may end, by a cancel or another step's failure, with nobody coming back to this one.
    writes = all_writes(Writer("run-1", PATH, "a", turn), NOTHING, NOW)
    first = [apply(write, None) for write in writes if holds(write.expect, None)]
    assert len(first) >= 8
    assert {item["expires"] for item in first if item} == {EXPIRES}


@pytest.mark.parametrize("status", TERMINAL)
def test_a_step_that_was_seen_to_have_ended_cannot_be_interrupted(status: StepStatus) -> None:
    with pytest.raises(ValueError, match="there is no interrupt from there"):
        transitions.interrupt(ME, record(stored(status)), AT, ERROR)
