"""JMESPath, where text is needed: to select, reshape or filter JSON. It calls a fixed list of functions, and can do
nothing else. What cannot work is refused when it is declared, with the place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import jmespath
from jmespath import exceptions, functions
from jmespath.lexer import Lexer
from jmespath.parser import ParsedResult

from detent_state_machine.envelopes import JsonData
from detent_state_machine.errors import DefinitionError, InputError

MAX_EXPRESSION = 4096
"""Characters of an expression."""
MESSAGE = "message"
"""The function that says what is known of a queue's message, where there is one."""

_Node: TypeAlias = Mapping[str, Any]


class Expression:
    """A compiled expression."""

    def __init__(
        self,
        text: str,
        what: str,
        callable: type[functions.Functions] = functions.Functions,
        message_fields: Sequence[str] = (),
    ) -> None:
        """Raises `DefinitionError`; `what` names it. `callable`: the functions that it may call."""
        self.text = text
        self.what = what
        table = cast("Mapping[str, Any]", callable.FUNCTION_TABLE)
        self._compiled = _compiled(text, what, table, message_fields)

    def of(self, value: object, subject: str, callable: functions.Functions | None = None) -> JsonData:
        """What it finds in the value; None for nothing. Raises `InputError` if a function does not fit the value.

        `subject` names the value, which may be a secret, in that error.
        """
        options = jmespath.Options(custom_functions=callable)
        try:
            return cast("JsonData", self._compiled.search(value, options))
        except (ValueError, ArithmeticError, TypeError, RecursionError) as error:
            raise InputError(f"{self.what} {self.text!r} does not fit {subject}: {_misfit(error)}.") from None


def is_false(value: JsonData) -> bool:
    """As JMESPath has it: 0 is not false."""
    return value is None or value is False or value in ("", [], {})


# ---- what is refused when it is declared -----------------------------------------------------------------------

_QUOTING = (
    "Names with a dash or a dot are in double quotes, text is in single quotes: \"detail-type\" == 'order.created'."
)


def _compiled(text: object, what: str, table: Mapping[str, Any], fields: Sequence[str]) -> ParsedResult:
    if not isinstance(text, str):
        raise DefinitionError(f"{what}: a JMESPath expression is text, not {text!r}.", advice="Write it in quotes.")
    if len(text) > MAX_EXPRESSION:
        raise DefinitionError(f"{what} has {len(text):,} characters; {MAX_EXPRESSION:,} are allowed.")
    try:
        compiled = jmespath.compile(text)
        nodes = list(_walk({"type": "expression", "children": [compiled.parsed]}))
    except (exceptions.JMESPathError, RecursionError) as error:
        raise DefinitionError(
            f"{what} {text!r} is not a JMESPath expression: {_said(error)}.",
            advice=f"{_QUOTING} See https://jmespath.org/tutorial.html.",
        ) from None
    for node in nodes:
        _check(node, f"{what} {text!r}", table, fields)
    _check_comparisons(text, f"{what} {text!r}")
    return compiled


def _walk(node: _Node) -> Iterator[_Node]:
    yield node
    for child in cast("list[object]", node.get("children", ())):
        if isinstance(child, dict):
            yield from _walk(cast("_Node", child))


def _check(node: _Node, what: str, table: Mapping[str, Any], fields: Sequence[str]) -> None:
    """What cannot work would only be met when a message comes."""
    children = cast("list[_Node]", node.get("children", ()))
    match node["type"]:
        case "slice" if cast("list[int | None]", children)[2] == 0:
            raise DefinitionError(f"{what} has a slice that steps by 0.")
        case "function_expression":
            _check_call(node, children, what, table)
        case "subexpression" if (
            children[0]["type"] == "function_expression"
            and children[0]["value"] == MESSAGE
            and children[1]["type"] == "field"
            and children[1]["value"] not in fields
        ):
            raise DefinitionError(
                f"{what} asks for message().{children[1]['value']}, which there is not.",
                advice=f"There are: {', '.join(fields)}. The message's content needs no message().",
            )
        case kind if kind in _INSIDE and children[0]["type"] in _TRUTH:
            raise DefinitionError(
                f"{what} looks inside of a truth value, where nothing is: `!` and comparisons bind before `.` and `[`.",
                advice="Put what `!` turns around into parentheses: `!(data.skip)`.",
            )
        case "comparator":
            _check_comparison(node, children, what)
        case kind if kind != "function_expression" and any(_is_reference(child) for child in children):
            raise DefinitionError(f"{what} has an & outside the arguments of a function.")
        case _:
            pass


_TRUTH = frozenset({"not_expression", "comparator"})
_INSIDE = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "flatten"}
)


def _check_call(node: _Node, children: list[_Node], what: str, table: Mapping[str, Any]) -> None:
    name = str(node["value"])
    if name not in table:
        raise DefinitionError(
            f"{what} calls {name}(), which there is not.", advice=f"There are: {', '.join(sorted(table))}."
        )
    signature = table[name]["signature"]
    variadic = bool(signature) and bool(signature[-1].get("variadic"))
    if len(children) != len(signature) and not (variadic and len(children) > len(signature)):
        least = "at least " if variadic else ""
        raise DefinitionError(f"{what} gives {name}() {len(children)} arguments; it takes {least}{len(signature)}.")


def _check_comparison(node: _Node, children: list[_Node], what: str) -> None:
    """Comparisons that hold for no message at all."""
    for side, other in (children, reversed(children)):
        literal = side.get("value") if side["type"] == "literal" else None
        if side["type"] == "literal" and node["value"] not in ("eq", "ne") and not _is_number(literal):
            raise DefinitionError(
                f"{what} asks which of two is greater, and {literal!r} is not a number: that holds for no message.",
                advice="A number is written in backticks: total > `5`. Texts can only be equal.",
            )
        if side["type"] == "literal" and other["type"] in _TRUTH and not isinstance(literal, bool):
            raise DefinitionError(
                f"{what} compares a truth value with {literal!r}: `!` binds before comparisons.",
                advice="Put what `!` turns around into parentheses: `!(kind == 'test')`.",
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_reference(child: object) -> bool:
    return isinstance(child, dict) and cast("_Node", child)["type"] == "expref"


_COMPARISONS = frozenset({"eq", "ne", "lt", "lte", "gt", "gte"})
_GOES_ON = frozenset({"dot", "lbracket", "flatten", "filter"})


def _check_comparisons(text: str, what: str) -> None:
    """A name in double quotes behind `==` is a text that was meant for single quotes, almost always."""
    tokens = list(Lexer().tokenize(text))
    for before, token, after in zip([{"type": "start"}, *tokens], tokens, tokens[1:], strict=False):
        alone = before["type"] not in ("dot", "lbrace", "comma") and after["type"] not in (*_GOES_ON, "colon", "lparen")
        if token["type"] == "unquoted_identifier" and token["value"] in ("true", "false", "null") and alone:
            word = token["value"]
            raise DefinitionError(
                f"{what} asks for the member {word!r} of the content.",
                advice=f"The value is written in backticks: `{word}`. If the member is meant, write @.{word}.",
            )
        if before["type"] in _COMPARISONS and token["type"] == "quoted_identifier" and after["type"] not in _GOES_ON:
            name = token["value"]
            raise DefinitionError(
                f"{what} compares with the member {name!r} of the content.",
                advice=f"Text is written in single quotes: '{name}'. If the member is meant, write @.\"{name}\".",
            )


def _misfit(error: Exception) -> str:
    """Without the value: it may be a secret, and what is said here is logged."""
    match error:
        case exceptions.JMESPathTypeError():
            wanted = " or ".join(error.expected_types)
            return f"{error.function_name}() takes {wanted}, not {error.actual_type}"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return type(error).__name__


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split()).rstrip(".^ ")
