"""From a message to the run that it starts, or to the reason why it starts none."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from detent_state_machine.envelopes import SourceMessage, open_message
from detent_state_machine.errors import DefinitionError, InputError
from detent_state_machine.triggers import Queue, RunRequest, compile_trigger, request_of
from hypothesis import given
from hypothesis import strategies as st

from tests.support.envelopes import EVENT, notification


def request(queue: Queue | str, value: object, *, body: str | None = None) -> RunRequest | None:
    """What a message with this content starts."""
    text = json.dumps(value) if body is None else body
    message = SourceMessage.of("inbox", "m-1", text, sent=5, attributes={"tenant": "acme"}, group="g")
    return request_of(compile_trigger("orders", queue), open_message(message))


def started(queue: Queue | str, value: object, *, body: str | None = None) -> RunRequest:
    found = request(queue, value, body=body)
    assert found is not None
    return found


# ---- what is mapped -----------------------------------------------------------------------------------------


def test_a_queue_s_name_alone_takes_the_body_as_the_input_and_the_message_s_id_as_the_key() -> None:
    assert started("inbox", {"id": "A"}) == RunRequest('{"id":"A"}', "inbox/m-1", {})


def test_an_event_of_eventbridge_is_the_input_by_its_detail_and_its_id_is_the_key() -> None:
    assert started("inbox", EVENT) == RunRequest('{"order":{"id":"A"}}', "inbox/e-1", {})


def test_a_notification_of_sns_is_the_input_by_its_message() -> None:
    assert started("inbox", None, body=notification('{"id":"A"}')).input == '{"id":"A"}'
    assert started("inbox", None, body=notification('{"id":"A"}')).key == "inbox/n-1"


def test_expressions_select_the_input_the_key_and_metadata() -> None:
    queue = Queue(
        "inbox",
        input="detail.order",
        key="detail.order.id",
        metadata={"source": "source", "type": '"detail-type"', "resources": "resources", "none": "detail.none"},
    )
    expected = {"source": "shop", "type": "order.created", "resources": "[]"}
    assert started(queue, EVENT) == RunRequest('{"id":"A"}', "A", expected)


def test_an_input_may_be_reshaped() -> None:
    queue = Queue("inbox", input="{id: order.number, cents: sum(order.lines[].cents)}")
    found = started(queue, {"order": {"number": 7, "lines": [{"cents": 1}, {"cents": 2}]}})
    assert json.loads(found.input) == {"id": 7, "cents": 3}


def test_expressions_see_what_is_known_of_the_message_itself() -> None:
    found = started(Queue("inbox", input="message()", key="join('-', [message().queue, message().id])"), {})
    assert json.loads(found.input) == {
        "id": "m-1",
        "queue": "inbox",
        "sent": 5,
        "attributes": {"tenant": "acme"},
        "group": "g",
        "topic": None,
        "subject": None,
    }
    assert found.key == "inbox-m-1"


@pytest.mark.parametrize(("value", "key"), [("A", "A"), (17, "17"), (0, "0")])
def test_a_key_is_text_or_a_whole_number(value: object, key: str) -> None:
    assert started(Queue("inbox", key="id"), {"id": value}).key == key


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        ("kind == 'order'", True),
        ("kind == 'other'", False),
        ("missing", False),
        ("empty", False),
        ("zero", True),
        ("cents > `3`", True),
        ("contains(tags, 'x') && !empty", True),
        ("message().attributes.tenant == 'acme'", True),
        ("starts_with(kind, 'ord')", True),
    ],
)
def test_a_message_is_meant_for_the_workflow_if_when_is_not_false(when: str, wanted: bool) -> None:
    value = {"kind": "order", "empty": [], "zero": 0, "cents": 5, "tags": ["x"]}
    assert (request(Queue("inbox", when=when), value) is not None) is wanted


def test_a_false_when_is_enough_whatever_the_other_expressions_find() -> None:
    assert request(Queue("inbox", input="missing", key="missing", when="missing"), {}) is None


# ---- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        (Queue("inbox", input="missing"), "on_queue: input 'missing' finds nothing"),
        (Queue("inbox", key="missing"), "on_queue: key 'missing' finds nothing"),
        (Queue("inbox", key="empty"), "finds empty text, which is neither text nor a whole number"),
        (Queue("inbox", key="yes"), "finds a truth value, which is neither text nor a whole number"),
        (Queue("inbox", key="half"), "finds a fraction, which is neither text nor a whole number"),
        (Queue("inbox", key="@"), "which is neither text nor a whole number"),
        (Queue("inbox", when="contains(missing, 'x')"), "on_queue: when .* does not fit the message"),
        (Queue("inbox", when="text > `3`"), "does not fit the message"),
        (Queue("inbox", metadata={"a": "abs(text)"}), "metadata 'a' .* does not fit the message"),
        (Queue("inbox", input="sum(huge)"), "has no JSON form"),
        (Queue("inbox", key="sum(long)"), "has no JSON form"),
        (Queue("inbox", key="to_string(sum(long))"), "does not fit the message: ValueError"),
        (Queue("inbox", key="join('-', card)"), r"does not fit the message: join\(\) takes array-string, not object"),
    ],
)
def test_an_expression_that_finds_nothing_usable_refuses_the_message_and_says_which(queue: Queue, said: str) -> None:
    value = {"empty": "", "yes": True, "half": 0.5, "text": "x", "huge": [1e308, 1e308]}
    with pytest.raises(InputError, match=said):
        request(queue, {**value, "long": [int("9" * 4300)] * 2, "card": {"pan": "4111"}})


@pytest.mark.parametrize("expression", ["join('-', card)", "abs(card.pan)", "card", "[card]", "sum(card.pan)"])
def test_what_refuses_a_message_tells_nothing_of_what_it_holds(expression: str) -> None:
    with pytest.raises(InputError) as refused:
        request(Queue("inbox", key=expression), {"card": {"pan": "4111"}})
    assert "4111" not in str(refused.value)


@given(st.text(), st.sampled_from(["a", "@", "a.b", "length(a)", "a[0]", "sort(a)", "max(a)", "to_number(a)"]))
def test_any_message_is_mapped_or_refused(body: str, expression: str) -> None:
    queue = Queue("inbox", input=expression, key=expression, when="@ != 'x'", metadata={"a": expression})
    for text in (body, json.dumps(body), json.dumps({"a": body}), json.dumps({"a": [body, 1, None]})):
        with suppress(InputError):
            request(queue, None, body=text)


# ---- what is declared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 81, "https://sqs/1/inbox", "arn:aws:sqs:r:1:inbox", "a.b"])
def test_what_is_no_name_of_a_queue_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"not its URL or ARN"):
        compile_trigger("orders", name)


@pytest.mark.parametrize(
    ("expression", "advice"),
    [
        ("!data.skip", "`!(data.skip)`"),
        ("!data.items[0].skip", "`!(data.skip)`"),
        ("!data[?skip]", "`!(data.skip)`"),
        ("!data.skip && data.go", "`!(data.skip)`"),
        ("(data.kind == 'a').b", "`!(data.skip)`"),
        ("!kind == 'test'", "`!(kind == 'test')`"),
        ("!data.kind == 'test'", "`!(data.skip)`"),
        ("date > '2026-01-01'", "total > `5`"),
        ('total >= `"5"`', "total > `5`"),
        ("`true` < total", "total > `5`"),
        ("data.paid == true", "`true`"),
        ("data.paid != null", "`null`"),
        ("false", "`false`"),
    ],
)
def test_an_expression_that_holds_for_no_message_is_refused_with_the_fix(expression: str, advice: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        compile_trigger("orders", Queue("inbox", when=expression))
    assert advice in refused.value.advice


@pytest.mark.parametrize(
    "expression",
    ["!(data.skip)", "!data[0]", "!data[*].a", "!contains(a, 'b')", "!a && b", "!a == `true`", "a.true", "@.null"],
)
def test_an_expression_that_may_hold_is_taken(expression: str) -> None:
    compile_trigger("orders", Queue("inbox", when=expression))


@pytest.mark.parametrize("name", ["a", "orders-inbox", "Orders_1", "x" * 80, "orders.fifo"])
def test_names_that_sqs_takes_are_taken(name: str) -> None:
    assert compile_trigger("orders", name).queue == name


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "cannot be empty"),
        ("detail-type == 'x'", 'in double quotes, .* "detail-type"'),
        ("detail.", "Parse error at column 7"),
        ("nope(a)", r"calls nope\(\), which there is not. There are: abs, "),
        ("length(a, b)", r"gives length\(\) 2 arguments; it takes 1"),
        ("merge()", r"takes at least 1"),
        ("message(a)", r"gives message\(\) 1 arguments; it takes 0"),
        ("a[?nope(@)]", "calls nope"),
        ("message().ids", r"message\(\).ids, which there is not. There are: id, queue, sent"),
        ('kind == "order"', "in single quotes: 'order'"),
        ('"a-b" == "c-d"', r'If the member is meant, write @\."c-d"\.'),
        ("a[::0]", "a slice that steps by 0"),
        ("&a", "an & outside the arguments"),
        ("{a: &b}", "an & outside the arguments"),
        ("a[?&b]", "an & outside the arguments"),
        ("(" * 5_000, "4,096 are allowed"),
        ("(" * 4_000, "not a JMESPath expression"),
    ],
)
def test_an_expression_that_cannot_work_is_refused_when_it_is_declared(expression: str, said: str) -> None:
    for queue in (
        Queue("inbox", input=expression),
        Queue("inbox", key=expression),
        Queue("inbox", when=expression),
        Queue("inbox", metadata={"a": expression}),
    ):
        with pytest.raises(DefinitionError, match=said) as caught:
            compile_trigger("orders", queue)
        assert "Workflow 'orders', on_queue: " in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        '"a-b" == @."c-d"',
        "\"b\" == 'x' && a == b",
        '"a-b" == "c-d".e',
        'a == "b"[0]',
        "sort_by(a, &b)[::-1]",
        'message().attributes."x-y"',
    ],
)
def test_an_expression_that_can_work_is_taken(expression: str) -> None:
    compile_trigger("orders", Queue("inbox", when=expression))
