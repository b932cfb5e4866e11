"""Filter patterns mean what CloudWatch Logs documents, and a bad one says where and why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
from detent_state_machine.errors import InputError
from detent_state_machine.filter_pattern import MAX_PATTERN, parse
from hypothesis import given, settings
from hypothesis import strategies as st

SERVER = [
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[ERROR 420] INVALID ARGUMENTS",
    "[INFO] REQUEST FAILED",
    "[WARN] UNAUTHORIZED REQUEST",
]


def kept(pattern: str, lines: list[str]) -> list[int]:
    test = parse(pattern)
    return [number for number, line in enumerate(lines) if test(line)]


# ---- terms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("   ", [0, 1, 2, 3, 4, 5]),
        ('" "', [0, 1, 2, 3, 4, 5]),
        ("ERROR", [0, 1, 2, 3]),
        ("error", []),
        ("AUTHORIZED", [1, 5]),
        ("ERROR ARGUMENTS", [2, 3]),
        ("ARGUMENTS\n ERROR", [2, 3]),
        ('"BAD REQUEST"', [0]),
        ('"REQUEST BAD"', []),
        ('"ERROR 4" UNAUTHORIZED', [1]),
        ("ERROR -ARGUMENTS", [0, 1]),
        ('"ERROR" - "ARGUMENTS"', [0, 1]),
        ("-ERROR -WARN", [4]),
        ("?MISSING ?INVALID", [2, 3]),
        ('?"BAD REQUEST" ?MISSING', [0, 2]),
    ],
)
def test_terms(pattern: str, lines: list[int]) -> None:
    assert kept(pattern, SERVER) == lines


def test_optional_terms_are_ignored_beside_other_terms() -> None:
    assert kept("?ERROR ?ARGUMENTS REQUEST", SERVER) == kept("REQUEST", SERVER) == [0, 1, 4, 5]
    assert kept("?ERROR -ARGUMENTS", SERVER) == kept("-ARGUMENTS", SERVER)


def test_escapes_in_a_phrase_stand_for_the_character_and_others_for_themselves() -> None:
    assert kept(r'"say \"hi\""', ['say "hi"', r"say \"hi\""]) == [0]
    assert kept(r'"a\\b"', [r"a\b", r"a\\b c"]) == [0]
    assert kept(r'"C:\dir"', [r"C:\dir"]) == [0]


def test_a_phrase_takes_a_star_literally() -> None:
    assert kept('"a*b"', ["a*b", "axb"]) == [0]


# ---- JSON ---------------------------------------------------------------------------------------------------

EVENT = {
    "eventType": "UpdateTrail",
    "sourceIPAddress": "111.111.111.111",
    "arrayKey": ["value", "another value"],
    "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
    "SomeObject": None,
    "cluster.name": "c",
    "flag": True,
    "off": False,
    "latency": 50.5,
    "big": 1000,
    "status": "404",
    "text": "a*b",
    "nested": {"deep": {"x": 3}, "it's": 1},
    "empty": "",
}
USERS = {
    "user": {"id": 1, "email": "John.Stiles@example.com"},
    "users": [{"id": 2, "email": "John.Doe@example.com"}, {"id": 3, "email": "Jane.Doe@example.com"}],
    "actions": ["GET", "PUT", "DELETE"],
    "coordinates": [[0, 1, 2], [4, 5, 6], [7, 8, 9]],
}


@pytest.mark.parametrize(
    "pattern",
    [
        '{ $.eventType = "UpdateTrail" }',
        "{$.eventType=UpdateTrail}",
        "{ $.sourceIPAddress != 123.123.* }",
        '{ $.arrayKey[0] = "value" }',
        "{ $.eventType = %Trail% }",
        "{ $.eventType != %trail% }",
        "{ $.arrayKey[*] = %val.{2}% }",
        r"{ $.* = %111\.111\.111\.1[0-9]{1,2}% }",
        "{ $.['cluster.name'] = \"c\" }",
        '{ $.["cluster.name"] = c }',
        "{ $.SomeObject IS NULL }",
        "{ $.SomeOtherObject NOT EXISTS }",
        "{ $.nested.other.x NOT EXISTS }",
        "{ $.flag IS TRUE }",
        "{ $.off IS FALSE }",
        "{ $.flag = true }",
        "{ $.objectList[1].id = 2 }",
        "{ $.objectList[*].name = b }",
        "{ $.nested.*.x = 3 }",
        "{ $.nested['it\\'s'] = 1 }",
        "{ $.latency > 50 && $.latency<=50.5 }",
        "{ $.latency >= +5.05e1 }",
        "{ $.big = 1e+3 }",
        "{ $.big != 1e-3 }",
        '{ $.big = "1000" }',
        "{ $.big = 1*0 }",
        "{ $.status = 404 && $.status >= 400 }",
        "{ $.eventType = *date* }",
        "{ $.eventType = U*l }",
        r'{ $.text = "a\*b" && $.eventType != "U\*l" }',
        "{ $.latency = * }",
        '{ $.empty = "" && $.empty = * }',
    ],
)
def test_json_patterns_that_match(pattern: str) -> None:
    assert parse(pattern)(json.dumps(EVENT))


@pytest.mark.parametrize(
    "pattern",
    [
        "{ $.eventType = updatetrail }",
        "{ $.eventType = Update }",
        "{ $.eventType = Trail* }",
        "{ $.arrayKey = value }",
        "{ $.arrayKey != value }",
        "{ $.nested != 3 }",
        "{ $.missing = x }",
        "{ $.missing != x }",
        "{ $.missing < 1 }",
        "{ $.missing IS NULL }",
        "{ $.SomeObject NOT EXISTS }",
        "{ $.SomeObject = * }",
        "{ $.SomeObject != x }",
        "{ $.flag IS FALSE }",
        "{ $.off IS NULL }",
        "{ $.flag > 0 }",
        "{ $.eventType > 0 }",
        "{ $.arrayKey[2] = * }",
        "{ $.eventType[0] = U }",
        "{ $.objectList[*].id > 2 }",
        "{ $.latency > 50.5 }",
        '{ $.latency = "50.50" }',
        "{ $.eventType = U*date }",
        "{ $.eventType = UpdateTra*Trail }",
    ],
)
def test_json_patterns_that_do_not_match(pattern: str) -> None:
    assert not parse(pattern)(json.dumps(EVENT))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }', True),
        ('{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }', False),
        ('{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = no && $.actions[2] = no }', True),
        ('{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = no) && $.actions[2] = no }', False),
        ("{ $.coordinates[2][0] = 7 && ((($.actions[*] = PUT))) }", True),
    ],
)
def test_and_binds_before_or_and_parentheses_before_both(pattern: str, expected: bool) -> None:
    assert parse(pattern)(json.dumps(USERS)) is expected


@pytest.mark.parametrize("line", ["", "ERROR", "[1]", '"a"', "{", "[" * 100_000, '{"a": 1} x', '{"a": {}}'])
def test_a_line_that_is_no_json_object_or_lacks_the_value_does_not_match(line: str) -> None:
    assert not parse("{ $.a = 1 }")(line)


def test_numbers_without_bounds_in_a_line_are_compared_and_never_raise() -> None:
    assert parse("{ $.a > 1e9 }")('{"a": %s}' % ("9" * 5000))
    assert not parse("{ $.a > 1 }")('{"a": 1e99999999999999999999}')
    assert parse("{ $.a = NaN }")('{"a": NaN}')
    assert parse("{ $.a = 0.1 && $.a != 0.10000000000000001 }")('{"a": 0.10}')


Json = str | int | float | bool | dict[str, "Json"] | list["Json"] | None


class Generated(NamedTuple):
    """A pattern with its meaning, worked out without the parser."""

    text: str
    holds: Callable[[dict[str, Json]], bool]


NAMES = ("a", "b", "c")
LITERALS = ("x", "xy", "1", "-2", "3.5")


@st.composite
def comparisons(draw: st.DrawFn) -> Generated:
    name = draw(st.sampled_from(NAMES))
    op = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "IS NULL", "IS TRUE", "NOT EXISTS"]))
    space = draw(st.sampled_from(["", " "]))
    if op == "NOT EXISTS":
        return Generated(f"$.{name} {op}", lambda doc: name not in doc)
    if op.startswith("IS"):
        wanted = None if op == "IS NULL" else True
        return Generated(f"$.{name} {op}", lambda doc: name in doc and doc[name] is wanted)
    if op in ("=", "!="):
        word = draw(st.sampled_from(LITERALS))
        quoted = draw(st.booleans())

        def equality(doc: dict[str, Json]) -> bool:
            value = doc.get(name)
            if value is None or isinstance(value, dict | list):
                return False
            same = (json.dumps(value) if not isinstance(value, str) else value) == word
            return same == (op == "=")

        return Generated(f'$.{name}{space}{op}{space}"{word}"' if quoted else f"$.{name}{op}{word}", equality)
    limit = draw(st.integers(-3, 3))

    def order(doc: dict[str, Json]) -> bool:
        value = doc.get(name)
        if isinstance(value, str):
            value = float(value) if re.fullmatch(r"-?[0-9.]+", value) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return {"<": value < limit, "<=": value <= limit, ">": value > limit, ">=": value >= limit}[op]

    return Generated(f"$.{name}{space}{op}{space}{limit}", order)


def joined(parts: st.SearchStrategy[Generated]) -> st.SearchStrategy[Generated]:
    def both(pair: tuple[Generated, Generated]) -> Generated:
        left, right = pair
        return Generated(f"({left.text}) && ({right.text})", lambda d: left.holds(d) and right.holds(d))

    def one(pair: tuple[Generated, Generated]) -> Generated:
        left, right = pair
        return Generated(f"({left.text})||({right.text})", lambda d: left.holds(d) or right.holds(d))

    pairs = st.tuples(parts, parts)
    return pairs.map(both) | pairs.map(one)


documents = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([*LITERALS, 1, -2, 3.5, 0, True, False, None, [1], {"a": 1}, ""])
)


@given(st.recursive(comparisons(), joined, max_leaves=6), documents)
@settings(max_examples=300)
def test_a_generated_json_pattern_agrees_with_its_direct_evaluation(
    pattern: Generated, document: dict[str, Json]
) -> None:
    assert parse("{" + pattern.text + "}")(json.dumps(document)) == pattern.holds(document)


@given(st.lists(st.sampled_from(["&&", "||"]), max_size=6), st.data())
def test_without_parentheses_a_pattern_is_an_or_of_ands(operators: list[str], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.booleans(), min_size=len(operators) + 1, max_size=len(operators) + 1))
    document = {f"v{i}": int(value) for i, value in enumerate(values)}
    text = "$.v0 = 1" + "".join(f" {op} $.v{i + 1} = 1" for i, op in enumerate(operators))
    groups = [[values[0]]]
    for op, value in zip(operators, values[1:], strict=True):
        groups.append([value]) if op == "||" else groups[-1].append(value)
    assert parse("{" + text + "}")(json.dumps(document)) == any(all(group) for group in groups)


# ---- space-delimited lines ------------------------------------------------------------------------------------

ACCESS = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'
WORDS = [
    "INFO 09/25/2014 12:00:00 GET /service/resource/67 1200",
    "INFO 09/25/2014 12:00:01 POST /service/resource/67/part/111 1310",
    "WARNING 09/25/2014 12:00:02 Invalid user request",
    "ERROR 09/25/2014 12:00:02 Failed to process request",
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[ip, user, username, timestamp, request, status_code, bytes]", True),
        ("[ip, user, username, timestamp, request, status_code, bytes > 1000]", True),
        ("[ip, user, username, timestamp, request, status_code, bytes > 2000]", False),
        (r"[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]", True),
        ("[..., request =*.html*, status_code = 4*, bytes]", True),
        ("[..., request=*.html*, status_code=4*,]", True),
        ("[ip, ..., status_code = 404 || status_code = 410, bytes]", True),
        ("[ip, ..., status_code != 404 && status_code != 410, bytes]", False),
        ("[ip, user, ...]", True),
        ("[...]", True),
        ('[..., request = "GET /index.html HTTP/1.0", status, bytes]', True),
        ('[ip, user, username, timestamp = "10/Oct/2000:13:25:15 -0700", ...]', True),
        ("[a, b, c, d, e, f, g, h]", False),
        ("[a, b, c, d, e, f = 404]", False),
    ],
)
def test_space_delimited_fields(pattern: str, expected: bool) -> None:
    assert parse(pattern)(ACCESS) is expected


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("[w1=ERROR, w2]", [3]),
        ("[w1=ERROR || w1=WARNING, w2]", [2, 3]),
        ("[w1!=ERROR && w1!=WARNING, w2]", [0, 1]),
        ("[logLevel, date, time, method, url=%/service/resource/[0-9]+$%, response_time]", [0]),
        ("[logLevel, date, time, method, url=%/service/resource/[0-9]+/part/[0-9]+$%, response_time]", [1]),
    ],
)
def test_the_first_words_of_a_line(pattern: str, lines: list[int]) -> None:
    assert kept(pattern, WORDS) == lines


def test_an_opening_bracket_without_an_end_is_a_word_like_any_other() -> None:
    assert parse("[a = %^.x%, b = y]")("[x y")


# ---- bad patterns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "column", "expected"),
    [
        ("a-b", 2, "a space between two terms"),
        ("user@example.com", 5, "a space between two terms"),
        ('"open', 1, 'a closing "'),
        ("ERROR -", 8, "a word or a quoted phrase"),
        ("é", 1, "a word or a quoted phrase"),
        ("ERROR %x%", 7, "stands alone"),
        ("%x% ERROR", 5, "nothing after the regular expression"),
        ("%x", 1, "a closing %"),
        ("%%", 2, "an expression"),
        ("%(a|b)%", 2, "no parentheses"),
        ("%a**%", 4, "no second repetition"),
        ("%a{2}{3}%", 6, "no second repetition"),
        ("%*a%", 2, "something for `*` to apply to"),
        ("%a{3,2}%", 3, "m up to n"),
        ("%a{x}%", 3, "{m}"),
        ("%a{9999}%", 3, "up to 1000"),
        ("%a{600}b{600}%", 14, "at most 1000"),
        ("%[a%", 2, "a closing `]`"),
        (r"%[a\]%", 2, "a closing `]`"),
        ("%[z-a]%", 3, "a range"),
        (r"%\q%", 3, "an operator, or one of"),
        (r"%\xg0%", 3, "two hexadecimal digits"),
        ("%a^b%", 3, "only at the start"),
        ("%a$b%", 4, "after `$`"),
        ("%é%", 2, "a supported character"),
        ("{}", 2, "a selector like $.level"),
        ("{ $.a = 1", 10, "&&, || or }"),
        ("{ $.a = 1 } x", 13, "nothing after }"),
        ("{ $.a }", 7, "existence is written = *"),
        ("{ $.a EXISTS }", 7, "existence is written = *"),
        ("{ $.a IS NOT NULL }", 10, "NULL, TRUE or FALSE"),
        ("{ $.a NOT NULL }", 11, "EXISTS after NOT"),
        ("{ $.a ! 1 }", 7, "one of =, !="),
        ("{ $.a = }", 9, "a value"),
        ("{ $.a = user@example }", 13, "&&, || or }"),
        ('{ $.a > "1" }', 9, "a number after >"),
        ("{ $.a < x }", 9, "a number after <"),
        ("{ ($.a = 1 }", 12, "&&, || or )"),
        ("{ $.a = 1 && }", 14, "a selector"),
        ("{ a = 1 }", 3, "a selector like $.level"),
        ("{ $a = 1 }", 3, "a selector like $.level"),
        ("{ $. = 1 }", 5, "a property name"),
        ("{ $.a[-1] = 1 }", 7, "an index, * or a quoted name"),
        ("{ $.a[1 = 1 }", 8, "]"),
        ("{ $.a[*][*] = 1 }", 3, "at most one wild card"),
        ("{ $.a[*]=1 || $.b[*]=1 || $.c[*]=1 || $.*=1 }", 39, "at most 3 wild-card selectors"),
        ("{ $.a=%x% || $.b=%x% || $.c=%x% }", 29, "at most 2 regular expressions"),
        ("{" + "(" * 40 + "$.a=1" + ")" * 40 + "}", 35, "parentheses in each other"),
        ("[a, b", 6, ", or ]"),
        ("[a, b] x", 8, "nothing after ]"),
        ("[..., a, ...]", 10, "only one ..."),
        ("[a = 1 && b = 2, c]", 11, "a condition on the field itself, a"),
        ("[a, = 1]", 5, "the name of a field"),
    ],
)
def test_a_bad_pattern_is_refused_with_the_column_and_what_was_expected(
    pattern: str, column: int, expected: str
) -> None:
    with pytest.raises(InputError) as refused:
        parse(pattern)
    assert f"at column {column}:" in refused.value.message
    assert expected in refused.value.message


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("{ $.level == WARN }", "Write = instead of ==."),
        ("{ $.level === WARN }", "Write = instead of ==."),
        ("{ $.level <> WARN }", "Write != instead of <>."),
        ("{ $.level =~ WARN }", "Write = and a %regular expression% instead of =~."),
        ("{ $.attempt => 5 }", "Write >= instead of =>."),
        ("{ $.attempt =< 5 }", "Write <= instead of =<."),
        ("[level == WARN]", "Write = instead of ==."),
        ("{ $.level = 'WARN' }", 'Quotes around a value are double: "a b".'),
        ("{ level = WARN }", "A field of the line is written $.level."),
        ("$.level = WARN", "A condition on a field stands in braces: { $.level = WARN }."),
        ("{ $.a = 1 and $.b = 2 }", "Write && instead of and."),
        ("{ $.a = 1 AND $.b = 2 }", "Write && instead of AND."),
        ("{ $.a = 1 OR $.b = 2 }", "Write || instead of OR."),
        ("{ $.a = 1 & $.b = 2 }", "Write && instead of &."),
        ("{ $.a = 1 | $.b = 2 }", "Write || instead of |."),
        ("{ !$.a = 1 }", "write != in place of =, or NOT EXISTS behind the selector."),
        ("ERROR OR WARN", 'Alternatives are written ?a ?b. The word itself is written "OR".'),
        ("ERROR AND refused", 'Terms beside each other must all occur. The word itself is written "AND".'),
        ("NOT refused", 'What must not occur is written -a. The word itself is written "NOT".'),
    ],
)
def test_a_pattern_in_the_manner_of_another_language_is_refused_with_how_it_is_written_here(
    pattern: str, advice: str
) -> None:
    with pytest.raises(InputError) as refused:
        parse(pattern)
    assert refused.value.advice.endswith(advice)


def test_a_word_of_another_language_is_looked_for_in_quotes() -> None:
    assert parse('"OR"')("this OR that")
    assert parse("ORDER AND_MORE")("ORDER AND_MORE")


def test_a_pattern_longer_than_cloudwatch_allows_is_refused() -> None:
    parse("a" * MAX_PATTERN)
    with pytest.raises(InputError, match="1025 characters"):
        parse("a" * (MAX_PATTERN + 1))


pieces = st.sampled_from([*"{}[]()\"%$.*=!<>&|?-\\, '^+", "$.a", "IS", "NULL", "NOT EXISTS", "...", "ab", "1", "é"])


@given(st.lists(pieces, max_size=25).map("".join), st.text(max_size=20) | documents.map(json.dumps))
@settings(max_examples=1000)
def test_parse_raises_nothing_but_input_errors_and_its_tests_raise_nothing(pattern: str, line: str) -> None:
    try:
        test = parse(pattern)
    except InputError:
        return
    assert test(line) in (True, False)
