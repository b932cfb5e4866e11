"""The rules of waits, each with a change that breaks it. See mutants.py."""

from __future__ import annotations

from tests.simulation.mutant import CORE, ENGINE, SEEDS, TIMER, TRANSITIONS, Mutant

LATER = "infra/detent_infra/timers/later.py"
TICK = "infra/detent_infra/timers/tick.py"
TABLE = CORE + "timer_table.py"

OF_WAITS = (
    Mutant(
        "who puts a timer reads how far ticks are after it",
        LATER,
        "timer_table.bucket_of(due) <= opened]",
        "timer_table.bucket_of(due) < 0]",
        ("who_puts_a_timer_behind_the_tick_sends_its_message_too", SEEDS),
    ),
    Mutant(
        "a tick opens a bucket before it reads it",
        TICK,
        """        await _write(backend, timer_table.open_up_to(last))
""",
        """        pass
""",
        ("t1_a_timer_that_is_put_while_a_tick_reads_its_bucket_is_sent_by_who_puts_it",),
    ),
    Mutant(
        "ticks begin with the first timer",
        TABLE,
        "return UpdateItem(keys.TIMERS, Missing(), ",
        "return UpdateItem(keys.TIMERS, None, ",
        ("t2_two_who_put_the_first_timers_let_ticks_begin_once",),
    ),
    Mutant(
        "a tick says that a bucket is done once all of it is sent",
        TICK,
        """        count, stopped = await _send_bucket(backend, bucket, at, until)
""",
        """        await _write(backend, timer_table.all_sent(bucket))
        count, stopped = await _send_bucket(backend, bucket, at, until)
""",
        ("a_tick_that_dies_anywhere_leaves_the_timer_to_the_next",),
    ),
    Mutant(
        "a tick goes on where the last one ended, not at its own time",
        TICK,
        "for bucket in range(place.done + 1, last + 1):",
        "for bucket in range(last, last + 1):",
        ("a_tick_that_was_down_for_an_hour_catches_up_at_once", SEEDS),
    ),
    Mutant(
        "of two ticks the slower one does not turn back what is done",
        TABLE,
        'return UpdateItem(keys.TIMERS, LessThan("done", bucket), {"done": bucket}',
        'return UpdateItem(keys.TIMERS, None, {"done": bucket}',
        ("t3_a_tick_that_comes_late_turns_nothing_back",),
    ),
    Mutant(
        "nor its place in a bucket",
        TABLE,
        'return UpdateItem(keys.TIMERS, LessThan("done", bucket), progress)',
        "return UpdateItem(keys.TIMERS, None, progress)",
        ("t3_a_tick_that_comes_late_turns_nothing_back",),
    ),
    Mutant(
        "nor what is opened",
        TABLE,
        'return UpdateItem(keys.TIMERS, LessThan("opened", bucket), ',
        "return UpdateItem(keys.TIMERS, None, ",
        ("t3_a_tick_that_comes_late_turns_nothing_back",),
    ),
    Mutant(
        "a timer is sent with the delay that is left",
        TABLE,
        '    return max(0, -((now - int(str(item["due"]))) // 1000))',
        "    return 0",
        ("a_sleep_waits_in_the_table_until_it_is_due",),
    ),
    Mutant(
        "the message of a sleep is sent before the one that began it is acknowledged",
        TIMER,
        "return Transition(write, Then.ACKNOWLEDGE, IfRefused.BEGIN, line, (later(me.path, due, at.time),))",
        "return Transition(write, Then.ACKNOWLEDGE, IfRefused.BEGIN, line)",
        ("w7_a_message_that_comes_too_early_is_sent_on", SEEDS),
    ),
    Mutant(
        "who finds a sleep begun sends its message again",
        TIMER,
        "            return HandOver((later(me.path, seen.due, at.time),))",
        "            return HandOver()",
        (
            "w4_who_dies_between_a_wait_and_its_message_leaves_a_message_that_sends_it",
            "w7_a_message_that_comes_too_early_is_sent_on",
            SEEDS,
        ),
    ),
    Mutant(
        "a sleep ends when it is due, and no earlier",
        TIMER,
        "        if seen.due > at.time:",
        "        if seen.due > at.time + 600_000:",
        ("w7_a_message_that_comes_too_early_is_sent_on", SEEDS),
    ),
    Mutant(
        "the first of two deliveries says when a sleep ends",
        TRANSITIONS,
        "    return _step(Change.WAIT, me, seen, at, begun)",
        "    return UpdateItem(keys.step_key(me.run_id, me.path), None, _step(Change.WAIT, me, seen, at, begun).set)",
        (SEEDS,),
    ),
    Mutant(
        "a sleep ends once",
        TRANSITIONS,
        '    return _step(Change.MEET, me, seen, at, ended, remove=("due",))',
        "    return UpdateItem(keys.step_key(me.run_id, me.path), None, _step(Change.MEET, me, seen, at, ended).set)",
        (SEEDS,),
    ),
    Mutant(
        "whoever finds a run ended closes its sleeps",
        ENGINE + "loop.py",
        """        if isinstance(message, Cancel):
            await close_waits(self.backend, graph, run)
""",
        """        if isinstance(message, Cancel):
""",
        ("w13_a_run_that_is_cancelled_closes_its_sleep_long_before_it_is_due", SEEDS),
    ),
    Mutant(
        "a cancel is a message first",
        "infra/detent_infra/runs/lifecycle.py",
        "            await self.backend.queue.send([encode(Cancel(run_id))])",
        "            pass",
        (
            "w13_a_run_that_is_cancelled_closes_its_sleep_long_before_it_is_due",
            "w27_a_cancel_whose_client_dies_before_it_writes_is_made_by_a_worker",
        ),
    ),
    Mutant(
        "who is told of a cancel makes it, if the client died",
        ENGINE + "loop.py",
        "            run = await cancel(self.backend, self.definitions, run)",
        "            pass",
        ("w27_a_cancel_whose_client_dies_before_it_writes_is_made_by_a_worker",),
    ),
)
