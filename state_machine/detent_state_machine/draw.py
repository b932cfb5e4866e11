"""Drawings of a definition: Mermaid for documents, lines and boxes for a terminal; and of the transition table.

Names are shown as they are, whatever characters they hold: in Mermaid as entities, in a terminal with control
characters spelled out, so that a name can neither break a drawing nor move the cursor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detent_state_machine import kinds, layered
from detent_state_machine.definition import DEFAULT_TAKEOVERS, DEFAULT_TIMEOUT, Definition, StepDefinition
from detent_state_machine.graph import topological
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.transitions import STEP_TABLE
from detent_state_machine.when import describe

MIN_WIDTH = 20
"""Columns below which a terminal drawing does not shrink."""

_COLOURS = {
    StepStatus.RUNNING: "fill:#cfe2ff,stroke:#084298,color:#052c65",
    StepStatus.RETRYING: "fill:#fff3cd,stroke:#997404,color:#664d03",
    StepStatus.WAITING: "fill:#cff4fc,stroke:#087990,color:#055160",
    StepStatus.COMPLETED: "fill:#d1e7dd,stroke:#146c43,color:#0a3622",
    StepStatus.FAILED: "fill:#f8d7da,stroke:#b02a37,color:#58151c",
    StepStatus.SKIPPED: "fill:#e9ecef,stroke:#6c757d,color:#495057",
    StepStatus.CANCELLED: "fill:#e2d9f3,stroke:#59359a,color:#2c0b4d",
}
_MARKS = {
    StepStatus.RUNNING: ("▶", ">"),
    StepStatus.RETRYING: ("↻", "~"),
    StepStatus.WAITING: ("◷", "%"),
    StepStatus.COMPLETED: ("✓", "+"),
    StepStatus.FAILED: ("✗", "x"),
    StepStatus.SKIPPED: ("○", "o"),
    StepStatus.CANCELLED: ("⊘", "/"),
}


# ---- what there is to say about a step ------------------------------------------------------------------------


def notes(step: StepDefinition) -> list[str]:
    """What is not the default about a step, a few words each."""
    found = [f"if {describe(step.when)}"] if step.when else []
    if waits_for := kinds.describe(step.kind):
        found.append(waits_for)
    if step.delivery is not Delivery.AT_LEAST_ONCE:
        found.append(step.delivery.value.replace("_", " "))
    found += _retry_notes(step.retry)
    if step.timeout != DEFAULT_TIMEOUT:
        found.append(f"timeout {_duration(step.timeout)}")
    if step.takeovers != DEFAULT_TAKEOVERS:
        found.append(f"{step.takeovers} take-overs")
    return found


def _retry_notes(retry: Retry) -> list[str]:
    usual = Retry()
    if retry.attempts == 1:
        return ["no retry"]
    found = [f"{retry.attempts} attempts"] if retry.attempts != usual.attempts else []
    if (retry.initial, retry.backoff, retry.max_delay) != (usual.initial, usual.backoff, usual.max_delay):
        found.append(f"pause {_duration(retry.initial)} x{retry.backoff:g} up to {_duration(retry.max_delay)}")
    if not retry.jitter:
        found.append("no jitter")
    if retry.non_retryable:
        found.append(f"no retry on {', '.join(retry.non_retryable)}")
    return found


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _status(statuses: Mapping[str, str] | None, step: StepDefinition) -> StepStatus | None:
    """The step's status; None without one, or for a word that is none."""
    found = statuses.get(step.name, "") if statuses else ""
    return StepStatus(found) if found in StepStatus.__members__ else None


def _sections(definition: Definition) -> list[tuple[str, list[StepDefinition]]]:
    ordered = topological(definition.steps)
    main = [step for step in ordered if step.scope == "main"]
    handlers = [step for step in ordered if step.scope == "on_failure"]
    return [(title, steps) for title, steps in (("", main), ("on failure", handlers)) if steps]


# ---- Mermaid --------------------------------------------------------------------------------------------------


def mermaid(definition: Definition, statuses: Mapping[str, str] | None = None) -> str:
    """A Mermaid flowchart. A dotted edge does not skip its step when the step it comes from is skipped.

    `statuses` by step name colour the steps; words that are not a step status are ignored.
    """
    ids = {step.name: f"s{index}" for index, step in enumerate(definition.steps)}
    lines = ["flowchart TD"]
    for title, steps in _sections(definition):
        indent = "    "
        if title:
            lines.append(f'    subgraph handlers["{title}"]')
            indent *= 2
        lines += [f'{indent}{ids[step.name]}["{_mermaid_box(step, _status(statuses, step))}"]' for step in steps]
        for step in steps:
            for parent in step.parents:
                if parent.step in ids:
                    edge = "-->" if parent.need == "completed" else "-.->"
                    lines.append(f"{indent}{ids[parent.step]} {edge} {ids[step.name]}")
        if title:
            lines.append("    end")
    for status, colours in _COLOURS.items():
        coloured = [ids[step.name] for step in definition.steps if _status(statuses, step) is status]
        if coloured:
            lines += [f"    classDef {status.lower()} {colours}", f"    class {','.join(coloured)} {status.lower()}"]
    return "\n".join(lines) + "\n"


def _mermaid_box(step: StepDefinition, status: StepStatus | None) -> str:
    rows = [step.name, *([f"{_MARKS[status][0]} {status.lower()}"] if status else []), *notes(step)]
    return "<br/>".join(map(_mermaid_text, rows))


def _mermaid_text(text: str) -> str:
    """The text inside a quoted label: everything that Mermaid, Markdown or HTML could read as theirs is an entity."""
    padded = f" {text} "
    shown: list[str] = []
    for before, char, after in zip(padded, text, padded[2:], strict=False):
        plain = char.isalnum() or char in " ,()'=!:/✓✗▶↻○⊘"
        if char == "_":
            plain = before.isalnum() and after.isalnum()  # at the edge of a word it is emphasis
        elif char in "-.+":
            plain = after != " "  # before a space it starts a list
        shown.append(char if plain else f"#{ord(char)};" if char.isprintable() else "#65533;")
    return "".join(shown)


def transitions_mermaid() -> str:
    """The transition table of a step run as a Mermaid state diagram."""
    names: dict[tuple[StepStatus | None, StepStatus], list[str]] = {}
    for change, (sources, target, _) in STEP_TABLE.items():
        for source in sources:
            names.setdefault((source, target), []).append(change.value)
    lines = ["stateDiagram-v2"]
    lines += [
        f"    {source or '[*]'} --> {target}: {', '.join(changes)}" for (source, target), changes in names.items()
    ]
    lines += [f"    {status} --> [*]" for status in StepStatus if status.terminal]
    return "\n".join(lines) + "\n"


# ---- a terminal -------------------------------------------------------------------------------------------------


def text(
    definition: Definition, statuses: Mapping[str, str] | None = None, width: int = 80, *, ascii: bool = False
) -> str:
    """The steps in layers, for a terminal of `width` columns (at least `MIN_WIDTH`); `ascii` keeps to ASCII.

    Boxes and lines where they fit, otherwise a list of the steps by layer that names their parents.
    """
    width = max(width, MIN_WIDTH)
    lines: list[str] = []
    for title, steps in _sections(definition):
        if title:
            lines += ["", f"{title}:"]
        index = {step.name: number for number, step in enumerate(steps)}
        parents = [[index[parent.step] for parent in step.parents if parent.step in index] for step in steps]
        marks = [_mark(_status(statuses, step), ascii) for step in steps]
        lines += _boxes(steps, parents, marks, width, ascii) or _list(steps, parents, marks, width, ascii)
    return "\n".join(lines) + "\n"


def _mark(status: StepStatus | None, ascii: bool) -> str:
    return "" if status is None else f"{_MARKS[status][ascii]} {status.lower()}"


def _boxes(
    steps: Sequence[StepDefinition], parents: list[list[int]], marks: Sequence[str], width: int, ascii: bool
) -> list[str] | None:
    """The widest boxes that fit; None where a name would have to be broken."""
    names = [_terminal_text(step.name, ascii) for step in steps]
    widest = max(map(layered.columns, names))
    for columns in sorted({widest, 40, 28, 20, 14}, reverse=True):
        if columns < widest:
            return None
        boxes = [
            [
                name,
                *([mark] if mark else []),
                *(row for note in _box_notes(step, ascii) for row in _wrap(note, columns)),
            ]
            for name, mark, step in zip(names, marks, steps, strict=True)
        ]
        drawn = layered.draw(boxes, parents, width=width, ascii=ascii)
        if drawn is not None:
            return drawn
    return None


def _box_notes(step: StepDefinition, ascii: bool) -> list[str]:
    lenient = [parent.step for parent in step.parents if parent.need == "done"]
    are = "is" if len(lenient) == 1 else "are"
    shown = [*notes(step), *([f"even if {', '.join(lenient)} {are} skipped"] if lenient else [])]
    return [_terminal_text(note, ascii) for note in shown]


def _list(
    steps: Sequence[StepDefinition], parents: list[list[int]], marks: Sequence[str], width: int, ascii: bool
) -> list[str]:
    lines: list[str] = []
    digits = len(str(max(layered.depths(parents)) + 1))
    for step, layer, mark in zip(steps, layered.depths(parents), marks, strict=True):
        after = ", ".join(_terminal_text(parent.step, ascii) for parent in step.parents)
        head = f"{_terminal_text(step.name, ascii)}{f' ({mark})' if mark else ''}{f', after {after}' if after else ''}"
        rows = _wrap(head, width - digits - 1)
        lines += [f"{f'{layer + 1}' if not i else '':>{digits}} {row}" for i, row in enumerate(rows)]
        details = "; ".join(_box_notes(step, ascii))
        lines += [" " * (digits + 3) + row for row in _wrap(details, width - digits - 3)] if details else []
    return lines


def _wrap(line: str, width: int) -> list[str]:
    """The line in rows of at most `width` columns, broken at spaces where there are any."""
    rows = [""]
    for word in line.split(" "):
        if rows[-1] and layered.columns(rows[-1]) + 1 + layered.columns(word) <= width:
            rows[-1] += f" {word}"
            continue
        if rows[-1]:
            rows.append("")
        for char in word:
            if layered.columns(rows[-1] + char) > width:
                rows.append("")
            rows[-1] += char
    return rows


def _terminal_text(text: str, ascii: bool) -> str:
    """The text without characters that a terminal would obey, and in ASCII if that is all it can show."""
    return "".join(
        char if char.isprintable() and (char.isascii() or not ascii) else char.encode("unicode_escape").decode()
        for char in text
    )
