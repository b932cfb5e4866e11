"""The regular expressions of CloudWatch filter patterns, matched in time linear in the text.

The language has no groups, so an expression is a few rows of single-character units. They are matched as sets of
positions, one bit each, all at once: there is nothing to backtrack into, whatever the expression and the line.
(Python's `re` takes quadratic time for `a*b` on a long line of a's, and more for each further star.)
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

MAX_UNITS = 1000
"""Characters an expression may stand for once its `{m,n}` are written out."""

_PLAIN = frozenset(string.ascii_letters + string.digits + ":_#=@/;,- ")
_OPERATORS = frozenset("^$?[]{}|\\*+.")
_ESCAPABLE = (_PLAIN - frozenset(string.ascii_letters + string.digits + "_")) | _OPERATORS | frozenset("()%")
_ALL = frozenset(chr(code) for code in range(128))
_OTHER = "\x80"
"""Stands for every character beyond ASCII: no expression can name one, so all of them behave alike. Sorts first."""

_DIGITS = frozenset(string.digits)
_WORD = frozenset(string.ascii_letters + string.digits + "_")
_SPACE = frozenset(" \t\n\r\f\v")
_CLASSES = {"d": _DIGITS, "s": _SPACE, "w": _WORD}
"""Named classes; the upper-case letter is the opposite."""


class BadRegex(Exception):
    """The expression is not in the language. `at` is the offset, `expected` says what would be right there."""

    def __init__(self, at: int, expected: str) -> None:
        super().__init__(expected)
        self.at = at
        self.expected = expected


@dataclass(frozen=True, slots=True)
class _Unit:
    """One character of the text: one of `chars`, perhaps none at all, perhaps more than one."""

    chars: frozenset[str]
    optional: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """One alternative."""

    units: list[_Unit]
    from_start: bool
    to_end: bool


def compile_regex(source: str) -> Callable[[str], bool]:
    """A test whether the expression occurs anywhere in a text. Raises `BadRegex`."""
    return _matcher(_Reader(source).rows())


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.size = 0

    def rows(self) -> list[_Row]:
        if not self.source:
            raise BadRegex(0, "an expression between the two %")
        rows = [self._row()]
        while self._take("|"):
            rows.append(self._row())
        return rows

    def _peek(self) -> str:
        return self.source[self.at : self.at + 1]

    def _take(self, char: str) -> bool:
        found = self._peek() == char
        self.at += found
        return found

    def _row(self) -> _Row:
        from_start = self._take("^")
        units: list[_Unit] = []
        while self._peek() not in ("", "|", "$"):
            units += self._repeated(self._atom())
            if len(units) + self.size > MAX_UNITS:
                raise BadRegex(self.at, f"an expression that stands for at most {MAX_UNITS} characters")
        to_end = self._take("$")
        if self._peek() not in ("", "|"):
            raise BadRegex(self.at, "`|` or the end after `$` (write `\\$` for the character itself)")
        self.size += len(units)
        return _Row(units, from_start, to_end)

    def _atom(self) -> frozenset[str]:
        char, at = self._peek(), self.at
        self.at += 1
        if char in _PLAIN:
            return frozenset(char)
        match char:
            case ".":
                return _ALL | {_OTHER}
            case "[":
                return self._class(at)
            case "\\":
                return self._escape()
            case "^":
                raise BadRegex(at, "`^` only at the start of an alternative (write `\\^` for the character itself)")
            case "(" | ")":
                raise BadRegex(at, "no parentheses: CloudWatch has no groups (write `\\x28` and `\\x29`)")
            case _ if char in _OPERATORS:
                raise BadRegex(at, f"something for `{char}` to apply to (write `\\{char}` for the character itself)")
            case _:
                raise BadRegex(at, f"a supported character: {char!r} is not one (write ASCII ones as `\\xhh`)")

    def _escape(self) -> frozenset[str]:
        char, at = self._peek(), self.at
        self.at += 1
        if char.lower() in _CLASSES:
            return _chars(_CLASSES[char.lower()], negated=char.isupper())
        if char == "x":
            digits = self.source[self.at : self.at + 2]
            if len(digits) == 2 and all(digit in string.hexdigits for digit in digits) and int(digits, 16) < 128:
                self.at += 2
                return frozenset(chr(int(digits, 16)))
            raise BadRegex(at, "two hexadecimal digits up to 7F after `\\x`")
        if char in ("t", "n"):
            return frozenset("\t" if char == "t" else "\n")
        if char in _ESCAPABLE:
            return frozenset(char)
        raise BadRegex(at, "an operator, or one of d, D, s, S, w, W, t, n, xhh after `\\`")

    def _class(self, start: int) -> frozenset[str]:
        negated = self._take("^")
        chars: frozenset[str] = frozenset()
        while not self._take("]"):
            at = self.at
            if at >= len(self.source):
                raise BadRegex(start, "a closing `]` for this class")
            first = self._member()
            if self._peek() == "-" and self.source[self.at + 1 : self.at + 2] not in ("", "]"):
                self.at += 1
                last = self._member()
                if len(first) != 1 or len(last) != 1 or min(first) > min(last):
                    raise BadRegex(at, "a range from a lower to a higher character, like `a-z`")
                first = frozenset(chr(code) for code in range(ord(min(first)), ord(min(last)) + 1))
            chars |= first
        if not chars:
            raise BadRegex(start, "characters in the class")
        return _chars(chars, negated)

    def _member(self) -> frozenset[str]:
        char, at = self._peek(), self.at
        self.at += 1
        if char == "\\":
            return self._escape()
        if char in _PLAIN or char in _OPERATORS - {"[", "]"}:
            return frozenset(char)
        raise BadRegex(at, "a supported character or `]` in the class")

    def _repeated(self, chars: frozenset[str]) -> list[_Unit]:
        at = self.at
        match self._peek():
            case "*":
                units = [_Unit(chars, optional=True, repeats=True)]
            case "+":
                units = [_Unit(chars, repeats=True)]
            case "?":
                units = [_Unit(chars, optional=True)]
            case "{":
                units = self._counted(chars)
            case _:
                return [_Unit(chars)]
        self.at += 1
        if self._peek() in ("*", "+", "?", "{"):
            raise BadRegex(self.at, f"no second repetition after `{self.source[at]}`")
        return units

    def _counted(self, chars: frozenset[str]) -> list[_Unit]:
        """`{m}`, `{m,}`, `{,n}`, `{m,n}`; leaves the reader on the closing brace."""
        close = self.source.find("}", self.at)
        low, comma, high = (part.strip() for part in self.source[self.at + 1 : max(close, 0)].partition(","))
        if any(part and not (part.isascii() and part.isdigit() and len(part) <= 4) for part in (low, high)):
            close = -1
        if close < 0 or not (low or high):
            raise BadRegex(self.at, "`{m}`, `{m,}`, `{,n}` or `{m,n}`")
        least = int(low or 0)
        most = int(high) if high else least
        if (high and most < least) or max(least, most) > MAX_UNITS:
            raise BadRegex(self.at, f"{{m,n}} with m up to n and n up to {MAX_UNITS}")
        self.at = close
        units = [_Unit(chars)] * least + [_Unit(chars, optional=True)] * (most - least)
        if comma and not high:
            units[-1:] = [_Unit(chars, optional=not least, repeats=True)]
        return units


def _chars(members: frozenset[str], negated: bool) -> frozenset[str]:
    return (_ALL | {_OTHER}) - members if negated else members


def _matcher(rows: list[_Row]) -> Callable[[str], bool]:
    # Bit i means: the text so far leads to just before unit i. Each row ends in one bit more, which has no unit.
    takes: dict[str, int] = dict.fromkeys((*_ALL, _OTHER), 0)
    optional = repeats = first = floating = done = done_at_end = 0
    bit = 1
    for row in rows:
        first |= bit
        floating |= 0 if row.from_start else bit
        for unit in row.units:
            for char in unit.chars:
                takes[char] |= bit
            optional |= bit if unit.optional else 0
            repeats |= bit if unit.repeats else 0
            bit <<= 1
        done |= 0 if row.to_end else bit
        done_at_end |= bit
        bit <<= 1

    def skip(positions: int) -> int:
        """Adds what is reached by leaving optional units out."""
        while more := ((positions & optional) << 1) & ~positions:
            positions |= more
        return positions

    def search(text: str) -> bool:
        positions = skip(first)
        restart = skip(floating)
        for char in text:
            if positions & done:
                return True
            taken = positions & takes[min(char, _OTHER)]
            positions = skip((taken << 1) | (taken & repeats)) | restart
            if not positions:
                return False
        return bool(positions & (done | done_at_end))

    return search
