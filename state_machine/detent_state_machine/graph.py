"""What follows from a definition's edges: successors, joins, sinks. Computed once per definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detent_state_machine.definition import Definition, StepDefinition
from detent_state_machine.errors import CorruptRecord, UnknownStep
from detent_state_machine.kinds import has_body, references
from detent_state_machine.step_path import StepPath

START = StepPath("@start")
END = StepPath("@end")
"""The join of a workflow's last steps; complete when the run is."""
HANDLED = StepPath("@handled")
"""The join of the failure handlers' last steps."""
MEMBERS = 100
"""Of one arrival set: about 0.5 KB, so that an arrival costs one DynamoDB write unit."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Add `member` to a set of the join's tree; when the set holds `size` members, go on to the next one up."""

    join: str
    group: int | None
    member: int
    size: int


@dataclass(frozen=True, slots=True)
class Successor:
    """What may follow a step run: a step (or END, HANDLED), once the arrivals on the way to it are complete."""

    target: StepPath
    arrivals: tuple[Arrival, ...]


@dataclass(frozen=True)
class Graph:
    """The edges of a definition, from both ends."""

    definition: Definition
    steps: Mapping[str, StepDefinition]
    successors: Mapping[str, tuple[Successor, ...]]
    sinks: tuple[StepPath, ...]
    handler_roots: tuple[StepPath, ...]
    """First steps of the failure handler; empty if the workflow has none."""
    waits: tuple[StepPath, ...]
    """Steps without a body: what a run can wait for."""
    to_read: Mapping[str, tuple[StepPath, ...]]
    """Of each step, those whose records decide about it or are handed to it, each once. Other parents need no look."""

    @property
    def retention(self) -> int:
        """Seconds that records are kept."""
        return self.definition.retention_days * 86_400

    def step(self, name: str) -> StepDefinition:
        if name not in self.steps:
            raise UnknownStep(
                f"Workflow {self.definition.name!r} version {self.definition.version} has no step {name!r}.",
                advice=f"It has: {', '.join(self.steps)}.",
            )
        return self.steps[name]

    def path(self, text: str) -> StepPath:
        """The path in a message or a key. Raises `CorruptRecord` for what is not one, `UnknownStep` if it leads to no
        step of this definition.
        """
        path = StepPath.parse(text, self.steps)
        self.step(path.root.name)
        return path

    def is_handler(self, name: str) -> bool:
        return self.step(name).scope == "on_failure"


def graph_of(definition: Definition) -> Graph:
    """Raises `CorruptRecord` for edges that lead nowhere and names that are taken, which no compiler writes."""
    steps = {step.name: step for step in definition.steps}
    paths = {name: StepPath(name) for name in steps}
    main = [step for step in definition.steps if step.scope == "main"]
    handlers = [step for step in definition.steps if step.scope == "on_failure"]
    following: dict[str, list[Successor]] = {name: [] for name in (START, *steps)}
    _check_edges(definition, steps)
    ancestors = _ancestors(definition.steps)
    for step in definition.steps:
        names = _last_parents(step, ancestors)
        for index, parent in enumerate(names):
            following[parent].append(Successor(paths[step.name], arrivals(step.name, index, len(names))))
        if not names and step.scope == "main":
            following[START].append(Successor(paths[step.name], ()))
    sinks = _sinks(main)
    for end, last in ((END, sinks), (HANDLED, _sinks(handlers))):
        for index, name in enumerate(last):
            following[name].append(Successor(end, arrivals(end, index, len(last))))
    return Graph(
        definition=definition,
        steps=steps,
        successors={name: tuple(found) for name, found in following.items()},
        sinks=tuple(paths[name] for name in sinks),
        waits=tuple(paths[step.name] for step in definition.steps if not has_body(step)),
        to_read={step.name: tuple(paths[name] for name in _to_read(step)) for step in definition.steps},
        handler_roots=tuple(paths[step.name] for step in handlers if not step.parents),
    )


def _to_read(step: StepDefinition) -> list[str]:
    needed = [parent.step for parent in step.parents if parent.need == "completed"]
    shown = [ref.step for ref in references(step) if ref.step is not None]
    return list(dict.fromkeys([*needed, *step.reads, *shown]))


def _check_edges(definition: Definition, steps: Mapping[str, StepDefinition]) -> None:
    for step in definition.steps:
        if step.name.startswith("@") or steps[step.name] is not step:
            raise CorruptRecord(f"Definition {definition.name!r}: a step cannot be named {step.name!r}.")
        names = [parent.step for parent in step.parents]
        for name in names:
            if name not in steps or names.count(name) > 1:
                raise CorruptRecord(f"Definition {definition.name!r}: a wrong edge from {name!r} to {step.name!r}.")


def _ancestors(steps: Sequence[StepDefinition]) -> Mapping[str, set[str]]:
    """Everything that has ended before each step can start."""
    found: dict[str, set[str]] = {}
    for step in topological(steps):
        parents = [parent.step for parent in step.parents]
        found[step.name] = set(parents).union(*(found.get(name, set()) for name in parents))
    return found


def _last_parents(step: StepDefinition, ancestors: Mapping[str, set[str]]) -> list[str]:
    """The parents a step waits for: without those that another parent has waited for already.

    `ship(held=reserve.output, paid=charge.output)` follows `charge` alone if `charge` follows `reserve`: it stays
    one link of a chain, at one write, where a join would cost an arrival of each parent.
    """
    names = [parent.step for parent in step.parents]
    covered = set[str]().union(*(ancestors[name] for name in names))
    return [name for name in names if name not in covered]


def arrivals(join: str, index: int, count: int) -> tuple[Arrival, ...]:
    """The sets, leaf to root, that parent `index` of `count` joins. None for a single parent: nothing to join."""
    if count <= 1:
        return ()
    if count <= MEMBERS:
        return (Arrival(join, None, index, count),)
    group = index // MEMBERS
    members = min(MEMBERS, count - group * MEMBERS)
    return (
        Arrival(join, group, index % MEMBERS, members),
        Arrival(join, None, group, -(-count // MEMBERS)),
    )


def topological(steps: Iterable[StepDefinition]) -> list[StepDefinition]:
    """The steps, each after its parents, otherwise in the order of declaration."""
    waiting = list(steps)
    placed: set[str] = set()
    ordered: list[StepDefinition] = []
    while waiting:
        ready = [s for s in waiting if all(p.step in placed for p in s.parents)]
        if not ready:
            return ordered + waiting
        ordered += ready
        placed |= {s.name for s in ready}
        waiting = [s for s in waiting if s.name not in placed]
    return ordered


def _sinks(steps: Sequence[StepDefinition]) -> list[str]:
    parents = {parent.step for step in steps for parent in step.parents}
    return [step.name for step in steps if step.name not in parents]
