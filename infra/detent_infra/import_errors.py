"""What an author's module does while it is imported, told as one line: what was raised, in which file and line."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

_INSTALLED = frozenset(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))

_OURS = frozenset(("detent", "detent_functions", "detent_infra", "detent_state_machine"))


def where(error: BaseException, own: Sequence[Path]) -> str:
    """The line of the author's code that failed, as ` (shop.py, line 7)`; `own` are the folders that it lies in."""
    if isinstance(error, SyntaxError) and error.filename:
        line = f", line {error.lineno}" if error.lineno else ""
        return f" ({_shown(error.filename, own)}{line})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    theirs = [frame for frame in frames if _is_own(frame.filename, own)]
    if not (theirs or frames):
        return ""
    frame = (theirs or frames)[-1]
    return f" ({_shown(frame.filename, own)}, line {frame.lineno})"


def what(error: BaseException) -> str:
    """The error's class and message on one line, as a sentence. Never raises."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException as broken:  # noqa: BLE001 - the author's own `__str__`
        text = f"(its message cannot be shown: {type(broken).__name__})"
    line = " ".join(text.split())
    said = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return said if said.endswith((".", "?", "!")) else f"{said}."


def _is_own(file: str, own: Sequence[Path]) -> bool:
    path = Path(file)
    if any(path.is_relative_to(folder) for folder in _INSTALLED):
        return False
    return any(path.is_relative_to(folder) and not _is_unpacked(path, folder) for folder in own)


def _is_unpacked(path: Path, folder: Path) -> bool:
    """Whether it is code of detent or of a distribution that lies beside the author's, as in what Lambda unpacks."""
    name = path.relative_to(folder).parts[0].removesuffix(".py")
    return name in _OURS or any(folder.glob(f"{name}-*.dist-info"))


def _shown(file: str, own: Sequence[Path]) -> str:
    path = Path(file)
    return next((str(path.relative_to(folder)) for folder in own if path.is_relative_to(folder)), file)
