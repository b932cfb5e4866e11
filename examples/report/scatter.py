"""A scatter plot as SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import linear_regression

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 84
COLOURS = ("#d55e00", "#7b4fa3", "#00796b", "#0072b2")
"""Told apart by people who do not see all colours; the marks differ in shape as well."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points with a name."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels. `ticks` are round numbers that enclose all values."""

    ticks: Sequence[float]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.start + share * (self.end - self.start)


def scatter(series: Sequence[Series], *, x: str, y: str, title: str) -> str:
    """The plot: marks by series, a line of best fit through each, and a dashed one through all points."""
    everything = [point for one in series for point in one.points]
    if not everything:
        return '<svg xmlns="http://www.w3.org/2000/svg" role="img"><title>no points</title></svg>'
    across = Axis(ticks([point[0] for point in everything]), LEFT, WIDTH - RIGHT)
    up = Axis(ticks([point[1] for point in everything]), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="scatter">',
        f"<title>{escape(title)}</title>",
        *_axes(across, up, x, y),
        *(_mark(index, across(a), up(b)) for index, one in enumerate(series) for a, b in one.points),
        _line(everything, across, up, "var(--muted)", ' stroke-dasharray="7 5"'),
        *(_line(one.points, across, up, _colour(index), "") for index, one in enumerate(series)),
        *_legend(series),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def ticks(values: Sequence[float], about: int = 7) -> list[float]:
    """Round numbers, evenly spaced, from at most the smallest value to at least the largest."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if rough <= magnitude * factor)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _axes(across: Axis, up: Axis, x: str, y: str) -> list[str]:
    bottom, left, right = HEIGHT - BOTTOM, LEFT, WIDTH - RIGHT
    parts = ['<g class="axes">']
    for tick in up.ticks:
        parts.append(f'<line x1="{left}" x2="{right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in across.ticks:
        parts.append(f'<line x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{across(tick):.1f}" y="{bottom + 20}" text-anchor="middle">{tick:g}</text>')
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="name" x="{(left + right) / 2}" y="{bottom + 42}" text-anchor="middle">{escape(x)}</text>'
    )
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text class="name" x="14" y="{middle}" text-anchor="middle" {turned}>{escape(y)}</text>')
    return [*parts, "</g>"]


def _mark(index: int, x: float, y: float) -> str:
    """A circle, a triangle, a square or a diamond."""
    style = f'fill="{_colour(index)}" fill-opacity="0.55" stroke="{_colour(index)}"'
    match index % 4:
        case 0:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" {style}/>'
        case 1:
            return f'<path d="M{x:.1f} {y - 4.5:.1f}l4.3 7.6h-8.6z" {style}/>'
        case 2:
            return f'<rect x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6" {style}/>'
        case _:
            return f'<path d="M{x:.1f} {y - 4.8:.1f}l4.8 4.8l-4.8 4.8l-4.8 -4.8z" {style}/>'


def _line(points: Sequence[tuple[float, float]], across: Axis, up: Axis, colour: str, style: str) -> str:
    """The line of best fit, as far as the points reach."""
    horizontal = [point[0] for point in points]
    if len(set(horizontal)) < 2:
        return ""
    slope, intercept = linear_regression(horizontal, [point[1] for point in points])
    ends = [(across(at), up(intercept + slope * at)) for at in (min(horizontal), max(horizontal))]
    (x1, y1), (x2, y2) = ends
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="fit" {place} style="stroke:{colour}"{style}/>'


def _legend(series: Sequence[Series]) -> list[str]:
    y = HEIGHT - 14
    width = (WIDTH - LEFT - RIGHT) / (len(series) + 1)
    parts = ['<g class="legend">']
    for index, one in enumerate(series):
        x = LEFT + width * index
        parts.append(_mark(index, x + 6, y - 4))
        parts.append(f'<text x="{x + 18:.1f}" y="{y}">{escape(one.name)} ({len(one.points)})</text>')
    x = LEFT + width * len(series)
    parts.append(f'<line class="fit" x1="{x:.1f}" x2="{x + 26:.1f}" y1="{y - 4}" y2="{y - 4}" stroke-dasharray="7 5"/>')
    parts.append(f'<text x="{x + 34:.1f}" y="{y}">best fit, all birds</text>')
    return [*parts, "</g>"]


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
