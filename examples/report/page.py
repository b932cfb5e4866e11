"""The page: one HTML file with everything in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from examples.report.penguins import ALL, MEASURES, Correlation, SpeciesSummary, Spread

STYLE = """
:root { --ink: #1c2430; --muted: #5b6675; --line: #dde2e8; --paper: #fff;
  --strong: 0, 114, 178; --against: 213, 94, 0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --muted: #9aa5b4; --line: #2f3844; --paper: #14181f; }
}
body { font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper);
  max-width: 46rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; } h2 { font-size: 1.1rem; margin: 2.4rem 0 .5rem; }
p { margin: .4rem 0 1rem; } .lead, footer, caption { color: var(--muted); }
footer { font-size: .85rem; margin-top: 3rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .45rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--muted); }
thead th { white-space: normal; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; }
tbody th { color: var(--ink); } small { color: var(--muted); font-size: .85em; }
caption { caption-side: bottom; text-align: left; font-size: .85rem; padding-top: .5rem; }
svg.scatter { width: 100%; height: auto; display: block; margin: .5rem 0; }
svg.scatter text { font-size: 12.5px; fill: var(--muted); } svg.scatter .name { fill: var(--ink); }
svg.scatter .legend text { font-size: 13px; fill: var(--ink); } svg.scatter .axes line { stroke: var(--line); }
svg.scatter .fit { stroke: var(--muted); stroke-width: 2.2; }
"""


def write_page(file: Path, rows: Sequence[SpeciesSummary], related: Sequence[Correlation], plot: str) -> str:
    """Writes the whole page or none of it, so that a reader never sees half of one. Returns its absolute path."""
    file = file.absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}.draft")
    draft.write_text(page(rows, related, plot), encoding="utf-8")
    draft.replace(file)
    return str(file)


def page(rows: Sequence[SpeciesSummary], related: Sequence[Correlation], plot: str) -> str:
    """`plot` is SVG and goes in as it is; everything else is escaped."""
    birds, measured = sum(row.birds for row in rows), sum(row.measured for row in rows)
    islands = sorted({island for row in rows for island in row.islands})
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Penguins of the Palmer Archipelago</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Penguins of the Palmer Archipelago</h1>
<p class="lead">{birds} birds of {len(rows)} species on {len(islands)} islands ({escape(", ".join(islands))}).
{birds - measured} could not be measured and are left out of the figures.</p>

<h2>Bills: longer is not deeper, or is it?</h2>
<p>{_paradox(related)}</p>
{plot}

<h2>By species</h2>
<div class="wide"><table>
<thead><tr><th>species</th><th>birds</th>{"".join(map(_heading, MEASURES))}</tr></thead>
<tbody>
{"".join(_species(row) for row in rows)}</tbody>
<caption>Mean and standard deviation of the birds that were measured.</caption>
</table></div>

<h2>What goes with what</h2>
{_correlations(related, [row.species for row in rows])}

<footer>Data: Palmer Station LTER and Dr. Kristen Gorman, CC0, as published in palmerpenguins.
Made by the workflow <code>report</code>: load, then summary, correlations and plot side by side, then render.</footer>
</body>
</html>
"""


def _heading(measure: str) -> str:
    unit = MEASURES[measure].partition(", ")[2]
    return f"<th>{_name(measure)} <small>{escape(unit)}</small></th>"


def _species(row: SpeciesSummary) -> str:
    cells = "".join(f"<td>{_spread(row.spreads.get(name))}</td>" for name in MEASURES)
    return f"<tr><th>{escape(row.species)}</th><td>{row.birds}</td>{cells}</tr>\n"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    digits = 0 if spread.mean >= 1000 else 1
    return f"{spread.mean:,.{digits}f} <small>± {spread.deviation:,.{digits}f}</small>"


def _correlations(related: Sequence[Correlation], species: Sequence[str]) -> str:
    groups = [ALL, *species]
    head = "".join(f"<th>{escape('all birds' if group == ALL else group)}</th>" for group in groups)
    body = "".join(
        f"<tr><th>{_name(one.first)} and {_name(one.second)}</th>{''.join(_cell(one.r.get(g)) for g in groups)}</tr>\n"
        for one in related
    )
    return f"""<div class="wide"><table>
<thead><tr><th>measures</th>{head}</tr></thead>
<tbody>
{body}</tbody>
<caption>Pearson's r: 1 where both grow together, -1 where one shrinks as the other grows, 0 for neither.</caption>
</table></div>"""


def _cell(r: float | None) -> str:
    if r is None:
        return "<td>-</td>"
    colour = "--strong" if r > 0 else "--against"
    return f'<td style="background: rgba(var({colour}), {abs(r) * 0.45:.2f})">{_signed(r)}</td>'


def _paradox(related: Sequence[Correlation]) -> str:
    """What the plot shows, in words and with its figures."""
    bills = next((one for one in related if {one.first, one.second} == {"bill_length_mm", "bill_depth_mm"}), None)
    overall = None if bills is None else bills.r.get(ALL)
    within = [] if bills is None else [(name, r) for name, r in bills.r.items() if name != ALL]
    if overall is None or not within:
        return "Too few birds were measured to say."
    if overall < 0 < min(r for _, r in within):
        figures = ", ".join(f"{escape(name)} {_signed(r)}" for name, r in within)
        return (
            f"Over all birds, longer bills are shallower (r = {_signed(overall)}, dashed line). Within every species "
            f"it is the other way round ({figures}): the species differ, and hide what holds in each of them. "
            "This is Simpson's paradox, on real birds."
        )
    return f"Over all birds, r = {_signed(overall)} (dashed line); within a species it may differ (solid lines)."


def _signed(r: float) -> str:
    return f"{r:+.2f}".replace("-", "\u2212")


def _name(measure: str) -> str:
    """The measure without its unit."""
    return escape(MEASURES[measure].partition(",")[0])
