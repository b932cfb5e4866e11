"""What the filter patterns of `filter_pattern` are made of: a cursor over the pattern, conditions and comparisons."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import NoReturn, TypeAlias

from detent_state_machine.errors import InputError
from detent_state_machine.filter_regex import BadRegex, compile_regex

MAX_REGEXES = 2
MAX_NESTING = 32

Matcher: TypeAlias = Callable[[str], bool]
"""Whether a line, or a piece of it, fulfils a pattern."""

Test: TypeAlias = Callable[[object], bool]
"""Whether a value of a log line (a JSON value, or a field as text) fulfils a condition."""

WORD = frozenset(string.ascii_letters + string.digits + "_")
NAME = WORD | {"-"}
_BARE = WORD | frozenset("*.+-")
_NUMBER = re.compile(r"[+-]?\d{1,100}(\.\d{1,100})?([eE][+-]?\d{1,4})?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d{1,100}(\.\d{1,100})?", re.ASCII)
QUOTE_IT = 'Put words with other characters than letters, digits and _ into double quotes: "a-b".'


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the line, with its text as written: comparing as text must not see another spelling."""

    written: str
    value: Decimal | None


def read_number(written: str) -> Number:
    try:
        return Number(written, Decimal(written))
    except InvalidOperation:  # an exponent beyond all bounds
        return Number(written, None)


class Cursor:
    """A place in the pattern, and what can be read from there. Reading skips white space first."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.regexes = 0
        self.wildcards = 0

    def fail(self, expected: str, at: int | None = None, advice: str = "") -> NoReturn:
        at = self.at if at is None else at
        found = repr(self.pattern[at : at + 12]) if at < len(self.pattern) else "the end"
        raise InputError(
            f"The filter pattern is wrong at column {at + 1}: expected {expected}, found {found}.", advice=advice
        )

    def next(self) -> str:
        """The very next character, or "" at the end."""
        return self.pattern[self.at : self.at + 1]

    def peek(self) -> str:
        while self.next().isspace():
            self.at += 1
        return self.next()

    def take(self, literal: str) -> bool:
        self.peek()
        found = self.pattern.startswith(literal, self.at)
        self.at += len(literal) if found else 0
        return found

    def run(self, chars: frozenset[str]) -> str:
        start = self.at
        while self.next() in chars:
            self.at += 1
        return self.pattern[start : self.at]

    def keyword(self, *words: str) -> str:
        """One of the words, as a whole word; "" if none is next."""
        self.peek()
        start = self.at
        found = self.run(WORD)
        if found not in words:
            self.at = start
            return ""
        return found

    def quoted(self, quote: str = '"', wildcard: str = "") -> list[str]:
        """The pieces between unescaped wild cards of a quoted string. A backslash escapes quote, itself and `*`."""
        start = self.at
        self.at += 1
        pieces = [""]
        while (char := self.next()) != quote:
            if not char:
                self.fail(f"a closing {quote}", start)
            self.at += 1
            if char == "\\" and self.next() and self.next() in (quote, "\\", wildcard):
                pieces[-1] += self.next()
                self.at += 1
            elif char == wildcard:
                pieces.append("")
            else:
                pieces[-1] += char
        self.at += 1
        return pieces

    def regex(self) -> Matcher:
        start = self.at
        end = start + 1
        while end < len(self.pattern) and self.pattern[end] != "%":
            end += 2 if self.pattern[end] == "\\" else 1
        if end >= len(self.pattern):
            self.fail("a closing %", start)
        self.regexes += 1
        if self.regexes > MAX_REGEXES:
            self.fail(f"at most {MAX_REGEXES} regular expressions in a pattern", start)
        try:
            test = compile_regex(self.pattern[start + 1 : end])
        except BadRegex as error:
            self.fail(error.expected, start + 1 + error.at)
        self.at = end + 1
        return test


def condition(cursor: Cursor, leaf: Callable[[], Test], depth: int = 0) -> Test:
    """Comparisons joined by && (binds first) and ||, with parentheses."""
    if depth > MAX_NESTING:
        cursor.fail(f"at most {MAX_NESTING} parentheses in each other")

    def operand() -> Test:
        if not cursor.take("("):
            return leaf()
        inner = condition(cursor, leaf, depth + 1)
        if not cursor.take(")"):
            cursor.fail("&&, || or )")
        return inner

    def conjunction() -> Test:
        parts = [operand()]
        while cursor.take("&&"):
            parts.append(operand())
        _refuse_words(cursor)
        return lambda value: all(part(value) for part in parts)

    parts = [conjunction()]
    while cursor.take("||"):
        parts.append(conjunction())
    return lambda value: any(part(value) for part in parts)


def _refuse_words(cursor: Cursor) -> None:
    """Refuses what joins conditions in other languages, with what does here."""
    cursor.peek()
    start = cursor.at
    word = cursor.keyword("AND", "and", "OR", "or") or cursor.next()
    cursor.at = start
    meant = {"and": "&&", "&": "&&", "or": "||", "|": "||"}.get(word.lower())
    if meant is not None and not cursor.pattern.startswith("||", start):
        cursor.fail("&& or ||", advice=f"Write {meant} instead of {word}.")


def comparison(cursor: Cursor) -> Test:
    """An operator and what to compare with, as a test of one value."""
    cursor.peek()
    start = cursor.at
    operator = next((op for op in ("!=", "<=", ">=", "=", "<", ">") if cursor.take(op)), None)
    if operator is None:
        cursor.fail("one of =, !=, <, <=, >, >=", start)
    if (meant := _MEANT.get(operator + cursor.next())) is not None:
        cursor.fail(f"{operator} and a value", start, advice=f"Write {meant} instead of {operator}{cursor.next()}.")
    if operator in ("=", "!="):
        equal = _equality(cursor)
        wanted = operator == "="
        return lambda value: (text := _text(value)) is not None and equal(value, text) is wanted
    cursor.peek()
    at = cursor.at
    written = cursor.run(_BARE)
    if not _NUMBER.fullmatch(written):
        cursor.fail(f"a number after {operator}", at)
    order = _ORDER[operator]
    limit = Decimal(written)
    return lambda value: (number := _number(value)) is not None and order(number, limit)


_MEANT = {"==": "=", "=~": "= and a %regular expression%", "<>": "!=", "=>": ">=", "=<": "<=", "!==": "!="}
"""Operators of other languages, and how they are written here."""

_ORDER: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _equality(cursor: Cursor) -> Callable[[object, str], bool]:
    if cursor.peek() == "%":
        regex = cursor.regex()
        return lambda _, text: regex(text)
    if cursor.next() == '"':
        quoted = cursor.quoted(wildcard="*")
        return lambda _, text: _like(quoted, text)
    written = cursor.run(_BARE)
    if not written and cursor.next() == "'":
        cursor.fail("a value", advice='Quotes around a value are double: "a b".')
    if not written:
        cursor.fail("a value: a word, a number, a quoted string or a %regular expression%", advice=QUOTE_IT)
    if _NUMBER.fullmatch(written):
        wanted = Decimal(written)
        return lambda value, text: text == written or _number(value) == wanted
    pieces = written.split("*")
    return lambda _, text: _like(pieces, text)


def _like(pieces: list[str], text: str) -> bool:
    """Whether the text is the pieces with anything in between. Taking each at its first place is enough."""
    first, *middle = pieces
    if not middle:
        return text == first
    last = middle.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _text(value: object) -> str | None:
    """A value node as text; None for what is none (null, array, object)."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case Number():
            return value.written
        case _:
            return None


def _number(value: object) -> Decimal | None:
    match value:
        case Number():
            return value.value
        case str() if _DECIMAL.fullmatch(value):
            return Decimal(value)
        case _:
            return None
