"""Queue triggers: which messages of a queue start a run, and what that run's input, key and metadata are.

Expressions are JMESPath: they select and reshape JSON, call a fixed list of functions, and can do nothing else. They
are compiled and checked when the workflow is declared. Each sees the message's content, and what is known of the
message itself as `message()`:

    detail.order                        a part of the content
    "detail-type" == 'order.created'    a name with a dash in double quotes, text in single quotes
    message().attributes.tenant         id, queue, sent, attributes, group, topic, subject
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import jmespath
from jmespath import exceptions, functions
from jmespath.lexer import Lexer
from jmespath.parser import ParsedResult

from detent_state_machine.envelopes import Content, JsonData
from detent_state_machine.errors import DefinitionError, InputError

MAX_EXPRESSION = 4096
"""Characters of an expression."""
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_MESSAGE = "message"
MESSAGE_FIELDS = ("id", "queue", "sent", "attributes", "group", "topic", "subject")

_Node: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue whose messages start runs: `app.workflow(…, on_queue=Queue("orders-inbox", input="detail.order"))`.

    Expressions are JMESPath over the message's content. `input` selects the run's input (by default the content
    itself; of an event of EventBridge, its `detail`). `when` says which messages are meant for the workflow: not those
    for which it is false, null or empty. `key` is the run's idempotency key, text or a whole number (by default queue
    and message id). `metadata` has an expression by name; what is null is left out.
    """

    name: str
    input: str | None = None
    key: str | None = None
    when: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to start. `input` is JSON text, not yet held to the workflow's model."""

    input: str
    key: str
    metadata: Mapping[str, str]


class Expression:
    """A compiled expression."""

    def __init__(self, text: str, what: str) -> None:
        """Raises `DefinitionError`; `what` names it."""
        self.text = text
        self.what = what
        self._compiled = _compiled(text, what)

    def of(self, content: Content) -> JsonData:
        """What it finds in the content; None for nothing. Raises `InputError` if a function does not fit the value."""
        options = jmespath.Options(custom_functions=_Functions(content))
        try:
            return cast("JsonData", self._compiled.search(content.value, options))
        except (ValueError, ArithmeticError, TypeError, RecursionError) as error:
            raise InputError(f"{self.what} {self.text!r} does not fit the message: {_misfit(error)}.") from None


@dataclass(frozen=True, slots=True)
class Trigger:
    """A compiled `Queue` of a workflow."""

    workflow: str
    queue: str
    input: Expression | None
    key: Expression | None
    when: Expression | None
    metadata: Mapping[str, Expression]


def compile_trigger(workflow: str, given: Queue | str) -> Trigger:
    """Raises `DefinitionError` that says what to fix."""
    where = f"Workflow {workflow!r}, on_queue"
    queue = Queue(given) if isinstance(given, str) else given
    if not isinstance(queue, Queue):
        raise DefinitionError(
            f"{where}: {given!r} is neither the name of a queue nor a `Queue`.",
            advice='Write `on_queue="orders-inbox"`, or `on_queue=Queue("orders-inbox", input="detail.order")`.',
        )
    if not isinstance(queue.name, str):
        raise DefinitionError(
            f"{where}: the name of a queue is text, not {queue.name!r}.", advice="Write it in quotes."
        )
    if not isinstance(queue.metadata, Mapping):
        raise DefinitionError(
            f"{where}: `metadata={queue.metadata!r}` is not a mapping.",
            advice='Write an expression by name: `metadata={"tenant": "detail.tenant"}`.',
        )
    if _QUEUE_NAME.fullmatch(queue.name) is None:
        raise DefinitionError(
            f"{where}: {queue.name!r} is not a name of a queue.",
            advice="Write the queue's name, not its URL or ARN: 1 to 80 letters, digits, dashes and underscores; "
            "a FIFO queue's ends in .fifo.",
        )

    for name in cast("Mapping[object, object]", queue.metadata):
        if not isinstance(name, str):
            raise DefinitionError(
                f"{where}: a name in `metadata=` is text, not {name!r}.", advice="Write it in quotes."
            )

    def expression(name: str, text: str | None) -> Expression | None:
        return None if text is None else Expression(text, f"{where}: {name}")

    return Trigger(
        workflow,
        queue.name,
        expression("input", queue.input),
        expression("key", queue.key),
        expression("when", queue.when),
        {name: Expression(text, f"{where}: metadata {name!r}") for name, text in queue.metadata.items()},
    )


def request_of(trigger: Trigger, content: Content) -> RunRequest | None:
    """The run that the message starts; None if it is not meant for this workflow.

    Raises `InputError` if an expression finds nothing, or what cannot be used.
    """
    if trigger.when is not None and _is_false(trigger.when.of(content)):
        return None
    return RunRequest(
        _json(_input(trigger, content)),
        f"{content.message.queue}/{content.id}" if trigger.key is None else _key(trigger.key, content),
        _metadata(trigger, content),
    )


def _input(trigger: Trigger, content: Content) -> JsonData:
    if trigger.input is None:
        return cast("dict[str, object]", content.value)["detail"] if content.is_event else content.value
    found = trigger.input.of(content)
    if found is None:
        raise InputError(f"{trigger.input.what} {trigger.input.text!r} finds nothing in the message.")
    return found


def _key(expression: Expression, content: Content) -> str:
    found = expression.of(content)
    if isinstance(found, str) and found:
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return _json(found)
    what = "nothing" if found is None else f"{_kind(found)}, which is neither text nor a whole number,"
    raise InputError(f"{expression.what} {expression.text!r} finds {what} in the message.")


def _kind(value: JsonData) -> str:
    """What it is, not what it says: the value may be a secret."""
    names: dict[type, str] = {
        str: "empty text",
        bool: "a truth value",
        float: "a fraction",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "a function")


def _metadata(trigger: Trigger, content: Content) -> dict[str, str]:
    found = {name: expression.of(content) for name, expression in trigger.metadata.items()}
    return {
        name: value if isinstance(value, str) else _json(value) for name, value in found.items() if value is not None
    }


def _json(value: JsonData) -> str:
    """In ASCII: half a surrogate pair, which JSON can spell and no store takes, is left for the model to refuse."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"What an expression found has no JSON form: {error}.") from None


def _is_false(value: JsonData) -> bool:
    """As JMESPath has it: 0 is not false."""
    return value is None or value is False or value in ("", [], {})


# ---- what expressions may say -------------------------------------------------------------------------------


class _Functions(functions.Functions):
    """JMESPath's own functions, and `message()`."""

    def __init__(self, content: Content) -> None:
        self._content = content

    @functions.signature()
    def _func_message(self) -> dict[str, JsonData]:
        content, message = self._content, self._content.message
        return {
            "id": content.id,
            "queue": message.queue,
            "sent": message.sent,
            "attributes": dict(content.attributes),
            "group": message.group or None,
            "topic": content.topic,
            "subject": content.subject,
        }


_QUOTING = (
    "Names with a dash or a dot are in double quotes, text is in single quotes: \"detail-type\" == 'order.created'."
)


def _compiled(text: object, what: str) -> ParsedResult:
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
        _check(node, f"{what} {text!r}")
    _check_comparisons(text, f"{what} {text!r}")
    return compiled


def _walk(node: _Node) -> Iterator[_Node]:
    yield node
    for child in cast("list[object]", node.get("children", ())):
        if isinstance(child, dict):
            yield from _walk(cast("_Node", child))


def _check(node: _Node, what: str) -> None:
    """What cannot work would only be met when a message comes."""
    children = cast("list[_Node]", node.get("children", ()))
    match node["type"]:
        case "slice" if cast("list[int | None]", children)[2] == 0:
            raise DefinitionError(f"{what} has a slice that steps by 0.")
        case "function_expression":
            _check_call(node, children, what)
        case "subexpression" if (
            children[0]["type"] == "function_expression"
            and children[0]["value"] == _MESSAGE
            and children[1]["type"] == "field"
            and children[1]["value"] not in MESSAGE_FIELDS
        ):
            raise DefinitionError(
                f"{what} asks for message().{children[1]['value']}, which there is not.",
                advice=f"There are: {', '.join(MESSAGE_FIELDS)}. The message's content needs no message().",
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


def _check_call(node: _Node, children: list[_Node], what: str) -> None:
    table = cast("dict[str, dict[str, tuple[_Node, ...]]]", _Functions.FUNCTION_TABLE)
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
