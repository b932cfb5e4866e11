"""Where a step run is: `charge`, `search[17]`, `agent/think#3`, `agent/search#1[17]`, `agent@2/think#3`.

    path     = [ scope [ "@" epoch ] "/" ] name [ "#" occurrence ] [ "[" item "]" ]

`scope` is the path of the durable step in which the step run is, and `epoch` says how often that has continued as new,
from 1, which is left out. `occurrence` counts the activations of one name in a scope, from 1; a path in a graph has
none. `item` is the item of a fan-out, from 0.

No other module puts a path together or takes one apart.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final, Self, TypeAlias

from detent_state_machine.errors import CorruptRecord

RESERVED: Final = "/[]#@"
"""What the name of a new step does not have. Names in definitions that older versions stored may."""
GROUP: Final = 100
"""Items of a fan-out whose step runs share a partition."""
MAX_DEPTH: Final = 8
"""Scopes in one another."""

Order: TypeAlias = tuple[tuple[str, int, int, int], ...]

_PATH = re.compile(
    r"(?:(?P<scope>.+?)(?:@(?P<epoch>[1-9]\d*))?/)?"
    r"(?P<name>@?[^/\[\]#@]+)(?:#(?P<occurrence>[1-9]\d*))?(?:\[(?P<item>0|[1-9]\d*)\])?",
    re.DOTALL,
)


class StepPath(str):
    """A path. It is its text wherever one is needed: as a key, in a message, in a line of the log.

    `StepPath("charge")` is the step run of a graph's step with this name, whatever characters the name has.
    """

    __slots__ = ("epoch", "item", "name", "occurrence", "scope")

    name: str
    """The step's."""
    scope: StepPath | None
    """The durable step run in whose scope it is; None in a graph."""
    epoch: int
    """Of that scope, from 1."""
    item: int | None
    """The item of a fan-out, from 0."""
    occurrence: int | None
    """In that scope, from 1."""

    def __new__(
        cls,
        name: str,
        *,
        scope: StepPath | None = None,
        epoch: int = 1,
        occurrence: int | None = None,
        item: int | None = None,
    ) -> Self:
        above = "" if scope is None else f"{scope}/" if epoch == 1 else f"{scope}@{epoch}/"
        nth = "" if occurrence is None else f"#{occurrence}"
        place = "" if item is None else f"[{item}]"
        path = super().__new__(cls, f"{above}{name}{nth}{place}")
        path.name, path.scope, path.epoch, path.item, path.occurrence = name, scope, epoch, item, occurrence
        return path

    @staticmethod
    def parse(text: str, names: Container[str]) -> StepPath:
        """The path in a text. `names` are those of the definition's steps: one of them is matched whole first.

        Raises `CorruptRecord` for what is not a path.
        """
        if text in names:
            return StepPath(text)
        found = _PATH.fullmatch(text) if text.count("/") <= MAX_DEPTH else None
        if found is None:
            raise CorruptRecord(f"{text[:200]!r} is not the path of a step run.")
        scope, epoch, name, occurrence, item = found.group("scope", "epoch", "name", "occurrence", "item")
        return StepPath(
            name,
            scope=None if scope is None else StepPath.parse(scope, names),
            epoch=int(epoch or 1),
            occurrence=None if occurrence is None else int(occurrence),
            item=None if item is None else int(item),
        )

    @property
    def driver(self) -> StepPath:
        """The step run that messages about this one are for: itself in a graph, the durable step for what is in its
        scope. An item of a fan-out has a message of its own, wherever it is.
        """
        return self if self.scope is None or self.item is not None else self.scope

    @property
    def root(self) -> StepPath:
        """The step run of the graph that it belongs to."""
        return self if self.scope is None else self.scope.root

    @property
    def fan_out(self) -> StepPath:
        """The step run whose item it is; itself if it is not an item."""
        if self.item is None:
            return self
        return StepPath(self.name, scope=self.scope, epoch=self.epoch, occurrence=self.occurrence)

    @property
    def group(self) -> int | None:
        """The part of a fan-out whose records share a partition; None: the run's own partition."""
        return None if self.item is None else self.item // GROUP

    @property
    def order(self) -> Order:
        """Sorts step runs as they were begun: `search[2]` before `search[10]`, a scope before what is in it."""
        above = () if self.scope is None else self.scope.order
        return (*above, (self.name, self.epoch, self.occurrence or 0, -1 if self.item is None else self.item))
