"""A report on penguins: a small graph that forks and joins.

            ┌─ summary ──────┐
    load ───┼─ correlations ─┼─── render
            └─ plot ─────────┘

The three in the middle run at the same time; `render` starts when the last of them has ended. What `load` returns is
larger than a record should be, so it is stored once and handed on by reference: no step notices.
"""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path
from statistics import correlation, mean, stdev

from detent import App, NonRetryable
from pydantic import ValidationError

from examples.report.page import write_page
from examples.report.penguins import ALL, MEASURES, Bird, Correlation, Request, SpeciesSummary, Spread
from examples.report.scatter import Series, scatter


class Unreadable(NonRetryable):
    """The file is not a table of penguins; reading it again would not help."""


app = App("report")
report = app.workflow("report", input=Request, output=str, description="Penguins, from a CSV to a page")


@report.step
def load(request: Request) -> list[Bird]:
    """The birds in the file."""
    try:
        with Path(request.csv).open(encoding="utf-8", newline="") as opened:
            birds = [Bird.model_validate(row) for row in csv.DictReader(opened)]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise Unreadable(f"{request.csv} is not a table of penguins: {error}") from error
    if not birds:
        raise Unreadable(f"{request.csv} has no birds in it.")
    return birds


@report.step
def summary(birds: list[Bird] = load.output) -> list[SpeciesSummary]:
    """Means and standard deviations by species."""
    return [
        SpeciesSummary(
            species=species,
            birds=len(flock),
            measured=sum(all(bird.measure(name) is not None for name in MEASURES) for bird in flock),
            islands=sorted({bird.island for bird in flock}),
            spreads={name: Spread(mean=mean(found), deviation=stdev(found)) for name, found in _columns(flock)},
        )
        for species, flock in _by_species(birds).items()
    ]


@report.step
def correlations(birds: list[Bird] = load.output) -> list[Correlation]:
    """How each two measures go together, in all birds and within each species."""
    groups = {ALL: birds, **_by_species(birds)}
    found: list[Correlation] = []
    for first, second in combinations(MEASURES, 2):
        pairs = {group: _pairs(flock, first, second) for group, flock in groups.items()}
        r = {group: correlation(*zip(*points, strict=True)) for group, points in pairs.items() if len(points) > 2}
        found.append(Correlation(first=first, second=second, r=r))
    return found


@report.step
def plot(birds: list[Bird] = load.output) -> str:
    """Bill length against bill depth, as SVG."""
    x, y = "bill_length_mm", "bill_depth_mm"
    series = [Series(species, _pairs(flock, x, y)) for species, flock in _by_species(birds).items()]
    return scatter(series, x=MEASURES[x], y=MEASURES[y], title="Bill depth by bill length, each bird a mark")


@report.step
def render(
    request: Request,
    rows: list[SpeciesSummary] = summary.output,
    related: list[Correlation] = correlations.output,
    drawing: str = plot.output,
) -> str:
    """Writes the page and returns its path. Doing it again writes the same page."""
    return write_page(Path(request.html), rows, related, drawing)


def _by_species(birds: list[Bird]) -> dict[str, list[Bird]]:
    return {name: [bird for bird in birds if bird.species == name] for name in sorted({b.species for b in birds})}


def _columns(birds: list[Bird]) -> list[tuple[str, list[float]]]:
    """Each measure's values, without the missing ones."""
    columns = ((name, [v for bird in birds if (v := bird.measure(name)) is not None]) for name in MEASURES)
    return [(name, values) for name, values in columns if len(values) > 1]


def _pairs(birds: list[Bird], first: str, second: str) -> list[tuple[float, float]]:
    """Both measures of the birds that have both."""
    pairs = ((bird.measure(first), bird.measure(second)) for bird in birds)
    return [(x, y) for x, y in pairs if x is not None and y is not None]
