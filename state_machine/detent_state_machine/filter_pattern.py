"""CloudWatch Logs filter patterns, so that `detent logs --filter` means the same on every backend.

    ERROR "card refused" -retry        every term occurs, the excluded ones do not
    ?ERROR ?WARN                       one of them occurs
    %time[ -]?d?out%                   a regular expression, without groups: see `filter_regex`
    { $.level = "ERROR" && ($.attempt > 1 || $.items[*].sku = A* ) }
    [level = ERROR, step, ...]         fields of a space-delimited line

The grammar is the documented one, with its quotas. Where the documentation is silent: a `*` in a compared string is
a wild card wherever it stands (`\\*` is the character); numbers and true and false also compare as their text; a
string that is a plain decimal also compares as a number; what is not a value (null, array, object, missing) satisfies
neither `=` nor `!=`; the last field of a delimited pattern, if it has no condition, takes the rest of the line.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

from detent_state_machine.errors import InputError
from detent_state_machine.filter_syntax import (
    NAME,
    QUOTE_IT,
    WORD,
    Cursor,
    Matcher,
    Test,
    comparison,
    condition,
    read_number,
)

MAX_PATTERN = 1024
MAX_WILDCARDS = 3
"""Wild-card selectors (`[*]`, `.*`) in a pattern; in one selector at most one."""

Step: TypeAlias = str | int | None
"""A step of a selector: a property, an index, or (None) the wild card."""


def parse(pattern: str) -> Callable[[str], bool]:
    """The test of a log line's text that the pattern stands for.

    A test takes time linear in the line for terms, regular expressions and comparisons, and never raises. Raises
    `InputError`, with the column and what was expected there, for what is not a pattern.
    """
    if len(pattern) > MAX_PATTERN:
        raise InputError(f"The filter pattern has {len(pattern)} characters; CloudWatch allows {MAX_PATTERN}.")
    cursor = Cursor(pattern)
    match cursor.peek():
        case "":
            return lambda _: True
        case "{":
            return _json_pattern(cursor)
        case "[":
            return _delimited_pattern(cursor)
        case "%":
            test = cursor.regex()
            if cursor.peek():
                cursor.fail("nothing after the regular expression (alternatives go inside it: %a|b%)")
            return test
        case _:
            return _term_pattern(cursor)


# ---- terms --------------------------------------------------------------------------------------------------


def _term_pattern(cursor: Cursor) -> Matcher:
    included: list[str] = []
    excluded: list[str] = []
    optional: list[str] = []
    while cursor.peek():
        if cursor.take("-"):
            excluded.append(_term(cursor))
        elif cursor.take("?"):
            optional.append(_term(cursor))
        else:
            included.append(_term(cursor))
        if cursor.next() and not cursor.next().isspace():
            cursor.fail("a space between two terms", advice=QUOTE_IT)
    if included or excluded:
        return lambda line: all(t in line for t in included) and not any(t in line for t in excluded)
    return lambda line: any(term in line for term in optional)


def _term(cursor: Cursor) -> str:
    if word := cursor.keyword("AND", "OR", "NOT"):
        meant = {"AND": "Terms beside each other must all occur.", "OR": "Alternatives are written ?a ?b."}
        cursor.fail(
            "a word to look for",
            cursor.at - len(word),
            advice=f'{meant.get(word, "What must not occur is written -a.")} The word itself is written "{word}".',
        )
    if cursor.peek() == '"':
        phrase = cursor.quoted()[0]
        return phrase if phrase.strip() else ""  # " " is documented to match everything
    if cursor.next() == "%":
        cursor.fail("a word or a quoted phrase (a regular expression stands alone)")
    in_braces = "A condition on a field stands in braces: { $.level = WARN }."
    advice = in_braces if cursor.next() == "$" else QUOTE_IT
    return cursor.run(WORD) or cursor.fail("a word or a quoted phrase", advice=advice)


# ---- JSON lines ---------------------------------------------------------------------------------------------


def _json_pattern(cursor: Cursor) -> Matcher:
    cursor.take("{")
    test = condition(cursor, lambda: _json_comparison(cursor))
    if not cursor.take("}"):
        cursor.fail("&&, || or }", advice=QUOTE_IT)
    if cursor.peek():
        cursor.fail("nothing after }")

    def matches(line: str) -> bool:
        try:
            parsed: object = json.loads(
                line, parse_float=read_number, parse_int=read_number, parse_constant=lambda name: name
            )
        except (ValueError, RecursionError):
            return False
        return isinstance(parsed, dict) and test(cast("object", parsed))

    return matches


def _json_comparison(cursor: Cursor) -> Test:
    path = _selector(cursor)
    if cursor.keyword("IS"):
        constant = cursor.keyword("NULL", "TRUE", "FALSE")
        if not constant:
            cursor.fail("NULL, TRUE or FALSE after IS (IS NOT is not part of the language)")
        wanted = {"NULL": None, "TRUE": True, "FALSE": False}[constant]
        return lambda document: any(value is wanted for value in _select(path, document))
    if cursor.keyword("NOT"):
        if not cursor.keyword("EXISTS"):
            cursor.fail("EXISTS after NOT")
        return lambda document: not any(True for _ in _select(path, document))
    if cursor.peek() not in ("=", "!", "<", ">"):
        cursor.fail("=, !=, <, <=, >, >=, IS NULL, IS TRUE, IS FALSE or NOT EXISTS (existence is written = *)")
    check = comparison(cursor)
    return lambda document: any(check(value) for value in _select(path, document))


def _selector(cursor: Cursor) -> list[Step]:
    """The steps of `$.a.b[0]['c.d'][*]`; None is the wild card."""
    cursor.peek()
    start = cursor.at
    if not cursor.pattern.startswith("$.", start):
        name = cursor.run(NAME) if cursor.next() != "!" else ""
        cursor.at = start
        if cursor.next() == "!":
            advice = "Nothing is turned around: write != in place of =, or NOT EXISTS behind the selector."
        else:
            advice = f"A field of the line is written $.{name}." if name else ""
        cursor.fail("a selector like $.level", advice=advice)
    cursor.at += 1
    path: list[Step] = []
    while cursor.next() in (".", "["):
        path.append(_selector_step(cursor))
    if path.count(None) > 1:
        cursor.fail("at most one wild card in a selector", start)
    cursor.wildcards += path.count(None)
    if cursor.wildcards > MAX_WILDCARDS:
        cursor.fail(f"at most {MAX_WILDCARDS} wild-card selectors in a pattern", start)
    return path


def _selector_step(cursor: Cursor) -> Step:
    step: Step
    if cursor.next() == ".":
        cursor.at += 1
        if cursor.next() != "[":
            if cursor.next() == "*":
                cursor.at += 1
                return None
            name = cursor.run(NAME)
            return name or cursor.fail("a property name (write any other name as ['a name'])")
    cursor.at += 1
    at = cursor.at
    if cursor.next() == "*":
        cursor.at += 1
        step = None
    elif cursor.next() in ("'", '"'):
        step = cursor.quoted(cursor.next())[0]
    else:
        digits = cursor.run(frozenset(string.digits))
        if not 1 <= len(digits) <= 9:
            cursor.fail("an index, * or a quoted name after [", at)
        step = int(digits)
    if cursor.next() != "]":
        cursor.fail("]")
    cursor.at += 1
    return step


def _select(path: list[Step], value: object) -> Iterator[object]:
    """The values the path leads to: one or none, or any number with a wild card."""
    for index, step in enumerate(path):
        match step, value:
            case None, dict() | list():
                inside = cast("dict[str, object] | list[object]", value)
                rest = path[index + 1 :]
                for each in inside.values() if isinstance(inside, dict) else inside:
                    yield from _select(rest, each)
                return
            case str(), dict() if step in value:
                value = cast("dict[str, object]", value)[step]
            case int(), list() if step < len(cast("list[object]", value)):
                value = cast("list[object]", value)[step]
            case _:
                return
    yield value


# ---- space-delimited lines ------------------------------------------------------------------------------------


def _delimited_pattern(cursor: Cursor) -> Matcher:
    cursor.take("[")
    head: list[Test | None] = []
    tail: list[Test | None] | None = None
    while True:
        if cursor.take("..."):
            if tail is not None:
                cursor.fail("only one ... in a pattern", cursor.at - 3)
            tail = []
        else:
            (head if tail is None else tail).append(_field(cursor))
        if cursor.take("]"):
            break
        if not cursor.take(","):
            cursor.fail(", or ]")
    if cursor.peek():
        cursor.fail("nothing after ]")
    if tail is None and head[-1] is None:
        tail = []  # a plain last field takes the rest of the line
    last = tail or []
    exact = tail is None

    def matches(line: str) -> bool:
        fields = _fields(line)
        least = len(head) + len(last)
        if len(fields) < least or (exact and len(fields) > least):
            return False
        chosen = fields[: len(head)] + fields[len(fields) - len(last) :]
        return all(test is None or test(field) for test, field in zip(head + last, chosen, strict=True))

    return matches


def _field(cursor: Cursor) -> Test | None:
    """A field's name with its condition, if it has one. A field may be left without a name."""
    cursor.peek()
    start = cursor.at
    name = cursor.run(NAME)
    if cursor.peek() in (",", "]", ""):
        return None

    def own_comparison() -> Test:
        cursor.peek()
        at = cursor.at
        compared = cursor.run(NAME)
        if not compared:
            cursor.fail("the name of a field, , or ]", at)
        if name and compared != name:
            cursor.fail(f"a condition on the field itself, {name}", at)
        return comparison(cursor)

    cursor.at = start
    return condition(cursor, own_comparison)


def _fields(line: str) -> list[str]:
    """The line's words; what stands in [ ] or double quotes is one word."""
    fields: list[str] = []
    closing = {"[": "]", '"': '"'}
    at = 0
    while at < len(line):
        char = line[at]
        if char.isspace():
            at += 1
            continue
        if char in closing:
            end = line.find(closing[char], at + 1)
            if end >= 0:
                fields.append(line[at + 1 : end])
                at = end + 1
                continue
            del closing[char]  # none further on either: never look again, or a line of [[[[ takes quadratic time
        end = at
        while end < len(line) and not line[end].isspace():
            end += 1
        fields.append(line[at:end])
        at = end
    return fields
