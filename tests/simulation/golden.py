"""Every write, message and log line of the canonical workflows, call by call: `python -m tests.simulation.golden`.

It rewrites golden.txt. A test holds the engine to that file, so a change of the protocol shows in a review as the lines
that it changes, and a change of the code alone shows as none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from detent.testing.simulation.faults import Gate
from detent.testing.simulation.world import Simulation
from detent_infra.memory import MemoryLogs, Store
from detent_infra.ports import LogLine, Table
from detent_infra.relay import RelayedTable, TableCall
from detent_state_machine.writes import (
    AllOf,
    AnyOf,
    DeleteItem,
    Equals,
    Expect,
    LessThan,
    Missing,
    OneOf,
    PutItem,
    UpdateItem,
    Value,
    Write,
)

from tests.simulation.canonical import CANONICAL, Canonical
from tests.simulation.enumerate import SEED, workload_of

GOLDEN = Path(__file__).with_name("golden.txt")
_T = TypeVar("_T")


class WrittenTable(RelayedTable):
    """A table that puts each applied or refused write into the trace, in full."""

    def __init__(self, table: Table, gate: Gate) -> None:
        super().__init__(table)
        self._gate = gate

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        for write in call.writes:
            self._gate.note_event(f"    {described(write)}")
        return await act()


class WrittenLogs(MemoryLogs):
    """Logs that put each line into the trace, in full."""

    def __init__(self, store: Store, gate: Gate) -> None:
        super().__init__(store)
        self._gate = gate

    async def append(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            said = [line.level, line.engine, line.path, f"#{line.attempt}", line.message, line.fields]
            self._gate.note_event(f"    {' '.join(part for part in said if part)}")
        await super().append(lines)


def traced(canonical: Canonical) -> list[str]:
    """Every call of the workflow's run without faults, in order."""
    workload = workload_of(canonical)
    workload.world.forget()
    simulation = Simulation(
        [workload.app],
        SEED,
        plan=lambda _: None,
        machines=1,
        max_hops=canonical.max_hops,
        max_delay=canonical.max_delay,
        skew=False,
    )
    backend, gate = simulation.backend, simulation.gate
    simulation.backend = replace(
        backend, table=WrittenTable(backend.table, gate), logs=WrittenLogs(simulation.store, gate)
    )
    done = simulation.run(canonical.script(simulation, workload))
    # How definitions are stored, and when the reaper comes, is told elsewhere.
    apart = (workload.app.workflows[workload.name].definition.version, " query", " drawn", "'definition'")
    return [_short(line, done.runs) for line in gate.trace if not any(word in line for word in apart)]


def _short(line: str, runs: Sequence[str]) -> str:
    for number, run in enumerate(runs, 1):
        line = line.replace(run, f"RUN{number}")
    return re.sub(r"\bid0+(\d+)\b", r"id\1", re.sub(r"x{100,}", "xx…", line))


def described(write: Write) -> str:
    match write:
        case PutItem():
            return f"put {write.key.pk} {write.key.sk} {_values(write.item)} where {_condition(write.expect)}"
        case UpdateItem():
            added = f" add {_values(write.add)}" if write.add else ""
            removed = f" remove {','.join(write.remove)}" if write.remove else ""
            where = _condition(write.expect)
            return f"update {write.key.pk} {write.key.sk} {_values(write.set)}{added}{removed} where {where}"
        case DeleteItem():
            return f"delete {write.key.pk} {write.key.sk} where {_condition(write.expect)}"


def _condition(expect: Expect | None) -> str:
    match expect:
        case None:
            return "anything"
        case Missing():
            return "missing"
        case Equals(attribute, value):
            return f"{attribute}={value}"
        case OneOf(attribute, values):
            return f"{attribute} in {','.join(map(str, values))}"
        case LessThan(attribute, value):
            return f"{attribute}<{value}"
        case AllOf(parts):
            return f"({' and '.join(map(_condition, parts))})"
        case AnyOf(parts):
            return f"({' or '.join(map(_condition, parts))})"


def _values(values: Mapping[str, Value]) -> str:
    told: dict[str, object] = {}
    for name, value in values.items():
        if name == "error":
            # On which line of which checkout a body raised is not the engine's.
            told[name] = {key: part for key, part in json.loads(str(value)).items() if key != "trace"}
        elif name != "version":
            told[name] = sorted(value) if isinstance(value, frozenset) else value
    return json.dumps(told, ensure_ascii=False)


def text() -> str:
    parts = [f"## {one.name}\n" + "".join(f"{line}\n" for line in traced(one)) for one in CANONICAL]
    return "\n".join(parts)


if __name__ == "__main__":
    GOLDEN.write_text(text())
