"""Filter patterns held to other people's code: jmespath for selectors, `re` for wild cards, `Fraction` for numbers.

`test_filter_pattern` says what the language is; here generated patterns meet generated lines.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import TypeAlias

import jmespath
from detent_state_machine.filter_pattern import parse
from hypothesis import given
from hypothesis import strategies as st

Json: TypeAlias = "str | int | dict[str, Json] | list[Json] | None"
Path: TypeAlias = "list[str | int | None]"

NAMES = ["a", "b-c", "d.e", "it's", "π", "*"]
leaves = st.sampled_from(["v", "w", 1, None])
documents = st.dictionaries(
    st.sampled_from(NAMES),
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@st.composite
def paths(draw: st.DrawFn, document: dict[str, Json]) -> tuple[Path, str]:
    """A path with at most one wild card, mostly one that leads somewhere, and the same as a jmespath expression."""
    path: Path = []
    expression = "@"
    value: Json = document
    for _ in range(draw(st.integers(1, 4))):
        wild = None not in path and bool(path) and draw(st.integers(0, 3)) == 0
        if isinstance(value, list):
            index = draw(st.integers(0, 3))
            path.append(None if wild else index)
            expression += "[*]" if wild else f"[{index}]"
            value = value[min(index, len(value) - 1)] if value else None
        else:
            name = draw(st.sampled_from(NAMES))
            path.append(None if wild else name)
            expression += ".*" if wild else f".{json.dumps(name)}"
            inside = value if isinstance(value, dict) else {}
            value = next(iter(inside.values()), None) if wild else inside.get(name)
    return path, expression


def selector(path: Path) -> str:
    """As a pattern has it: plain names with a dot, others in brackets."""
    written = ["$"]
    for step in path:
        if step is None:
            written.append("[*]" if len(written) > 1 else ".*")
        elif isinstance(step, int):
            written.append(f"[{step}]")
        elif re.fullmatch(r"[a-z-]+", step):
            written.append(f".{step}")
        else:
            dot = "." if len(written) == 1 else ""
            written.append(dot + "['" + step.replace("\\", "\\\\").replace("'", "\\'") + "']")
    return "".join(written)


@given(documents.flatmap(lambda document: st.tuples(st.just(document), paths(document))))
def test_a_selector_leads_where_jmespath_leads(drawn: tuple[dict[str, Json], tuple[Path, str]]) -> None:
    document, (path, expression) = drawn
    reached = jmespath.search(expression, document)
    values = reached if None in path and isinstance(reached, list) else [reached]
    line = json.dumps(document)
    for literal in ("v", "w", 1):
        assert parse(f"{{ {selector(path)} = {literal} }}")(line) == (literal in [v for v in values if v is not None])
    if None not in path:
        exists = reached is not None or parse(f"{{ {selector(path)} IS NULL }}")(line)
        assert parse(f"{{ {selector(path)} NOT EXISTS }}")(line) is not exists


@given(st.text("ab.*", min_size=1, max_size=8), st.text("ab.", max_size=8))
def test_a_star_stands_for_anything_as_in_a_regular_expression(pattern: str, text: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
    line = json.dumps({"x": text})
    assert parse(f'{{ $.x = "{pattern}" }}')(line) is expected
    assert parse(f'{{ $.x != "{pattern}" }}')(line) is not expected


def quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_can_be_quoted_and_means_itself(wanted: str, other: str) -> None:
    pattern = "{ $.x = " + re.sub(r"\*", r"\\*", quoted(wanted)) + " }"
    assert parse(pattern)(json.dumps({"x": wanted}))
    assert parse(pattern)(json.dumps({"x": other}, ensure_ascii=False)) is (wanted == other)


@given(st.text(max_size=10), st.text(max_size=10), st.text(max_size=10))
def test_a_phrase_is_found_wherever_it_stands(before: str, phrase: str, after: str) -> None:
    test = parse(quoted(phrase))
    assert test(before + phrase + after)
    assert test(before + after) is (not phrase.strip() or phrase in before + after)


words = st.text("ab_1", min_size=1, max_size=3)


@given(
    st.lists(words, max_size=3), st.lists(words, max_size=3), st.lists(words, max_size=3), st.text("ab_1 ", max_size=12)
)
def test_terms_are_looked_for_one_by_one(all_of: list[str], none_of: list[str], some_of: list[str], line: str) -> None:
    pattern = " ".join([*all_of, *(f"-{word}" for word in none_of), *(f"?{word}" for word in some_of)])
    if all_of or none_of:
        expected = all(word in line for word in all_of) and not any(word in line for word in none_of)
    else:
        expected = any(word in line for word in some_of) or not some_of
    assert parse(pattern)(line) is expected


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,4})?(e[+-]?[0-3])?", fullmatch=True)


@given(numbers, numbers, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.booleans())
def test_numbers_compare_exactly_however_they_are_written(here: str, there: str, operator: str, as_text: bool) -> None:
    if as_text:
        here = here.partition("e")[0]  # a text compares as a number if it is a plain decimal
    a, b = Fraction(here), Fraction(there)
    expected = {"=": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator]
    value = f'"{here}"' if as_text else here
    assert parse(f"{{ $.n {operator} {there} }}")(f'{{"n": {value}}}') is expected


@given(st.lists(words, min_size=1, max_size=6), st.lists(st.none() | words, min_size=1, max_size=6), st.booleans())
def test_fields_of_a_line_are_its_words(line: list[str], wanted: list[str | None], rest: bool) -> None:
    fields = [f"w{n}" if word is None else f"w{n} = {word}" for n, word in enumerate(wanted)]
    pattern = "[" + ", ".join([*fields, "..."] if rest else fields) + "]"
    open_end = rest or wanted[-1] is None  # a plain last field takes the rest of the line
    long_enough = len(line) >= len(wanted) if open_end else len(line) == len(wanted)
    pairs = [(word, found) for word, found in zip(wanted, line, strict=False) if word is not None]
    if not any(word.isdigit() and found.isdigit() for word, found in pairs):  # those also compare as numbers
        assert parse(pattern)(" ".join(line)) is (long_enough and all(word == found for word, found in pairs))
