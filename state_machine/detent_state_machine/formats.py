"""Which format of a definition a feature needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Since:
    """`Annotated[…, Since(2)] = default`: the field came with format 2, and older workers do not know it.

    A definition needs a worker of that format only where the field does not have its default. `values`: formats of
    single values that came later than the field.
    """

    format: int
    values: Mapping[str, int] | None = None

    def needed_by(self, value: object) -> int:
        return (self.values or {}).get(value, self.format) if isinstance(value, str) else self.format
