"""The regular expressions of filter patterns find what `re` finds, in linear time, and nothing outside the language."""

from __future__ import annotations

import re

import pytest
from detent_state_machine.errors import InputError
from detent_state_machine.filter_pattern import parse
from detent_state_machine.filter_regex import BadRegex, compile_regex
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("%AUTHORIZED%", ["UNAUTHORIZED"], ["AUTHOR"]),
        ("%^[hc]at%", ["hat", "cat x"], ["a hat", "bat"]),
        ("%[hc]at$%", ["a hat"], ["hats"]),
        ("%colou?r%", ["color", "colour"], ["colouur"]),
        ("%[abcx-z]!?%", None, None),
        ("%[^abc]%", ["abd", "é"], ["abc", ""]),
        ("%^a{3,5}$%", ["aaa", "aaaaa"], ["aa", "aaaaaa"]),
        ("%^a{2}$%", ["aa"], ["a", "aaa"]),
        ("%^a{2,}$%", ["aa", "a" * 50], ["a"]),
        ("%^a{ , 2}$%", ["", "aa"], ["aaa"]),
        ("%^starting|^initializing|^shutting down%", ["shutting down x"], ["skipping initializing"]),
        (r"%\[.\]%", ["[a]", "[]]", "[é]"], ["[]"]),
        (r"%10\.10\.0\.1%", ["10.10.0.1"], ["10010,051"]),
        ("%ab*c%", ["ac", "abbbc"], ["adc"]),
        ("%ab+c%", ["abbc"], ["ac"]),
        ("%.at%", [" at"], ["at"]),
        (r"%^\d+\s\w+$%", ["12 a_B"], ["x a", "12 -", "٣ a"]),
        (r"%^\D\S\W$%", ["ab-"], ["1b-", "a --", "abc"]),
        (r"%\x3A\x28%", ["a:(b"], [":"]),
        (r"%50\% of \$%", ["50% of $"], ["50 of"]),
        ("%^$%", [""], ["a"]),
    ],
)
def test_regular_expressions(pattern: str, yes: list[str] | None, no: list[str] | None) -> None:
    if yes is None or no is None:
        with pytest.raises(InputError, match="'!' is not one"):
            parse(pattern)
        return
    test = parse(pattern)
    assert [text for text in yes if not test(text)] == []
    assert [text for text in no if test(text)] == []


atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", "-"])
suffixes = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "{0}"])
units = st.tuples(atoms, suffixes).map("".join)
rows = st.tuples(st.sampled_from(["", "^"]), st.lists(units, max_size=5).map("".join), st.sampled_from(["", "$"]))
expressions = st.lists(rows.map("".join), min_size=1, max_size=3).map("|".join).filter(bool)


@given(expressions, st.text("ab1-", max_size=8))
@settings(max_examples=500)
def test_an_expression_finds_what_pythons_re_finds(expression: str, text: str) -> None:
    meant = expression.replace("$", r"\Z")
    assert compile_regex(expression)(text) == bool(re.search(meant, text, re.ASCII | re.DOTALL))


@pytest.mark.parametrize("expression", ["a*a*a*a*a*a*b", ".*.*.*=.*z|y", "[ab]+[ab]+[ab]+c", "a{0,500}b"])
def test_an_expression_that_would_backtrack_for_days_is_done_at_once(expression: str) -> None:
    assert not compile_regex(expression)("a" * 50_000)
    assert compile_regex(expression)("a" * 50_000 + "=abacyz")


@given(st.text("ab01[]{}^$*+?|\\.,-dx", max_size=12))
@settings(max_examples=500)
def test_an_expression_is_read_or_refused(expression: str) -> None:
    try:
        test = compile_regex(expression)
    except BadRegex as error:
        refused_at = error.at
    else:
        refused_at = 0
        assert test("ab01-") in (True, False)
    assert 0 <= refused_at <= len(expression)
