"""What follows from an ended step run: arrivals at joins, the run's end, and the messages that drive the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace

from detent_state_machine import keys, run_transitions
from detent_state_machine.graph import END, HANDLED, Arrival
from detent_state_machine.messages import Drive, encode
from detent_state_machine.records import ErrorInfo, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.writes import Update

from detent_infra.durations import duration
from detent_infra.engine.session import Session
from detent_infra.ports import Conflict


async def send(session: Session, paths: Iterable[str], *, delay: float = 0.0, fresh: bool = False) -> None:
    """Messages that drive the paths, at the earliest after `delay` seconds or the queue's longest delay.

    One that arrives before its time is sent on: a claim refuses what is not due. `fresh` as in `Drive`.
    """
    bodies = [encode(Drive(session.run_id, path, fresh)) for path in paths]
    if bodies:
        queue = session.backend.queue
        await queue.send(bodies, delay=min(max(0.0, delay), queue.max_delay))


async def later(session: Session, path: str, at: int) -> None:
    """A message that drives the path at that time (milliseconds since the epoch)."""
    await send(session, [path], delay=(at - session.backend.clock()) / 1000 + 0.001)


class Propagation:
    """Follows the committed records of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def after(self, path: str) -> list[str]:
        """Records what the ended step run means for its joins and its run; returns the steps that are ready now.

        Every write here is idempotent, so a walk repeats it.
        """
        record = self._session.ended[path]
        match record.status:
            case StepStatus.COMPLETED | StepStatus.SKIPPED:
                return await self._successors(path)
            case StepStatus.FAILED:
                return await self._failed(path, record)
            case _:
                return []

    async def walk(self, path: str) -> None:
        """For a message that found its step run terminal: sees that every successor is driven by somebody.

        A walk only sends. It never runs a body: the messages it sends claim first, and count.
        """
        session = self._session
        timing = session.backend.timing
        stack, met = [path], {path}
        while stack:
            targets = [target for target in await self.after(stack.pop()) if target not in met]
            met.update(targets)
            found = await session.records(targets)
            for target in targets:
                record = found.get(target)
                if record is None:
                    if session.may_start(target):
                        # Late enough that an owner in its first second, who has no record yet, wins.
                        await send(session, [target], delay=2 * timing.first_heartbeat)
                elif not record.inline:
                    continue  # A message of its own owns it, and everything behind it.
                elif record.status.terminal:
                    stack.append(target)
                elif session.may_start(target):
                    waiting = record.status is StepStatus.RETRYING
                    await later(session, target, record.due if waiting else record.lease)

    async def _successors(self, path: str) -> list[str]:
        ready: list[str] = []
        for successor in self._session.graph.successors[path]:
            if not await self._arrive(successor.arrivals):
                continue
            if successor.target == END:
                await self._finish()
            elif successor.target == HANDLED:
                await self._end_failing()
            else:
                ready.append(successor.target)
        return ready

    async def _arrive(self, arrivals: tuple[Arrival, ...]) -> bool:
        """Adds this step to the join's sets; whether the join is complete.

        No race to win: adding to a set commutes and repeats harmlessly. Whoever sees the set complete has the join
        as its successor; several may, and the join's own record lets one of them commit.
        """
        session = self._session
        for arrival in arrivals:
            key = keys.join_key(session.run_id, arrival.join, arrival.group)
            write = Update(key, None, {"expires": session.expires}, {"arrived": frozenset((arrival.member,))})
            item = await session.backend.table.write(write)
            arrived = item["arrived"] if item else frozenset[int]()
            if not isinstance(arrived, frozenset) or len(arrived) < arrival.size:
                return False
        return True

    async def _failed(self, path: str, record: StepRecord) -> list[str]:
        session = self._session
        graph = session.graph
        if graph.is_handler(path):
            await self._end_failing()
            return []
        error = record.error or ErrorInfo("Unknown", "The step's record holds no error.")
        now = session.backend.clock()
        if not graph.handler_roots:
            await self._end(run_transitions.fail_run(session.run, path, error, now=now, expires=session.expires))
            return []
        try:
            await session.backend.table.write(run_transitions.begin_failing(session.run, path, error))
        except Conflict as conflict:
            item = conflict.item
            if item is None or item.get("status") != RunStatus.FAILING or item.get("failed_step") != path:
                # Another step failed first and is the cause, or the run has ended: nothing follows from this one.
                if item is not None and item.get("status") == RunStatus.FAILING:
                    session.run = replace(session.run, status=RunStatus.FAILING)
                return []
        else:
            session.tell("WARN", "run_failing", f"run fails at {path}: its handlers run", error=error.type)
        session.run = replace(session.run, status=RunStatus.FAILING, failed_step=path, error=error)
        return list(graph.handler_roots)

    async def _finish(self) -> None:
        session = self._session
        await self._end(run_transitions.finish(session.run, now=session.backend.clock(), expires=session.expires))

    async def _end_failing(self) -> None:
        session = self._session
        await self._end(run_transitions.end_failing(session.run, now=session.backend.clock(), expires=session.expires))

    async def _end(self, write: Update) -> None:
        session = self._session
        if any(not line.engine for line in session.lines):
            # Who sees the run's end finds in its log what its steps wrote. The engine's lines alone may follow it.
            await session.flush()
        # A refusal says that it has ended already: by this very write, repeated, or by a cancel or failure before.
        with contextlib.suppress(Conflict):
            await session.backend.table.write(write)
            took = int(str(write.set["ended"])) - session.run.created
            status = str(write.set["status"]).lower()
            level = "INFO" if status == "completed" else "ERROR"
            session.tell(level, f"run_{status}", f"run {status} in {duration(took)}", duration_ms=took)
