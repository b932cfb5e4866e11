"""The size of a folder, and of its parts."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MB = 1024 * 1024
"""Bytes. What Lambda's limits mean by it."""
LIMIT = 250 * MB
"""Bytes that Lambda takes, unzipped. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""

_ABOUT_PACKAGES = "(metadata, licences)"


@dataclass(frozen=True, slots=True)
class Part:
    """A top-level package or module of the folder, in bytes. `zipped` is deflated file by file, as a zip does it."""

    name: str
    files: int
    unzipped: int
    zipped: int


@dataclass(frozen=True, slots=True)
class Size:
    """`parts` are sorted, the largest first."""

    parts: tuple[Part, ...]

    @property
    def files(self) -> int:
        return sum(part.files for part in self.parts)

    @property
    def unzipped(self) -> int:
        return sum(part.unzipped for part in self.parts)

    @property
    def zipped(self) -> int:
        return sum(part.zipped for part in self.parts)


def weigh(folder: Path) -> Size:
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for path in files_of(folder):
        top = path.relative_to(folder).parts[0]
        content = path.read_bytes()
        name = _ABOUT_PACKAGES if top.endswith(".dist-info") else top
        found[name].append((len(content), len(zlib.compress(content))))
    parts = (
        Part(name, len(each), sum(size for size, _ in each), sum(zipped for _, zipped in each))
        for name, each in found.items()
    )
    return Size(tuple(sorted(parts, key=lambda part: (-part.unzipped, part.name))))


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
