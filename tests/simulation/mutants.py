"""Rules of the engine, each with a change that breaks it and the tests that must notice.

`python -m tests.simulation.mutants [--only WORDS]`: tests that cannot fail prove nothing, so each mutant is applied to
a copy of the source tree, its tests are run there, and every one of them must fail. A test holds the list to the
source: what a mutant replaces must occur exactly once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.simulation.mutant import BEGIN, CALL, CORE, ENGINE, FOLLOW, SEEDS, TRANSITIONS, Mutant
from tests.simulation.mutants_of_waits import OF_WAITS

ROOT = Path(__file__).parents[2]
SOURCES = ("state_machine", "infra", "sdk/python")
REGRESSIONS = (
    *(
        f"tests/simulation/test_regressions_{part}.py"
        for part in ("ownership", "ends", "leftovers", "replies", "waits")
    ),
    "tests/simulation/test_invocations.py",
    "tests/scenarios/test_engine_edges.py",
    "tests/scenarios/test_timers.py",
)
MAX_SECONDS = 300.0


MUTANTS = (
    *OF_WAITS,
    Mutant(
        "a commit is fenced by its owner",
        TRANSITIONS,
        "return AnyOf((Missing(), mine)) if MISSING in sources and not _held(me, seen) else mine",
        "return AnyOf((Missing(), Equals('status', StepStatus.RUNNING.value)))",
        ("a_zombie_commits_nothing_and_deletes_nothing", SEEDS),
    ),
    Mutant(
        "a heartbeat is fenced by its owner",
        TRANSITIONS,
        'return _step(Change.HEARTBEAT, me, seen, at, {**new, "lease": at.lease})',
        'write = _step(Change.HEARTBEAT, me, seen, at, {**new, "lease": at.lease})\n'
        "    return UpdateItem(write.key, None, write.set)",
        ("a_worker_that_lost_its_lease_learns_of_it_at_its_next_heartbeat_and_stops", SEEDS),
    ),
    Mutant(
        "a message is not acknowledged before what follows is sent",
        ENGINE + "loop.py",
        "            await send(self.backend, session.run.run_id, others)",
        """            with __import__("contextlib").suppress(Exception):
                await send(self.backend, session.run.run_id, others)""",
        ("nothing_is_acknowledged_before_what_follows_is_sent", SEEDS),
    ),
    Mutant(
        "who has lost its lease deletes nothing",
        ENGINE + "loop.py",
        """                    session.lines.log_event(line)
                    return False""",
        """                    session.lines.log_event(line)
                    return True""",
        ("a_zombie_commits_nothing_and_deletes_nothing",),
    ),
    Mutant(
        "under a live lease a delayed copy is sent before the acknowledgement",
        CALL,
        "        return HandOver((later(me.path, seen.owned_until, at.time),))",
        "        return HandOver()",
        ("h8_a_dead_letter_under_a_live_lease_is_handed_back_to_the_main_queue", SEEDS),
    ),
    Mutant(
        "arrivals at a join are a set, not a count",
        FOLLOW,
        """{"arrived": frozenset((arrival.member,))})


def is_complete(arrival: Arrival, item: Item | None) -> bool:
    \"\"\"Whether everybody has arrived, as the written set says.\"\"\"
    arrived = item["arrived"] if item else frozenset[int]()
    return isinstance(arrived, frozenset) and len(arrived) >= arrival.size""",
        """{"arrived": 1})


def is_complete(arrival: Arrival, item: Item | None) -> bool:
    \"\"\"Whether everybody has arrived, as the written set says.\"\"\"
    return bool(item) and int(str((item or {})["arrived"])) >= arrival.size""",
        ("h16_an_arrival_that_is_repeated_does_not_stand_for_another_one", SEEDS),
    ),
    Mutant(
        "a walk stops where another message owns the work",
        FOLLOW,
        """    if not seen.inline:
        return Owned()
    if seen.terminal:""",
        "    if seen.terminal:",
        ("a_walk_stops_where_another_message_owns_the_work",),
    ),
    Mutant(
        "a walk goes through what an inline chain committed",
        FOLLOW,
        "        return Through(seen)",
        "        return Owned()",
        ("h2_a_walk_goes_through_what_an_inline_chain_committed_to_the_first_step_without_a_record", SEEDS),
    ),
    Mutant(
        "a walk gives an inline step that has not ended a message of its own",
        FOLLOW,
        "    return later(target, seen.owned_until, now)",
        "    return Owned()",
        ("h1_a_redelivered_head_message_does_not_lose_an_inline_child_that_runs", SEEDS),
    ),
    Mutant(
        "a walk sends what has no record late enough for an owner in its first second",
        FOLLOW,
        "return Send(target, wait)",
        "return Send(target)",
        ("h16_a_start_sent_again_walks_and_runs_nothing",),
    ),
    Mutant(
        "what is left of an ended run is not ended under the lease of an owner that lives",
        BEGIN,
        "    if seen.status is StepStatus.RUNNING and seen.owned_until > at.time:",
        "    if False:",
        ("an_owner_that_lives_ends_its_step_itself_when_its_run_has_ended",),
    ),
    Mutant(
        "a message of an ended run keeps a paused worker from beginning what the run no longer starts",
        BEGIN,
        "        if not reached or",
        "        if True or",
        ("a_worker_that_was_paused_over_its_runs_end_begins_nothing_that_nobody_ends",),
    ),
    Mutant(
        "of a run that has failed a walk finds what its handlers left",
        FOLLOW,
        """    status = RunStatus(str(stored["status"]))
    if""",
        """    status = RunStatus(str(stored["status"]))
    if status is RunStatus.FAILING and""",
        ("what_the_handlers_of_a_cancelled_run_left_ends_too",),
    ),
    Mutant(
        "a walk looks at every branch",
        ENGINE + "after.py",
        "        targets = [target for target in await after(session, stack.pop()) if target not in met]",
        "        targets = [target for target in await after(session, stack.pop()) if target not in met][:1]",
        ("h2_a_walk_looks_at_every_branch_of_a_fork", SEEDS),
    ),
    Mutant(
        "only the first delivery of a fresh start runs bodies, every later one walks",
        ENGINE + "loop.py",
        "mine=session.turn is Turn.FIRST)",
        "mine=True)",
        (
            "h16_a_start_sent_again_walks_and_runs_nothing",
            "h16_a_duplicate_of_a_chains_message_runs_no_body_while_its_owner_lives",
        ),
    ),
    Mutant(
        "what follows a dead letter is not dead: it is sent, not run",
        ENGINE + "loop.py",
        "        if session.turn is Turn.DEAD or session.hops >= self._max_hops:",
        "        if session.hops >= self._max_hops:",
        ("h8_what_follows_a_dead_letter_is_not_dead_it_is_sent_and_runs_elsewhere",),
    ),
    Mutant(
        "a dead letter does not fail a step that may begin again",
        CALL,
        "    if lost or seen.takeovers >= step.takeovers:",
        "    if True:",
        ("a_dead_letter_of_a_step_whose_worker_died_lets_it_begin_again", SEEDS),
    ),
    Mutant(
        "a dead letter ends an at_most_once step that was claimed",
        CALL,
        "    if lost or seen.takeovers >= step.takeovers:",
        "    if seen.takeovers >= step.takeovers:",
        ("a_dead_letter_of_an_at_most_once_step_that_was_claimed_ends_it",),
    ),
    Mutant(
        "what a dead letter begins again is counted as a take-over",
        TRANSITIONS,
        """        "inline": me.inline,
        "due": at.time,
        "takeovers": seen.takeovers + 1,""",
        """        "inline": me.inline,
        "due": at.time,
        "takeovers": seen.takeovers,""",
        ("a_message_that_no_worker_can_handle_ends_its_step_when_the_take_overs_are_used_up",),
    ),
    Mutant(
        "what a dead letter begins again gets a message before the dead letter is deleted",
        CALL,
        "    sends = (Send(me.path),)",
        "    sends: tuple[Send, ...] = ()",
        ("a_dead_letter_of_a_step_that_has_not_begun_lets_it_begin_with_a_new_message", SEEDS),
    ),
    Mutant(
        "a dead letter takes over only from an owner whose lease has run out, and who has not come back",
        TRANSITIONS,
        'return _step(Change.REVIVE, me, seen, at, set_, remove=("lease",))',
        "write = _step(Change.REVIVE, me, seen, at, set_)\n"
        '    return UpdateItem(write.key, None, write.set, remove=("lease",))',
        ("an_owner_that_comes_back_before_its_dead_letter_is_handled_keeps_its_result", SEEDS),
    ),
    Mutant(
        "a step does not begin in an invocation that has no time left for it",
        CALL,
        "    return left > 0 and left >= min(step.timeout * 1000, (ends - here.arrived) / 2)",
        "    return True",
        (
            "a_step_whose_invocation_has_no_time_left_does_not_begin_and_its_message_is_left",
            "a_step_does_not_begin_when_most_of_its_invocation_was_used_up_before_it",
        ),
    ),
    Mutant(
        "a step that may outlast its invocation is not driven inline",
        CALL,
        "    return deadline is None or step.timeout <= (deadline - now - TIME_MARGIN) / 1000",
        "    return True",
        ("a_step_that_may_not_fit_into_the_rest_of_an_invocation_gets_a_message_of_its_own",),
    ),
    Mutant(
        "an attempt ends before its invocation does, so that its end is written",
        CALL,
        "    return own if deadline is None else max(started, min(own, deadline - TIME_MARGIN))",
        "    return own",
        ("a_body_that_outlasts_its_invocation_is_cut_off_before_its_timeout_and_tried_again",),
    ),
    Mutant(
        "a writer whose reply was lost knows its own write",
        TRANSITIONS,
        '    return item is not None and item.get("owner") == me.token and item.get("status") == write.set["status"]',
        "    return False",
        ("h12_a_writer_whose_reply_was_lost_knows_its_own_write", "h12_so_does_one_that_wrote_an_error"),
    ),
    Mutant(
        "a claim whose reply was lost is its claimer's",
        CALL,
        "seen.status is StepStatus.RUNNING and seen.owner == me.token:",
        "seen.status is StepStatus.RUNNING and at.time < 0:",
        ("h12_a_writer_whose_reply_was_lost_knows_its_own_write",),
    ),
    Mutant(
        "a retry is not claimed before it is due",
        CORE + "records.py",
        "            return self.due",
        "            return 0",
        ("a_retry_is_not_claimed_before_it_is_due",),
    ),
    Mutant(
        "a step under a live lease is not taken over",
        CORE + "records.py",
        "        return 0 if self.orphaned else self.lease",
        "        return 0",
        ("h8_a_dead_letter_under_a_live_lease_is_handed_back_to_the_main_queue",),
    ),
    Mutant(
        "a lease that was renewed since it was seen is not taken over",
        TRANSITIONS,
        'LessThan("lease", at.time + 1)',
        'LessThan("lease", at.time + 10**9)',
        ("a_take_over_is_refused_by_a_heartbeat_that_came_first",),
    ),
    Mutant(
        "take-overs have a cap",
        CALL,
        "    if step.delivery is Delivery.AT_MOST_ONCE or seen.takeovers >= step.takeovers:",
        "    if step.delivery is Delivery.AT_MOST_ONCE:",
        ("h9_a_body_that_kills_every_worker_ends_its_run",),
    ),
    Mutant(
        "take-overs do not use up attempts",
        TRANSITIONS,
        """        **_claimed(me, at),
        "takeovers": seen.takeovers + 1,""",
        """        **_claimed(me, at),
        "errors": seen.errors + 1,
        "takeovers": seen.takeovers + 1,""",
        ("h10_a_worker_that_dies_does_not_use_up_an_attempt", SEEDS),
    ),
    Mutant(
        "an at_most_once body is never run again",
        CALL,
        "    if step.delivery is Delivery.AT_MOST_ONCE or seen.takeovers >= step.takeovers:",
        "    if seen.takeovers >= step.takeovers:",
        ("h1_a_redelivered_head_message_does_not_lose_a_child_claimed_inline", SEEDS),
    ),
    Mutant(
        "in a failing run nothing but handlers starts",
        FOLLOW,
        "(run.status is RunStatus.FAILING and graph.is_handler(path.root.name))",
        "run.live",
        ("h3_in_a_failing_run_nothing_but_handlers_starts",),
    ),
    Mutant(
        "a refusal that shows this very path began the failure: its handlers follow",
        FOLLOW,
        '    if stored.get("failed_step") == change.path:',
        '    if stored.get("failed_step") == "":',
        ("h3_a_failure_handler_runs_though_its_worker_died_as_the_run_began_to_fail", SEEDS),
    ),
    Mutant(
        "several last steps are a join",
        "state_machine/detent_state_machine/graph.py",
        "following[name].append(Successor(end, arrivals(end, index, len(last))))",
        "following[name].append(Successor(end, ()))",
        ("h4_a_run_with_several_last_steps_does_not_end_with_the_first_of_them", SEEDS),
    ),
    Mutant(
        "a start of a run that exists sends its message again",
        "infra/detent_infra/runs/start.py",
        "    await send(backend, [start])",
        "    await send(backend, [start] if start.fresh else [])",
        (
            "h11_a_start_that_was_stored_but_not_sent_is_sent_by_the_next_try",
            "h11_a_second_start_with_one_key_sends_what_the_first_one_could_not",
            SEEDS,
        ),
    ),
    Mutant(
        "the run is read again between inline steps",
        ENGINE + "loop.py",
        "        return recently or await check_in(session, path)",
        "        return True",
        ("h13_a_cancel_reaches_a_chain_of_steps_too_short_for_a_heartbeat", SEEDS),
    ),
    Mutant(
        "a heartbeat that finds the run over stops its step, and what would follow it",
        ENGINE + "body.py",
        """        if not await check_in(session, me.path):
            return RunOver(), seen""",
        "        await check_in(session, me.path)",
        ("h13_a_cancel_stops_the_step_in_progress_at_its_next_heartbeat", SEEDS),
    ),
    Mutant(
        "the reaper sends for an ended step whose successor has no record",
        FOLLOW,
        "            owed = not record.terminal or not following or any(target not in have for target in following)",
        "            owed = not record.terminal",
        ("h14_the_reaper_sends_for_a_claimed_step_in_the_middle",),
    ),
    Mutant(
        "effects land in the transaction of the step's completion",
        ENGINE + "drive.py",
        "await retry_unanswered(lambda: self._backend.table.transact([write, *effects]), self._jitter, outage)",
        """await retry_unanswered(lambda: self._backend.table.transact([*effects]), self._jitter, outage)
                await self._backend.table.write(write)""",
        ("an_effect_is_applied_with_its_step_or_not_at_all", SEEDS),
    ),
    Mutant(
        "what a lost payload would have fed fails, and says so",
        ENGINE + "drive.py",
        "            return await self._settle(session, me, step, seen, decided.Raised(decided.final(error)), started)",
        "            raise error",
        ("a_step_whose_payload_is_gone_fails_with_an_error_that_names_it",),
    ),
    Mutant(
        "a retry of a run closes what workers are still at in the old one",
        "infra/detent_infra/runs/retry.py",
        "    carried = await _close(backend, old.run_id, graph)",
        "    steps = await backend.table.query(keys.run_partition(old.run_id), start=keys.STEP_PREFIX, end='step$')\n"
        "    carried = {key.sk[5:]: item for key, item in steps.items if item['status'] == 'COMPLETED'}",
        ("a_retried_run_and_its_old_one_do_not_both_apply_an_effect",),
    ),
)


@dataclass(frozen=True)
class Verdict:
    """Who caught the mutant, in words, and who did not."""

    mutant: Mutant
    caught: tuple[str, ...]
    missed: tuple[str, ...]
    seconds: float


def apply(mutant: Mutant, tree: Path) -> str:
    """Applies the mutant; returns the file's text as it was."""
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.file} holds this {text.count(mutant.old)} times, not once:\n{mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new))
    return text


def judge(mutant: Mutant, tree: Path) -> Verdict:
    """Applies the mutant to the tree, asks those who must notice, and fixes the tree."""
    began = time.monotonic()
    caught: list[str] = []
    missed: list[str] = []
    before = apply(mutant, tree)
    try:
        for name in mutant.caught_by:
            how = caught_how(name, tree)
            (caught if how else missed).append(how or name)
    finally:
        (tree / mutant.file).write_text(before)
    return Verdict(mutant, tuple(caught), tuple(missed), time.monotonic() - began)


def caught_how(name: str, tree: Path) -> str:
    """How the test or the simulation notices what was done to the tree; empty if it does not."""
    if name == SEEDS:
        command = ["-m", "tests.simulation", "--first", "1", "--seeds", "300", "--stop"]
    else:
        command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *REGRESSIONS, "-k", f"test_{name}"]
    paths = os.pathsep.join([str(tree), *(str(tree / source) for source in SOURCES)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{name} (no end within {MAX_SECONDS:g} s)"
    if done.returncode == 0:
        return ""
    if name == SEEDS:
        return next((line for line in done.stdout.splitlines() if line.startswith("seed ")), "")
    if done.returncode == 1:  # pytest: tests were run and some failed; anything else is not a verdict
        return name
    raise RuntimeError(f"pytest could not run {name}:\n{done.stdout}\n{done.stderr}")


def copy_tree(to: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".venv", ".git", "results", "*.egg-info")
    for name in (*SOURCES, "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("--only", default="", help="mutants whose rule has this in it")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.rule]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            trees.put(copy_tree(Path(folder, str(number))))
        named = {name for mutant in chosen for name in mutant.caught_by}
        tests = " or test_".join(sorted(named - {SEEDS}))
        tree = trees.get()
        for name in (tests, SEEDS):
            if how := caught_how(name, tree):
                print(f"Without any mutant this fails already: {how}")
                return 1
        trees.put(tree)

        def work(mutant: Mutant) -> Verdict:
            tree = trees.get()
            try:
                return judge(mutant, tree)
            finally:
                trees.put(tree)

        survived = 0
        print("| rule | caught by |\n|---|---|")
        with ThreadPoolExecutor(options.jobs) as pool:
            for verdict in pool.map(work, chosen):
                words = [*verdict.caught, *(f"**SURVIVED** {name}" for name in verdict.missed)]
                print(f"| {verdict.mutant.rule} | {'; '.join(words)} |", flush=True)
                survived += bool(verdict.missed)
    print(f"\n{len(chosen)} mutants, {survived} survived, {time.monotonic() - began:.0f} s.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
