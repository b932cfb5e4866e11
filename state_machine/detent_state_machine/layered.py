"""Draws a graph in layers on a grid of characters: boxes, and lines from the boxes above to the boxes below.

Children with the same parents share one horizontal line (a fan-out, a join, a diamond); every other such bundle has
a line, and a place at each of its parents' boxes, of its own, so that no line says more than the edges do. Where two
lines cross, the vertical one is drawn through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from unicodedata import combining, east_asian_width

GAPS = (2, 3, 4, 5, 6)
"""Columns between two boxes; where lines would run over each other, the next one is tried."""
MAX_NODES = 3000
SWEEPS = 4

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = " ╵╷│╴┘┐┤╶└┌├─┴┬┼"
_ASCII_LINES = " |||-+++-+++-+++"


@dataclass(eq=False, slots=True)
class _Node:
    """A box, or (without lines) a place where an edge passes a layer on its way further down."""

    lines: Sequence[str]
    layer: int
    parents: list[_Node] = field(default_factory=list["_Node"])
    children: list[_Node] = field(default_factory=list["_Node"])
    bundles: list[_Bundle] = field(default_factory=list["_Bundle"])
    center: float = 0.0
    left: int = 0
    aside: int = 0
    """How far from its middle the line from above arrives."""

    @property
    def width(self) -> int:
        """Odd, so that the middle is a column; wide enough for a line to every bundle."""
        if not self.lines:
            return max(1, 2 * len(self.bundles) - 1)
        return max(max(map(columns, self.lines)) + 4, 2 * len(self.bundles) + 3) | 1

    @property
    def height(self) -> int:
        return len(self.lines) + 2 if self.lines else 1

    @property
    def middle(self) -> int:
        return self.left + self.width // 2

    def port(self, bundle: _Bundle) -> int:
        """The column where the bundle leaves the box."""
        if len(self.bundles) == 1:
            return self.middle
        ordered = sorted(self.bundles, key=lambda b: sum(c.middle for c in b.children) / len(b.children))
        border = 1 if self.lines else 0
        inner = self.width - 2 * border
        return self.left + border + (2 * ordered.index(bundle) + 1) * inner // (2 * len(ordered))


@dataclass(eq=False, slots=True)
class _Bundle:
    """Every parent leads to every child."""

    parents: list[_Node]
    children: list[_Node] = field(default_factory=list[_Node])
    row: int = 0

    def above(self) -> list[int]:
        return [parent.port(self) for parent in self.parents]

    def below(self) -> list[int]:
        return [child.middle + child.aside for child in self.children]


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def depths(parents: Sequence[Sequence[int]]) -> list[int]:
    """The layer of each node: one below its lowest parent. Parents come before their children; others are ignored."""
    found: list[int] = []
    for index, above in enumerate(parents):
        found.append(max((found[parent] + 1 for parent in above if parent < index), default=0))
    return found


def draw(
    boxes: Sequence[Sequence[str]], parents: Sequence[Sequence[int]], *, width: int, ascii: bool
) -> list[str] | None:
    """The lines of the drawing, or None if it does not fit into `width` columns or would be a tangle.

    `boxes` are the lines of text of each node, `parents` its parents by index, each smaller than its own.
    """
    layers = _layers(boxes, parents)
    if layers is None:
        return None
    bundles = [_bundles(layer) for layer in layers[1:]]
    _order(layers)
    for gap in GAPS:
        if any(sum(node.width + gap for node in layer) - gap > width for layer in layers):
            return None
        _place(layers, gap)
        if max(node.left + node.width for layer in layers for node in layer) > width:
            return None
        if all(_assign_rows(band) or _assign_rows(_step_aside(band)) for band in bundles):
            return _paint(layers, bundles).text(_ASCII_LINES if ascii else _LINES)
    return None


def _layers(boxes: Sequence[Sequence[str]], parents: Sequence[Sequence[int]]) -> list[list[_Node]] | None:
    """Nodes by layer. Where edges of a node pass a layer on their way down, it has one place there for all of them."""
    if any(parent >= index for index, above in enumerate(parents) for parent in above):
        return None  # a cycle: nothing to draw in layers
    depth = depths(parents)
    ends = list(depth)
    for index, above in enumerate(parents):
        for parent in above:
            ends[parent] = max(ends[parent], depth[index])
    if sum(max(1, end - start) for start, end in zip(depth, ends, strict=True)) > MAX_NODES:
        return None
    layers: list[list[_Node]] = [[] for _ in range(max(depth) + 1)]
    chains: list[list[_Node]] = []
    for index, lines in enumerate(boxes):
        chain = [_Node(lines, depth[index])]
        chain += [_Node((), layer) for layer in range(depth[index] + 1, ends[index])]
        for upper, lower in pairwise(chain):
            _connect(upper, lower)
        for parent in sorted(set(parents[index])):
            _connect(chains[parent][depth[index] - 1 - depth[parent]], chain[0])
        for node in chain:
            layers[node.layer].append(node)
        chains.append(chain)
    return layers


def _connect(upper: _Node, lower: _Node) -> None:
    lower.parents.append(upper)
    upper.children.append(lower)


def _bundles(layer: Iterable[_Node]) -> list[_Bundle]:
    found: dict[tuple[int, ...], _Bundle] = {}
    for child in layer:
        if child.parents:
            key = tuple(sorted(id(parent) for parent in child.parents))
            if key not in found:
                found[key] = _Bundle(list(child.parents))
                for parent in child.parents:
                    parent.bundles.append(found[key])
            found[key].children.append(child)
    return list(found.values())


def _order(layers: list[list[_Node]]) -> None:
    """Puts every node near the mean of its neighbours, a few times down and up, which undoes most crossings."""
    rank: dict[_Node, float] = {}

    def settle(layer: list[_Node], *, by_parents: bool) -> None:
        def wanted(node: _Node) -> float:
            near = node.parents if by_parents else node.children
            return sum(rank[other] for other in near) / len(near) if near else rank[node]

        layer.sort(key=wanted)
        rank.update((node, (place + 0.5) / len(layer)) for place, node in enumerate(layer))

    for layer in layers:
        rank.update((node, (place + 0.5) / len(layer)) for place, node in enumerate(layer))
    for _ in range(SWEEPS):
        for layer in layers[1:]:
            settle(layer, by_parents=True)
        for layer in reversed(layers[:-1]):
            settle(layer, by_parents=False)


def _place(layers: list[list[_Node]], gap: int) -> None:
    """Gives every node its columns: as near to the middle of its neighbours as those beside it allow."""
    for layer in layers:
        _spread(layer, [0.0] * len(layer), gap)
    for _ in range(SWEEPS):
        for layer in layers[1:]:
            _spread(layer, [_mean(node.parents, node) for node in layer], gap)
        for layer in reversed(layers[:-1]):
            _spread(layer, [_mean(node.children, node) for node in layer], gap)
    for layer in layers:
        free = None
        for node in layer:
            left = int((node.center - node.width / 2 + 0.5) // 1)
            node.left = left if free is None else max(left, free)
            free = node.left + node.width + gap
    leftmost = min(layer[0].left for layer in layers)
    for layer in layers:
        for node in layer:
            node.left -= leftmost
            node.aside = 0


def _mean(near: Sequence[_Node], node: _Node) -> float:
    return sum(other.center for other in near) / len(near) if near else node.center


def _spread(layer: Sequence[_Node], wanted: Sequence[float], gap: int) -> None:
    """The centers nearest to the wanted ones (least squares) that keep order and distance.

    Measured from where each node would be if all stood side by side, a valid placing never decreases; so runs of
    nodes that want to decrease are merged into one block at their mean.
    """
    packed: list[float] = []
    for index, node in enumerate(layer):
        packed.append(packed[-1] + (layer[index - 1].width + node.width) / 2 + gap if packed else 0.0)
    blocks: list[tuple[float, int]] = []
    for place, want in zip(packed, wanted, strict=True):
        mean, size = want - place, 1
        while blocks and blocks[-1][0] >= mean:
            before, members = blocks.pop()
            mean, size = (before * members + mean * size) / (members + size), members + size
        blocks.append((mean, size))
    shifts = [mean for mean, size in blocks for _ in range(size)]
    for node, place, shift in zip(layer, packed, shifts, strict=True):
        node.center = place + shift


def _assign_rows(bundles: list[_Bundle]) -> bool:
    """Gives every bundle the first row that is free where it lies. False if the bundles block each other."""
    waiting = sorted((b for b in bundles if not _straight(b)), key=lambda b: min(b.above() + b.below()))
    taken: list[list[tuple[int, int]]] = []
    placed: dict[_Bundle, int] = {}
    while waiting:
        # Where a bundle starts in the column in which another one ends, it has to turn aside above that one.
        ready = [
            b for b in waiting if not any(set(other.above()) & set(b.below()) for other in waiting if other is not b)
        ]
        if not ready:
            return False
        bundle = ready[0]
        waiting.remove(bundle)
        low, high = min(bundle.above() + bundle.below()), max(bundle.above() + bundle.below())
        row = 1 + max((r for other, r in placed.items() if set(other.above()) & set(bundle.below())), default=-1)
        while row < len(taken) and any(low <= end + 1 and start - 1 <= high for start, end in taken[row]):
            row += 1
        taken += [[] for _ in range(len(taken), row + 1)]
        taken[row].append((low, high))
        bundle.row = placed[bundle] = row
    return True


def _step_aside(bundles: list[_Bundle]) -> list[_Bundle]:
    """Lets the lines that arrive in a column where another one leaves arrive beside it."""
    leaving = {column for bundle in bundles for column in bundle.above()}
    for child in (child for bundle in bundles if not _straight(bundle) for child in bundle.children):
        reach = child.width // 2 - 1 if child.lines else 0
        free = [step for step in (0, 1, -1, 2, -2) if abs(step) <= reach and child.middle + step not in leaving]
        child.aside = free[0] if free else 0
    return bundles


def _straight(bundle: _Bundle) -> bool:
    return len(bundle.children) == 1 and bundle.above() == bundle.below()


class _Grid:
    """Cells are lines by direction, or characters of text."""

    def __init__(self) -> None:
        self.lines: dict[tuple[int, int], int] = {}
        self.chars: dict[tuple[int, int], str] = {}

    def join(self, y: int, x: int, directions: int) -> None:
        self.lines[y, x] = self.lines.get((y, x), 0) | directions

    def vertical(self, x: int, start: int, end: int) -> None:
        for y in range(start, end):
            self.lines[y, x] = _UP | _DOWN

    def horizontal(self, y: int, start: int, end: int) -> None:
        for x in range(start, end + 1):
            self.join(y, x, (_LEFT if x > start else 0) | (_RIGHT if x < end else 0))

    def box(self, y: int, node: _Node) -> None:
        right, bottom = node.left + node.width - 1, y + node.height - 1
        for row in (y, bottom):
            self.horizontal(row, node.left, right)
        for column in (node.left, right):
            self.join(y, column, _DOWN)
            self.vertical(column, y + 1, bottom)
            self.join(bottom, column, _UP)
        for row, line in enumerate(node.lines, start=y + 1):
            x = node.left + 2
            for char in line:
                key = (row, x if columns(char) else x - 1)
                self.chars[key] = self.chars.get(key, "") + char
                if columns(char) == 2:
                    self.chars[row, x + 1] = ""
                x += columns(char)

    def text(self, glyphs: str) -> list[str]:
        cells = {where: glyphs[mask] for where, mask in self.lines.items()} | self.chars
        height, width = max(y for y, _ in cells) + 1, max(x for _, x in cells) + 1
        return ["".join(cells.get((y, x), " ") for x in range(width)).rstrip() for y in range(height)]


def _paint(layers: list[list[_Node]], bands: list[list[_Bundle]]) -> _Grid:
    grid = _Grid()
    top = 0
    for layer, band in zip(layers, [*bands, []], strict=True):
        bottom = top + max(node.height for node in layer)
        rows = max((b.row + 1 for b in band if not _straight(b)), default=0)
        for node in layer:
            _paint_node(grid, node, top, bottom)
        for bundle in band:
            if not _straight(bundle):
                ends = bundle.above() + bundle.below()
                grid.horizontal(bottom + bundle.row, min(ends), max(ends))
        for bundle in band:
            _paint_verticals(grid, bundle, bottom, bottom + rows)
        top = bottom + rows
    return grid


def _paint_node(grid: _Grid, node: _Node, top: int, bottom: int) -> None:
    ports = [node.port(bundle) for bundle in node.bundles]
    if node.lines:
        grid.box(top, node)
        end = top + node.height - 1
        if node.parents:
            grid.join(top, node.middle + node.aside, _UP)
        for port in ports:
            grid.join(end, port, _DOWN)
            grid.vertical(port, end + 1, bottom)
        return
    grid.vertical(node.middle, top, bottom)
    if len(ports) > 1:
        grid.lines[bottom - 1, node.middle] = _UP
        grid.horizontal(bottom - 1, min(ports), max(ports))
        for port in ports:
            grid.join(bottom - 1, port, _DOWN)


def _paint_verticals(grid: _Grid, bundle: _Bundle, top: int, bottom: int) -> None:
    if _straight(bundle):
        grid.vertical(bundle.below()[0], top, bottom)
        return
    row = top + bundle.row
    for column in bundle.above():
        grid.vertical(column, top, row)
        grid.join(row, column, _UP)
    for column in bundle.below():
        grid.join(row, column, _DOWN)
        grid.vertical(column, row + 1, bottom)
