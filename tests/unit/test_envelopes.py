"""What a message says once its envelopes are off, under which id it is known, and what rides on a dead letter."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from detent_state_machine.envelopes import (
    MAX_ATTRIBUTES,
    MAX_BODY,
    Attribute,
    Refusal,
    SourceMessage,
    Typed,
    check_outgoing,
    dead_letter_attributes,
    open_message,
    refusal_in,
    texts,
)
from detent_state_machine.errors import InputError, PayloadTooLarge
from hypothesis import given
from hypothesis import strategies as st

from tests.support.envelopes import EVENT, notification


def sent(body: str, **more: str) -> SourceMessage:
    return SourceMessage.of("inbox", "m-1", body, sent=5, attributes=more)


def test_a_body_of_json_is_the_content_under_the_queue_s_own_id() -> None:
    content = open_message(sent('{"id":"A"}', tenant="acme"))
    assert (content.id, content.value, content.attributes) == ("m-1", {"id": "A"}, {"tenant": "acme"})
    assert (content.topic, content.subject, content.is_event) == (None, None, False)


def test_a_notification_of_sns_is_opened_and_known_by_its_own_id_which_sns_keeps_when_it_repeats_it() -> None:
    attributes = {
        "tenant": {"Type": "String", "Value": "acme"},
        "count": {"Type": "Number", "Value": "2"},
        "raw": {"Type": "Binary", "Value": "AAA="},
        "odd": 7,
    }
    content = open_message(sent(notification('{"id":"A"}', Subject="new", MessageAttributes=attributes)))
    assert (content.id, content.value) == ("n-1", {"id": "A"})
    assert (content.topic, content.subject) == ("arn:aws:sns:eu-west-1:123456789012:orders", "new")
    assert content.attributes == {"tenant": "acme", "count": "2"}


def test_an_event_of_eventbridge_stays_whole_and_is_known_by_its_own_id() -> None:
    content = open_message(sent(json.dumps(EVENT)))
    assert (content.id, content.value, content.is_event) == ("e-1", EVENT, True)


def test_an_event_that_came_through_a_topic_is_known_by_the_event_s_id() -> None:
    content = open_message(sent(notification(json.dumps(EVENT))))
    assert (content.id, content.value, content.is_event) == ("e-1", EVENT, True)
    assert content.topic == "arn:aws:sns:eu-west-1:123456789012:orders"


@pytest.mark.parametrize("missing", sorted(EVENT))
def test_what_lacks_a_member_of_an_event_is_none(missing: str) -> None:
    content = open_message(sent(json.dumps({name: value for name, value in EVENT.items() if name != missing})))
    assert (content.id, content.is_event) == ("m-1", False)


@pytest.mark.parametrize("id", [7, "", "x" * 101, "a\nb", "\ud800"])
def test_an_event_or_a_notification_whose_id_is_none_is_known_by_the_queue_s(id: object) -> None:
    assert open_message(sent(json.dumps({**EVENT, "id": id}))).id == "m-1"
    assert open_message(sent(notification("{}", MessageId=id))).id == "m-1"


@pytest.mark.parametrize("body", ["hello", "", "{", "NaN", '{"a":Infinity}', "[" * 100_000, "1" * 5_000, "\ufeff{}"])
def test_what_is_not_json_is_refused(body: str) -> None:
    with pytest.raises(InputError, match="not JSON"):
        open_message(sent(body))


def test_a_notification_whose_message_is_not_json_is_refused_and_says_that_it_was_sns_s() -> None:
    with pytest.raises(InputError, match="notification of SNS is not JSON"):
        open_message(sent(notification("hello")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON)
def test_whatever_json_a_body_holds_is_the_content_as_it_is(value: object) -> None:
    assert open_message(sent(json.dumps(value))).value == value
    assert open_message(sent(notification(json.dumps(value)))).value == value


@given(st.text())
def test_whatever_a_body_holds_is_opened_or_refused(body: str) -> None:
    with suppress(InputError):
        assert open_message(sent(body)).message.body == body


# ---- dead letters -------------------------------------------------------------------------------------------


def test_a_dead_letter_says_why_and_which_message_it_was_and_keeps_the_message_s_attributes() -> None:
    refusal = Refusal("InputError", "no id")
    attributes = dead_letter_attributes(sent("{}", tenant="acme"), refusal)
    assert attributes == {
        "tenant": "acme",
        "detent-error": "InputError",
        "detent-reason": "no id",
        "detent-id": "m-1",
        "detent-queue": "inbox",
    }
    assert refusal_in(attributes) == refusal
    assert refusal_in({"tenant": "acme"}) is None


def test_a_dead_letter_that_is_put_back_has_its_first_id_and_no_attributes_of_detent() -> None:
    attributes = dead_letter_attributes(sent("{}", tenant="acme"), Refusal("InputError", "no id"))
    again = SourceMessage.of("inbox", "m-2", "{}", attributes=attributes)
    assert (again.id, again.attributes) == ("m-1", {"tenant": "acme"})


@pytest.mark.parametrize("first", ["", "a\nb", "a b", "ü", "x" * 101, Typed("Binary", b"m")])
def test_a_first_id_that_no_sender_of_ours_wrote_is_passed_over(first: Attribute) -> None:
    assert SourceMessage.of("inbox", "m-2", "{}", attributes={"detent-id": first}).id == "m-2"


def test_a_dead_letter_has_no_more_attributes_than_a_queue_takes() -> None:
    many = {f"a{n}": "x" for n in range(MAX_ATTRIBUTES)}
    attributes = dead_letter_attributes(sent("{}", **many), Refusal("InputError", "no id"))
    assert len(attributes) == MAX_ATTRIBUTES
    assert {"detent-error", "detent-reason", "detent-id", "detent-queue"} <= set(attributes)


def test_a_dead_letter_is_no_larger_than_a_queue_takes() -> None:
    message = sent("x" * (MAX_BODY - 200), a="x" * 100, b="y")
    attributes = dead_letter_attributes(message, Refusal("InputError", "é" * 500))
    size = sum(len(name) + len("String") + len(value.encode()) for name, value in texts(attributes).items())
    assert size in (199, 200)
    assert set(texts(attributes)["detent-reason"]) == {"é"}
    assert "b" not in attributes, "the reason goes before the attributes of the message's own"


def test_a_reason_is_one_short_line_that_every_queue_takes_and_names_the_workflows() -> None:
    errors = {"orders": InputError("a\nb\x00\ud800" + "x" * 5_000), "books": PayloadTooLarge("large")}
    refusal = Refusal.of(errors)
    assert refusal.error == "InputError"
    assert len(refusal.reason) == 500
    assert refusal.reason.startswith("orders: a b x")
    refusal.reason.encode()


# ---- what is sent -------------------------------------------------------------------------------------------


def test_a_message_of_the_largest_size_may_be_sent_and_one_byte_more_may_not() -> None:
    rest = MAX_BODY - len("detent-id" + "String") - 100
    check_outgoing("x" * rest, None, {})
    check_outgoing("x" * (rest - len("a" + "String" + "xyz")), None, {"a": "xyz"})
    with pytest.raises(PayloadTooLarge, match="1,048,577 bytes"):
        check_outgoing("x" * (rest + 1), None, {})


@pytest.mark.parametrize(
    ("body", "id", "attributes"),
    [
        ("", None, {}),
        ("\ud800", None, {}),
        ("{}", "", {}),
        ("{}", "x" * 101, {}),
        ("{}", "a\nb", {}),
        ("{}", "order 17", {}),
        ("{}", "ü", {}),
        ("{}", None, {"detent-id": "m"}),
        ("{}", None, {"a b": "c"}),
        ("{}", None, {"a": ""}),
        ("{}", None, {f"a{n}": "x" for n in range(MAX_ATTRIBUTES)}),
    ],
)
def test_what_some_queue_would_not_take_is_refused_before_it_is_sent(
    body: str, id: str | None, attributes: dict[str, str]
) -> None:
    with pytest.raises(InputError):
        check_outgoing(body, id, attributes)
