"""The rules of waits, each with a change that breaks it. See mutants.py."""

from __future__ import annotations

from tests.simulation.mutant import ENGINE, SEEDS, TIMER, TRANSITIONS, Mutant

OF_WAITS = (
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
