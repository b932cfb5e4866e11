"""Drawings show every step and every edge, nothing else, and no name can break them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest
from detent_state_machine import layered
from detent_state_machine.definition import Definition, Parent, StepDefinition
from detent_state_machine.draw import MIN_WIDTH, mermaid, notes, text, transitions_mermaid
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.transitions import STEP_TABLE
from detent_state_machine.when import Compare, Ref
from hypothesis import given, settings
from hypothesis import strategies as st

PAID = Compare(op=">", left=Ref(step=None, path=("total",)), right=0)


def step(name: str, *after: str | Parent, **more: object) -> StepDefinition:
    parents = [Parent(step=one, need="completed") if isinstance(one, str) else one for one in after]
    return StepDefinition.model_validate({"name": name, "parents": tuple(parents), **more})


def done(name: str) -> Parent:
    """A parent that may be skipped."""
    return Parent(step=name, need="done")


def workflow(*steps: StepDefinition) -> Definition:
    return Definition(name="orders", steps=steps)


CHAIN = workflow(step("reserve"), step("charge", "reserve"), step("ship", "charge"))
DIAMOND = workflow(step("reserve"), step("charge", "reserve"), step("pick", "reserve"), step("ship", "charge", "pick"))
WIDE = workflow(
    step("load"), *(step(f"part{n}", "load") for n in range(12)), step("end", *(f"part{n}" for n in range(12)))
)
HANDLED = workflow(step("a"), step("undo", scope="on_failure"), step("tell", "undo", scope="on_failure"))


# ---- a terminal -------------------------------------------------------------------------------------------------


def test_a_chain_is_boxes_one_below_the_other() -> None:
    assert text(workflow(step("abc"), step("xyz", "abc"))) == (
        "┌─────┐\n"
        "│ abc │\n"
        "└──┬──┘\n"
        "┌──┴──┐\n"
        "│ xyz │\n"
        "└─────┘\n"
    )  # fmt: skip


def test_a_diamond_shares_its_lines() -> None:
    assert text(DIAMOND) == (
        "      ┌─────────┐\n"
        "      │ reserve │\n"
        "      └────┬────┘\n"
        "     ┌─────┴─────┐\n"
        "┌────┴────┐  ┌───┴───┐\n"
        "│ charge  │  │ pick  │\n"
        "└────┬────┘  └───┬───┘\n"
        "     └─────┬─────┘\n"
        "       ┌───┴───┐\n"
        "       │ ship  │\n"
        "       └───────┘\n"
    )


def test_ascii_draws_the_same_without_other_characters() -> None:
    drawn = text(DIAMOND, {"reserve": "COMPLETED"}, ascii=True)
    assert drawn.isascii()
    assert "| reserve     |" in drawn
    assert "| + completed |" in drawn
    assert len(drawn.splitlines()) == len(text(DIAMOND, {"reserve": "COMPLETED"}).splitlines())


def test_what_does_not_fit_into_the_columns_is_a_list_by_layer() -> None:
    drawn = text(WIDE, width=40)
    assert drawn.splitlines()[:3] == ["1 load", "2 part0, after load", "2 part1, after load"]
    assert "3 end, after part0, part1, part2," in drawn
    assert "┌" in text(WIDE, width=200)


def test_an_edge_past_other_layers_goes_around_the_boxes_between() -> None:
    drawn = text(workflow(step("a"), step("b", "a"), step("c", "a", "b")))
    assert traced(drawn, "abc") == {("a", "b"), ("a", "c"), ("b", "c")}


def test_the_failure_handler_is_drawn_apart() -> None:
    before, after = text(HANDLED).split("\non failure:\n")
    assert "a" in before
    assert "undo" not in before
    assert traced(after, ["undo", "tell"]) == {("undo", "tell")}


def test_a_status_is_shown_in_words_and_an_unknown_one_is_not() -> None:
    drawn = text(
        CHAIN, {"reserve": "COMPLETED", "charge": StepStatus.FAILED, "ship": "ON FIRE", "no such step": "FAILED"}
    )
    assert "✓ completed" in drawn
    assert "✗ failed" in drawn
    assert "FIRE" not in drawn


def test_a_parent_that_may_be_skipped_is_named() -> None:
    assert "even if charge is skipped" in text(workflow(step("charge"), step("ship", done("charge"))))


@pytest.mark.parametrize("width", [0, 20, 33, 60, 80, 200])
@pytest.mark.parametrize("definition", [CHAIN, DIAMOND, WIDE, HANDLED], ids=["chain", "diamond", "wide", "handled"])
def test_no_line_is_wider_than_the_terminal(definition: Definition, width: int) -> None:
    assert max(map(layered.columns, text(definition, width=width).splitlines())) <= max(width, MIN_WIDTH)


def test_a_name_longer_than_the_terminal_is_broken_and_none_of_it_is_lost() -> None:
    name = "very_long_name_" * 8
    drawn = text(workflow(step(name), step("b", name)), width=30)
    assert max(map(len, drawn.splitlines())) <= 30
    assert name in re.sub(r"\s", "", drawn)


def test_a_name_cannot_move_the_cursor() -> None:
    drawn = text(workflow(step("a\x1b[2J\nb"), step("c", "a\x1b[2J\nb")), width=40)
    assert r"a\x1b[2J\nb" in drawn
    assert "\x1b" not in drawn


def test_wide_characters_count_as_two_columns() -> None:
    lines = text(workflow(step("予約"), step("b", "予約"))).splitlines()
    assert lines[1] == "│ 予約  │"
    assert {layered.columns(line) for line in lines[:3]} == {9}


def test_a_cycle_in_a_definition_by_hand_is_listed_not_drawn_forever() -> None:

    assert "after b" in text(workflow(step("a", "b"), step("b", "a")))


GLYPHS = {glyph: mask for mask, glyph in enumerate(layered._LINES) if mask}
UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8


def traced(drawn: str, names: Sequence[str]) -> set[tuple[str, str]]:
    """The edges somebody sees who follows the lines from box to box, downwards and never up."""
    rows = drawn.splitlines()
    cell = {(y, x): char for y, row in enumerate(rows) for x, char in enumerate(row)}
    owner: dict[tuple[int, int], str] = {}
    borders: dict[str, tuple[int, int, int]] = {}
    for name in names:
        y, x = next((y, m.start()) for y, row in enumerate(rows) if (m := re.search(rf"(?<=│ ){name}(?= )", row)))
        left, right = x - 2, rows[y].index("│", x)
        bottom = next(b for b in range(y, len(rows)) if cell.get((b, left)) == "└")
        owner |= {(r, c): name for r in range(y - 1, bottom + 1) for c in range(left, right + 1)}
        borders[name] = (bottom, left, right)

    def mask(where: tuple[int, int]) -> int:
        return GLYPHS.get(cell.get(where, " "), 0)

    def sideways(y: int, x: int, step: int) -> int | None:
        """The next column the line goes on in: behind the verticals that cross it."""
        towards, back = (RIGHT, LEFT) if step > 0 else (LEFT, RIGHT)
        if not mask((y, x)) & towards:
            return None
        x += step
        while not mask((y, x)) & back:
            assert mask((y, x)) == UP | DOWN, f"the line breaks off at {y}, {x}\n{drawn}"
            x += step
        return x

    edges: set[tuple[str, str]] = set()
    for name, (bottom, left, right) in borders.items():
        seen: set[tuple[int, int]] = set()
        todo = [(bottom + 1, x) for x in range(left, right + 1) if mask((bottom, x)) & DOWN]
        while todo:
            where = todo.pop()
            if where in owner:
                edges.add((name, owner[where]))
            elif where not in seen:
                seen.add(where)
                y, x = where
                todo += [(y + 1, x)] if mask(where) & DOWN else []
                todo += [(y, to) for step in (-1, 1) if (to := sideways(y, x, step)) is not None]
    return edges


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    size = draw(st.integers(1, 9))
    return [sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else [] for i in range(size)]


@given(graphs(), st.lists(st.sampled_from(["", "x", "xxxxx"]), min_size=9, max_size=9))
@settings(max_examples=300, deadline=None)
def test_the_lines_of_any_drawing_lead_along_its_edges_and_nowhere_else(
    parents: list[list[int]], padding: list[str]
) -> None:
    names = [f"s{index}{padding[index]}" for index in range(len(parents))]
    drawn = layered.draw([[name] for name in names], parents, width=500, ascii=False)
    if drawn is None:  # a tangle: listed
        return
    wanted = {(names[parent], names[child]) for child, above in enumerate(parents) for parent in above}
    assert traced("\n".join(drawn), names) == wanted


def test_tangles_are_rare() -> None:
    """Of all graphs with five nodes, each after any of those before it."""
    drawn = total = 0
    for code in range(2**10):
        bits = iter(f"{code:010b}")
        parents = [[before for before in range(node) if next(bits) == "1"] for node in range(5)]
        total += 1
        drawn += layered.draw([["a"]] * 5, parents, width=200, ascii=False) is not None
    assert drawn > 0.98 * total


# ---- Mermaid --------------------------------------------------------------------------------------------------

LABEL = r'"((?:[\w ,()\'=!:/.+✓✗▶↻○⊘-]|#\d+;|<br/>)*)"'
GRAMMAR = [
    r"flowchart TD",
    rf"(?: {{4}}){{1,2}}(s\d+)\[{LABEL}\]",
    r"(?: {4}){1,2}(s\d+) (-->|-\.->) (s\d+)",
    r' {4}subgraph handlers\["on failure"\]',
    r" {4}end",
    r" {4}classDef [a-z]+ fill:#\w{6},stroke:#\w{6},color:#\w{6}",
    r" {4}class s\d+(,s\d+)* [a-z]+",
]


def parsed(drawn: str) -> tuple[dict[str, list[str]], set[tuple[str, str, str]]]:
    """Labels by node and edges, if every line is of the small part of Mermaid that detent writes."""
    labels: dict[str, list[str]] = {}
    edges: set[tuple[str, str, str]] = set()
    for line in drawn.splitlines():
        assert any(re.fullmatch(form, line) for form in GRAMMAR), line
        if found := re.fullmatch(GRAMMAR[1], line):
            rows = found[2].split("<br/>")
            labels[found[1]] = [re.sub(r"#(\d+);", lambda code: chr(int(code[1])), row) for row in rows]
        elif found := re.fullmatch(GRAMMAR[2], line):
            edges.add((found[1], found[2], found[3]))
    return labels, edges


def test_mermaid_has_every_step_and_edge() -> None:
    labels, edges = parsed(mermaid(workflow(step("a"), step("b", "a"), step("c", "a", done("b")))))
    assert labels == {"s0": ["a"], "s1": ["b"], "s2": ["c"]}
    assert edges == {("s0", "-->", "s1"), ("s0", "-->", "s2"), ("s1", "-.->", "s2")}


def test_mermaid_puts_failure_handlers_into_a_subgraph() -> None:
    lines = mermaid(HANDLED).splitlines()
    begin, end = lines.index('    subgraph handlers["on failure"]'), lines.index("    end")
    assert [line.strip() for line in lines[begin + 1 : end]] == ['s1["undo"]', 's2["tell"]', "s1 --> s2"]


def test_mermaid_colours_by_status() -> None:
    drawn = mermaid(DIAMOND, {"reserve": "COMPLETED", "charge": "COMPLETED", "pick": "RETRYING", "ship": 'x"y'})
    assert "    class s0,s1 completed\n" in drawn
    assert "    class s2 retrying\n" in drawn
    assert 's3["ship"]' in drawn
    parsed(drawn)


@pytest.mark.parametrize(
    "name",
    [
        "a#b/../c",
        'say "hi"',
        "a[b]{c}(d)",
        "a\nb",
        "end",
        "x --> y",
        "a;b",
        "%%{init: {}}%%",
        "<script>",
        "&quot;",
        "#quot;",
        "`md`",
        "*bold* _it_",
        "1. one",
        "- one",
        "snake_case-name",
        "予約 é",
        "a|b\\c",
        "$$x$$",
        "~~~",
    ],
)
def test_no_name_breaks_mermaid(name: str) -> None:
    labels, edges = parsed(mermaid(workflow(step(name), step("next", name))))
    assert labels == {"s0": [name.replace("\n", "\ufffd")], "s1": ["next"]}
    assert edges == {("s0", "-->", "s1")}


@given(st.text(min_size=1, max_size=30))
def test_any_name_can_be_drawn(name: str) -> None:
    definition = workflow(step(name), step(f"{name}'", name))
    labels, _ = parsed(mermaid(definition))
    assert labels["s0"] == ["".join(char if char.isprintable() else "\ufffd" for char in name)]
    for ascii in (False, True):
        drawn = text(definition, width=60, ascii=ascii)
        assert all(char.isprintable() or char == "\n" for char in drawn)
        assert drawn.isascii() or not ascii


# ---- notes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, []),
        ({"when": PAID}, ["if input.total > 0"]),
        ({"delivery": Delivery.AT_MOST_ONCE, "retry": Retry(attempts=1)}, ["at most once", "no retry"]),
        ({"delivery": "exactly_once"}, ["exactly once"]),
        ({"retry": Retry(attempts=5)}, ["5 attempts"]),
        ({"retry": Retry(initial=0.5, backoff=3, max_delay=120)}, ["pause 0.5 s x3 up to 2 min"]),
        ({"retry": Retry(jitter=False, non_retryable=("Refused", "Gone"))}, ["no jitter", "no retry on Refused, Gone"]),
        ({"timeout": 30}, ["timeout 30 s"]),
        ({"timeout": 7200}, ["timeout 2 h"]),
        ({"takeovers": 0}, ["0 take-overs"]),
    ],
)
def test_only_what_is_not_the_default_is_noted(more: Mapping[str, object], shown: list[str]) -> None:
    noted = step("a", **more)
    assert notes(noted) == shown
    assert parsed(mermaid(workflow(noted)))[0] == {"s0": ["a", *shown]}
    assert all(note in text(workflow(noted)) for note in shown)


# ---- the transition table ------------------------------------------------------------------------------------------


def test_the_state_diagram_shows_every_transition_and_every_end() -> None:
    lines = transitions_mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    shown: set[tuple[str, str, str]] = set()
    for line in lines[1:]:
        found = re.fullmatch(r" {4}(\[\*\]|[A-Z]+) --> (\[\*\]|[A-Z]+)(?:: ([a-z, ]+))?", line)
        assert found, line
        shown |= {(found[1], found[2], change) for change in (found[3] or "end").split(", ")}
    wanted = {(str(s or "[*]"), str(target), str(change)) for change, (ss, target, _) in STEP_TABLE.items() for s in ss}
    assert shown == wanted | {(str(status), "[*]", "end") for status in StepStatus if status.terminal}
