"""Names chosen by users, written to be taken for something else: each stays itself, on every backend."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from detent import (
    App,
    Context,
    DefinitionError,
    Failure,
    InputError,
    NonRetryable,
    Put,
    RunStatus,
    UnknownRun,
    UnknownWorkflow,
)
from detent.testing import Harness
from detent_infra.ports import Backend
from detent_infra.runs.start import NewRun
from detent_infra.sqlite import sqlite_backend
from detent_state_machine import keys
from detent_state_machine.errors import CorruptRecord, DetentError, PayloadTooLarge
from detent_state_machine.records import Payload
from detent_state_machine.step_path import RESERVED, StepPath
from hypothesis import example, given
from hypothesis import strategies as st

from tests.security.json_values import HOSTILE, MANY, UNPRINTABLE, any_text
from tests.support.timing import LIVE

# ---- keys -------------------------------------------------------------------------------------------------------

RECORDS: dict[str, Callable[..., object]] = {
    "run": keys.run_key,
    "step": lambda run, step: keys.step_key(run, StepPath(step)),
    "join": keys.join_key,
    "group": lambda run, step, group: keys.join_key(run, step, group),
    "definition": keys.definition_key,
    "workflow": keys.workflow_key,
    "data": keys.data_key,
}
names = st.text(max_size=6) | st.text("#/run@step0join.", max_size=12) | st.sampled_from(HOSTILE)
RECORD = st.one_of(
    st.tuples(st.just("run"), names),
    st.tuples(st.just("step"), names, names),
    st.tuples(st.just("join"), names, names),
    st.tuples(st.just("group"), names, names, st.integers(0, 99)),
    st.tuples(st.just("definition"), names, names),
    st.tuples(st.just("workflow"), names),
    st.tuples(st.just("data"), names, names),
)


@MANY
@example(("join", "r", "1#a"), ("group", "r", "a", 1))
@example(("step", "r", "x"), ("data", "run#r", "step#x"))
@example(("workflow", "w"), ("data", "", "w"))
@given(RECORD, RECORD)
def test_two_records_share_a_key_only_if_they_are_the_same_record(one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
    assert (RECORDS[one[0]](*one[1:]) == RECORDS[two[0]](*two[1:])) == (one == two)


@MANY
@given(st.tuples(names, st.integers(0, 7)), st.tuples(names, st.integers(0, 7)))
def test_two_workflows_never_share_a_partition_of_the_index(one: tuple[str, int], two: tuple[str, int]) -> None:
    assert (keys.index_partition(*one) == keys.index_partition(*two)) == (one == two)


def test_the_longest_names_fit_into_a_key_of_dynamodb() -> None:
    longest = "🚂" * 128
    for key in (
        keys.step_key("r" * 32, StepPath(longest)),
        keys.join_key("r" * 32, longest, 9),
        keys.definition_key(longest, ""),
    ):
        assert len(key.pk.encode()) <= 2_048
        assert len(key.sk.encode()) <= 1_024
    assert len(keys.index_partition(longest, 7).encode()) <= 2_048


# ---- ids --------------------------------------------------------------------------------------------------------


def chain(name: str = "orders") -> tuple[App, Any]:
    app = App(url="memory://")
    flow = app.workflow(name, input=int)

    @flow.step
    def refuse(n: int) -> int:
        if n < 0:
            raise NonRetryable("no")
        return n

    return app, flow


def test_an_idempotency_key_cannot_be_made_to_name_the_retry_of_another_workflows_run() -> None:
    app, orders = chain()
    app.workflow("retry of orders", input=int).step(name="only")(lambda n: n)
    with Harness(app) as h:
        failed = h.start(orders, -1)
        assert h.settle(failed) is RunStatus.FAILED
        planted = h.start(app.workflows["retry of orders"], -1, key=failed.id)
        retried = h.wait_for(h.client.aretry(failed.id))
        assert retried.id != planted.id
        assert h.wait_for(h.client.aget(retried.id)).workflow == "orders"


def test_keys_and_workflows_do_not_run_into_each_other() -> None:
    """One id per pair of workflow and key, however they are cut."""
    pairs = list(itertools.product(["a", "ab", "a#b", 'a","', "a b"], ["b", "", "#b", '"b', "c"]))
    app = App(url="memory://")
    flows = {name: app.workflow(name, input=int) for name in dict(pairs)}
    for flow in flows.values():
        flow.step(name="only")(lambda n: n)
    with Harness(app) as h:
        ids = {h.start(flows[name], 1, key=key + "!").id for name, key in pairs}
    assert len(ids) == len(pairs)


STEP_NAMES = [name for name in HOSTILE if set(RESERVED).isdisjoint(name)]
LAST = "..\\.. %2f"
"""What a step may be called: a character that tells step runs apart is refused when it is declared."""


# ---- on every backend ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "aws"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend | None]:
    with ExitStack() as stack:
        match request.param:
            case "sqlite":
                found = sqlite_backend(tmp_path / "detent.db", timing=LIVE)
                stack.callback(found.close)
                yield found
            case "aws":
                from tests.support.aws_stack import moto_backend

                yield stack.enter_context(moto_backend(timing=LIVE))
            case _:
                yield None


def test_a_workflow_of_hostile_names_runs_right_whatever_they_look_like(backend: Backend | None) -> None:
    """Every name is a workflow, each with steps of all the names: one that is taken for another changes a result."""
    app = App(url="memory://")
    ledger: dict[str, set[str]] = {}
    flow = app.workflow(HOSTILE[0], input=str)

    def note(given: str, *, ctx: Context) -> str:
        ledger.setdefault(ctx.run_id, set()).add(ctx.path)
        ctx.commit(Put(ctx.path, ctx.path, {"said": given}))
        ctx.log(ctx.path, **{ctx.path: given})
        return given

    steps = [flow.step(name=name, delivery="exactly_once")(note) for name in STEP_NAMES]

    @flow.step(name=LAST, after=steps)
    def last(given: str) -> str:
        return given + "!"

    with Harness(app, backend=backend) as h:
        run = h.start(flow, "\x1b[31m\u202e'\"", key=HOSTILE[5], metadata={HOSTILE[6]: HOSTILE[8]})
        assert h.result(run) == "\x1b[31m\u202e'\"!"
        assert ledger == {run.id: set(STEP_NAMES)}
        assert set(h.steps(run)) == {*STEP_NAMES, LAST}
        assert {line.path for line in h.logs(run, "{ $.engine NOT EXISTS }")} == set(STEP_NAMES)
        for name in STEP_NAMES:
            assert h.wait_for(h.client.aread(name, name)) == {"said": "\x1b[31m\u202e'\""}
        assert [found.run_id for found in h.wait_for(h.client.aruns(HOSTILE[0]))] == [run.id]
        record = h.wait_for(h.client.aget(run.id))
        assert (record.key, record.metadata) == (HOSTILE[5], {HOSTILE[6]: HOSTILE[8]})


def test_workflows_of_hostile_names_are_told_apart(backend: Backend | None) -> None:
    app = App(url="memory://")
    for name in HOSTILE:
        flow = app.workflow(name, input=int)

        @flow.step(name=STEP_NAMES[0])
        def work(n: int, *, ctx: Context) -> str:
            if n < 0:
                raise NonRetryable(ctx.workflow)
            return ctx.workflow

        @flow.on_failure(name=STEP_NAMES[1])
        def undo(why: Failure, *, ctx: Context) -> str:
            return why.step

    with Harness(app, backend=backend) as h:
        ids: dict[str, str] = {}
        for name in HOSTILE[:12]:
            started = h.start(app.workflows[name], 1, key="same")
            assert h.result(started) == name
            ids[started.id] = name
        assert len(ids) == 12
        assert h.wait_for(h.client.lifecycle.definitions.names()) == sorted(HOSTILE, key=lambda name: name.encode())
        for run_id, name in ids.items():
            assert [each.run_id for each in h.wait_for(h.client.aruns(name))] == [run_id]
        failed = h.start(app.workflows[HOSTILE[1]], -1)
        assert h.settle(failed) is RunStatus.FAILED
        assert h.wait_for(h.client.aget(failed.id)).failed_step == STEP_NAMES[0]


def test_a_name_that_no_store_takes_finds_nothing_and_breaks_nothing(backend: Backend | None) -> None:
    app, _ = chain()
    with Harness(app, backend=backend) as h:
        for name in (*UNPRINTABLE, *HOSTILE, "@start", "x" * 5_000, ""):
            with pytest.raises(DetentError) as refused:
                h.wait_for(h.client.aget(name))
            assert isinstance(refused.value, UnknownRun | InputError), (name, refused.value)
            with pytest.raises(DetentError) as refused:
                h.wait_for(h.client.lifecycle.start_by_name(name, "1"))
            assert isinstance(refused.value, UnknownWorkflow | InputError), (name, refused.value)


@pytest.mark.parametrize("name", [*UNPRINTABLE, "@start", "@end", "@handled", "", "x" * 129])
def test_a_name_that_would_be_taken_for_the_engines_own_or_for_a_command_is_refused(name: str) -> None:
    def declare(workflow: str, step: str) -> None:
        app = App(url="memory://")
        app.workflow(workflow, input=int).step(name=step)(lambda n: n)
        app.definitions()

    with pytest.raises(DefinitionError):
        declare(name, "only")
    if name:  # else it is the function's own
        with pytest.raises(DefinitionError):
            declare("w", name)


# ---- blobs --------------------------------------------------------------------------------------------------------

ODD_REFS = [
    "../../../etc/passwd", "/etc/passwd", "blobs/" + "0" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "0" * 64 + "/..",
    "G" * 64, "A" * 64, "", ".", "%2e%2e", "\x00", "\ud800" * 64, "\u0660" * 64, "' OR 1=1 --",
]  # fmt: skip


def test_a_reference_that_is_none_leads_nowhere(backend: Backend | None) -> None:
    app, _ = chain()
    with Harness(app, backend=backend) as h:
        stored = h.wait_for(h.backend.blobs.put(b"payload"))
        assert h.wait_for(h.backend.blobs.get(stored)) == b"payload"
        for ref in (*ODD_REFS, stored.upper(), " " + stored, stored + "\x00"):
            with pytest.raises(CorruptRecord) as refused:
                h.wait_for(h.backend.blobs.get(ref))
            assert len(str(refused.value)) < 600


@MANY
@given(any_text)
def test_no_text_but_a_hash_leads_to_a_payload_in_a_file(text: str) -> None:
    with pytest.raises(CorruptRecord):
        OPEN.wait_for(OPEN.backend.blobs.get(text))


@pytest.fixture(scope="module", autouse=True)
def _open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    global OPEN
    app, _ = chain()
    with Harness(app, backend=sqlite_backend(tmp_path_factory.mktemp("blobs") / "detent.db")) as OPEN:
        yield


OPEN: Harness


def test_a_payload_that_is_no_text_is_corrupt(backend: Backend | None) -> None:
    app, _ = chain()
    with Harness(app, backend=backend) as h:
        ref = h.wait_for(h.backend.blobs.put(b"\xff\xfe" * 10))
        with pytest.raises(CorruptRecord):
            h.wait_for(h.client.lifecycle.output(Payload(ref=ref)))


def test_a_payload_beyond_the_limit_is_refused_and_nothing_is_stored(backend: Backend | None) -> None:
    app, flow = chain()
    with Harness(app, backend=backend) as h:
        huge = '"' + "x" * (64 * 1024 * 1024) + '"'
        with pytest.raises(PayloadTooLarge, match="limit"):
            h.wait_for(h.client.lifecycle.start(flow.definition, NewRun(huge)))
        assert h.wait_for(h.client.aruns()) == []
