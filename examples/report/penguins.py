"""What goes from step to step."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator

Measured = Annotated[float | None, BeforeValidator(lambda text: None if text == "NA" else text)]
"""A measurement; None where the file says NA."""

MEASURES = {
    "bill_length_mm": "bill length, mm",
    "bill_depth_mm": "bill depth, mm",
    "flipper_length_mm": "flipper length, mm",
    "body_mass_g": "body mass, g",
}
ALL = "all"


class Request(BaseModel):
    """Which file to report on, and where the page goes."""

    csv: str
    html: str


class Bird(BaseModel):
    species: str
    island: str
    bill_length_mm: Measured
    bill_depth_mm: Measured
    flipper_length_mm: Measured
    body_mass_g: Measured

    def measure(self, name: str) -> float | None:
        value: float | None = getattr(self, name)
        return value


class Spread(BaseModel):
    mean: float
    deviation: float


class SpeciesSummary(BaseModel):
    """`spreads` by the name of the measure, over the birds that were measured."""

    species: str
    birds: int
    measured: int
    islands: list[str]
    spreads: dict[str, Spread]


class Correlation(BaseModel):
    """Pearson's r of two measures, by species, and over `all` birds."""

    first: str
    second: str
    r: dict[str, float]
