"""What DynamoDB does that no other table does: contention, throttled batches, lost replies, short pages."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from detent_infra.aws.calls import ATTEMPTS
from detent_infra.ports import Backend, Conflict
from detent_state_machine.errors import ConfigurationError, InputError, PayloadTooLarge, Unavailable
from detent_state_machine.writes import DeleteItem, Key, PutItem, UpdateItem

from tests.support.aws_stack import LOST, UNSENT, answering, moto_backend, recorded_calls

CONFLICT = (400, {"__type": "com.amazonaws.dynamodb.v20120810#TransactionConflictException", "message": "busy"})


def cancelled(*reasons: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
    return 400, {"__type": kind, "Message": "cancelled", "CancellationReasons": list(reasons)}


@pytest.fixture
def backend() -> Iterator[Backend]:
    with moto_backend() as backend:
        yield backend


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_write_that_meets_a_transaction_is_tried_again(backend: Backend) -> None:
    with answering("dynamodb.PutItem", CONFLICT, CONFLICT) as left:
        run(backend.table.write(PutItem(Key("p", "s"), {"a": 1})))
    assert left == []
    assert run(backend.table.get(Key("p", "s"))) == {"a": 1}


def test_endless_contention_is_unavailable(backend: Backend) -> None:
    with answering("dynamodb.PutItem", *[CONFLICT] * 20) as left, pytest.raises(Unavailable):
        run(backend.table.write(PutItem(Key("p", "s"), {"a": 1})))
    assert len(left) == 20 - ATTEMPTS


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_cancelled_transaction_is_tried_again_if_that_can_help(backend: Backend, code: str) -> None:
    with answering("dynamodb.TransactWriteItems", cancelled({"Code": "None"}, {"Code": code})) as left:
        run(backend.table.transact([PutItem(Key("p", "1"), {"a": 1}), PutItem(Key("p", "2"), {"a": 2})]))
    assert left == []
    assert run(backend.table.get(Key("p", "2"))) == {"a": 2}


def test_a_false_condition_counts_more_than_contention_beside_it(backend: Backend) -> None:
    stored = {"pk": {"S": "p"}, "sk": {"S": "2"}, "a": {"N": "7"}}
    answer = cancelled({"Code": "TransactionConflict"}, {"Code": "ConditionalCheckFailed", "Item": stored})
    with answering("dynamodb.TransactWriteItems", answer), pytest.raises(Conflict) as refused:
        run(backend.table.transact([PutItem(Key("p", "1"), {}), PutItem(Key("p", "2"), {})]))
    assert refused.value.index == 1
    assert refused.value.item == {"a": 7}


def test_a_transaction_refused_for_size_says_so(backend: Backend) -> None:
    reason = {"Code": "ValidationError", "Message": "Item size has exceeded the maximum allowed size"}
    with answering("dynamodb.TransactWriteItems", cancelled(reason)), pytest.raises(PayloadTooLarge):
        run(backend.table.transact([PutItem(Key("p", "1"), {})]))


def test_a_transaction_refused_for_good_is_not_tried_again(backend: Backend) -> None:
    answers = [cancelled({"Code": "AccessDenied", "Message": "no"})] * 2
    with answering("dynamodb.TransactWriteItems", *answers) as left, pytest.raises(ConfigurationError):
        run(backend.table.transact([PutItem(Key("p", "1"), {})]))
    assert len(left) == 1


def test_a_lost_connection_is_tried_again_for_a_write_that_may_be_repeated(backend: Backend) -> None:
    with answering("dynamodb.UpdateItem", UNSENT, LOST):
        run(backend.table.write(UpdateItem(Key("p", "s"), add={"members": frozenset({1})})))
    assert run(backend.table.get(Key("p", "s"))) == {"members": frozenset({1})}


def test_adding_to_a_number_is_never_repeated_because_it_would_count_twice(backend: Backend) -> None:
    with answering("dynamodb.UpdateItem", LOST), pytest.raises(Unavailable):
        run(backend.table.write(UpdateItem(Key("p", "s"), add={"count": 1})))
    assert run(backend.table.get(Key("p", "s"))) == {"count": 1}


def test_a_transaction_is_tried_again_after_a_lost_connection(backend: Backend) -> None:
    with answering("dynamodb.TransactWriteItems", UNSENT), recorded_calls() as calls:
        run(backend.table.transact([PutItem(Key("p", "1"), {"a": 1})]))
    assert run(backend.table.get(Key("p", "1"))) == {"a": 1}
    assert calls[0].params["ClientRequestToken"]  # with which DynamoDB does not apply it twice; moto ignores it


def test_keys_that_a_batch_left_out_are_asked_for_again(backend: Backend) -> None:
    keys = [Key("p", str(number)) for number in range(3)]
    for key in keys:
        run(backend.table.write(PutItem(key, {"name": key.sk})))
    table = backend.url.removeprefix("aws://").partition("?")[0]
    wire = [{"pk": {"S": key.pk}, "sk": {"S": key.sk}} for key in keys]
    partly = {
        "Responses": {table: [{**wire[1], "name": {"S": "1"}}]},
        "UnprocessedKeys": {table: {"Keys": [wire[0], wire[2]], "ConsistentRead": True}},
    }
    nothing = {"Responses": {}, "UnprocessedKeys": {table: {"Keys": [wire[0], wire[2]]}}}
    with answering("dynamodb.BatchGetItem", (200, partly), (200, nothing)), recorded_calls() as calls:
        found = run(backend.table.get_many(keys))
    assert found == [{"name": "0"}, {"name": "1"}, {"name": "2"}]
    assert [len(call.params["RequestItems"][table]["Keys"]) for call in calls] == [3, 2, 2]
    assert all(call.params["RequestItems"][table]["ConsistentRead"] for call in calls)


def test_a_table_that_only_throttles_reads_is_unavailable_in_the_end(backend: Backend) -> None:
    table = backend.url.removeprefix("aws://").partition("?")[0]
    left_out = {"Responses": {}, "UnprocessedKeys": {table: {"Keys": [{"pk": {"S": "p"}, "sk": {"S": "s"}}]}}}
    with answering("dynamodb.BatchGetItem", *[(200, left_out)] * 20), pytest.raises(Unavailable):
        run(backend.table.get_many([Key("p", "s")]))


def test_more_than_a_hundred_keys_are_read_in_hundreds(backend: Backend) -> None:
    with recorded_calls() as calls:
        assert run(backend.table.get_many([Key("p", str(number)) for number in range(250)])) == [None] * 250
    assert len(calls) == 3


def test_a_page_is_full_even_where_dynamodb_stops_at_a_megabyte(backend: Backend) -> None:
    for number in range(5):
        run(backend.table.write(PutItem(Key("p", str(number)), {"big": "x" * 350_000})))
    with recorded_calls() as calls:
        page = run(backend.table.query("p", limit=5))
    assert [key.sk for key, _ in page.items] == ["0", "1", "2", "3", "4"]
    assert page.next is None
    assert len(calls) > 1


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("start", ["", "b"])
def test_the_end_of_a_range_is_left_out_in_both_directions(backend: Backend, forward: bool, start: str) -> None:
    for sk in "abcde":
        run(backend.table.write(PutItem(Key("p", sk), {"ipk": "i", "isk": sk})))
    expected = [sk for sk in "abcde" if start <= sk < "d"][:: 1 if forward else -1]
    for query, pk in ((backend.table.query, "p"), (backend.table.query_index, "i")):
        names: list[str] = []
        after = None
        while True:
            page = run(query(pk, start=start, end="d", forward=forward, limit=1, after=after))
            names += [key.sk for key, _ in page.items]
            after = page.next
            if after is None:
                break
        assert names == expected


def test_reading_goes_on_behind_an_index_entry_that_is_gone(backend: Backend) -> None:
    for sk in "abc":
        run(backend.table.write(PutItem(Key("p", sk), {"ipk": "i", "isk": sk})))
    page = run(backend.table.query_index("i", limit=1))
    run(backend.table.write(DeleteItem(Key("p", "a"))))
    rest = run(backend.table.query_index("i", after=page.next))
    assert [key.sk for key, _ in rest.items] == ["b", "c"]


@pytest.mark.parametrize("cursor", ["", "x", "[1,2,3]", '["a"]', "{}"])
def test_a_cursor_of_something_else_is_refused(backend: Backend, cursor: str) -> None:
    with pytest.raises(InputError, match="cursor"):
        run(backend.table.query_index("i", after=cursor))


def test_a_range_that_holds_nothing_asks_nothing(backend: Backend) -> None:
    with recorded_calls() as calls:
        assert run(backend.table.query("p", start="b", end="a")).items == ()
    assert calls == []


def test_an_item_over_400_kb_is_too_large(backend: Backend) -> None:
    with pytest.raises(PayloadTooLarge):
        run(backend.table.write(PutItem(Key("p", "s"), {"big": "x" * 450_000})))
    assert run(backend.table.get(Key("p", "s"))) is None


def test_reads_are_strongly_consistent_except_on_the_index(backend: Backend) -> None:
    with recorded_calls() as calls:
        run(backend.table.get(Key("p", "s")))
        run(backend.table.query("p"))
        run(backend.table.query_index("i"))
    assert [call.params.get("ConsistentRead", False) for call in calls] == [True, True, False]


def test_a_closed_backend_is_unavailable() -> None:
    with moto_backend() as backend:
        backend.close()
        with pytest.raises(Unavailable, match="closed"):
            run(backend.table.get(Key("p", "s")))


@pytest.mark.parametrize(("measure", "asked"), [(True, "TOTAL"), (False, "NONE")])
def test_consumed_capacity_is_reported_only_when_asked_for(measure: bool, asked: str) -> None:
    with moto_backend(measure=measure) as backend, recorded_calls() as calls:
        run(backend.table.write(UpdateItem(Key("p", "s"), set={"a": 1})))
    assert calls[0].params["ReturnConsumedCapacity"] == asked


def test_a_lost_reply_of_a_put_shows_the_writers_own_item(backend: Backend) -> None:
    # botocore sends the put again and meets its own item: the caller knows it by its owner token.
    with answering("dynamodb.PutItem", LOST), pytest.raises(Conflict) as refused:
        run(backend.table.write(PutItem(Key("p", "s"), {"owner": "me"})))
    assert refused.value.item == {"owner": "me"}
