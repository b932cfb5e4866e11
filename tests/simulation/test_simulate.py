"""`detent.testing.simulate` as users call it, on their own workflows."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from detent import App, Context, Delivery, InputError, RunStatus, Update
from detent.testing import Rates, Violation, simulate
from detent.testing.simulation.faults import Fault

from tests.support.shop import Order, open_shop

NONE = Rates(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
ONLY = {fault: Rates(**{**vars(NONE), fault.value: 0.05}) for fault in Fault}


@pytest.mark.parametrize("handler", [False, True], ids=["plain", "with a failure handler"])
def test_the_shop_survives_every_fault(handler: bool) -> None:
    shop = open_shop(handler=handler)
    report = simulate(shop.app, shop.orders, Order(id="A-17", cents=5), seeds=range(40), runs=1)
    assert (report.seeds, report.runs.total()) == (40, 40)
    assert report.runs[RunStatus.COMPLETED] + report.runs[RunStatus.FAILED] == 40
    assert report.runs[RunStatus.FAILED] < 4, "only where the at_most_once step lost its worker"
    assert report.most["notify"] == 1
    assert report.faults.total() > 100


def test_what_a_step_commits_is_kept_under_faults_too_so_one_order_is_charged_once() -> None:
    """Three runs of one order: the ledger takes the first, and the others fail for good."""
    shop = open_shop()
    report = simulate(shop.app, shop.orders, Order(id="A-17", cents=5), seeds=range(10), runs=3)
    assert report.runs[RunStatus.COMPLETED] <= 10
    assert report.runs[RunStatus.FAILED] >= 20


def test_a_card_that_is_refused_fails_every_run_and_is_handled_in_each() -> None:
    shop = open_shop(handler=True)
    report = simulate(shop.app, shop.orders, Order(id="refused", cents=5), seeds=range(10), runs=1)
    assert report.runs == {RunStatus.FAILED: 10}
    assert report.bodies["release"] >= 10
    assert report.bodies["ship"] == 0


def test_without_faults_every_body_runs_once_in_every_run() -> None:
    shop = open_shop()
    report = simulate(shop.app, shop.orders, Order(id="A-17", cents=5), seeds=range(3), runs=1, rates=NONE)
    assert report.bodies == {"reserve": 3, "charge": 3, "label": 3, "ship": 3, "notify": 3}
    assert shop.bodies == report.bodies
    assert set(report.most.values()) == {1}
    assert report.faults == {}


def test_the_report_counts_the_bodies_of_all_runs() -> None:
    bank = Bank(Delivery.AT_LEAST_ONCE)
    report = simulate(bank.app, bank.transfers, 100, seeds=range(3), runs=4, rates=NONE)
    assert report.runs == {RunStatus.COMPLETED: 12}
    assert report.bodies == {"pay": 12, "book": 12}


class Bank:
    """The world outside: it does not know what a transaction of detent's is."""

    def __init__(self, delivery: Delivery) -> None:
        self.app = App("bank", url="memory://")
        self.transfers = self.app.workflow("transfers", input=int)
        self.paid: Counter[str] = Counter()
        self.keys: set[str] = set()

        @self.transfers.step(delivery=delivery)
        async def pay(cents: int, *, ctx: Context) -> int:
            self.paid[ctx.run_id] += 1  # not idempotent: every beginning pays
            self.keys.add(ctx.idempotency_key)  # idempotent: the bank knows the key
            if delivery is Delivery.EXACTLY_ONCE:
                ctx.commit(Update("paid", ctx.run_id, add={"cents": cents}))
            return cents

        @self.transfers.step
        def book(paid: int = pay.output) -> int:
            return paid


def test_the_report_shows_how_often_a_body_that_is_not_idempotent_would_have_paid() -> None:
    bank = Bank(Delivery.AT_LEAST_ONCE)
    report = simulate(bank.app, bank.transfers, 100, seeds=range(40), runs=1, rates=Rates().scaled(2.0))
    assert report.runs == {RunStatus.COMPLETED: 40}
    assert report.bodies["pay"] > 40, "some runs paid twice: the body must bear it"
    assert report.most["pay"] >= 2
    assert len(bank.keys) == 1, "every run here has the same key, and with it the same idempotency key"
    assert bank.paid.total() <= report.bodies["pay"]
    assert f"began {report.bodies['pay']} times, at most {report.most['pay']} in one run" in str(report)
    assert "40 COMPLETED" in str(report)


def test_at_most_once_never_pays_twice_and_sometimes_fails_instead() -> None:
    bank = Bank(Delivery.AT_MOST_ONCE)
    report = simulate(bank.app, bank.transfers, 100, seeds=range(60), runs=1, rates=Rates().scaled(2.0))
    assert report.most["pay"] == 1
    assert report.bodies["pay"] <= 60
    assert report.runs[RunStatus.FAILED] > 0
    assert report.runs.total() == 60


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.MISSING])
def test_a_run_bears_any_single_kind_of_fault_alone(fault: Fault) -> None:
    bank = Bank(Delivery.EXACTLY_ONCE)
    report = simulate(bank.app, bank.transfers, 100, seeds=range(4), runs=2, rates=ONLY[fault])
    assert report.runs == {RunStatus.COMPLETED: 8}
    assert set(report.faults) <= {fault.value}


def test_the_same_seeds_give_the_same_report() -> None:
    def report() -> str:
        shop = open_shop()
        return str(simulate(shop.app, shop.orders, Order(id="A-17", cents=5), seeds=range(5)))

    assert report() == report()


def test_a_run_that_cannot_end_is_a_violation_that_names_its_seed_and_shows_the_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detent.testing.simulation.world.END_SECONDS", 300.0)
    bank = Bank(Delivery.AT_LEAST_ONCE)
    assert bank.transfers.definition.steps
    bank.transfers.steps.pop("book")  # code that lost a step which the definition has
    with pytest.raises(Violation, match=r"seed 7: 3: run \w+ is stuck: {'pay': 'COMPLETED'}\n(.|\n)*worker1"):
        simulate(bank.app, bank.transfers, 100, seeds=[7], runs=1, rates=NONE)


def fragile_bank() -> Bank:
    """Its code loses a step when a body begins for the second time: only a fault makes its runs stuck."""
    bank = Bank(Delivery.AT_LEAST_ONCE)
    book = bank.transfers.steps["book"]

    @bank.transfers.step(delivery=Delivery.EXACTLY_ONCE, after=[book])
    def check(*, ctx: Context) -> None:
        if ctx.attempt > 1:
            bank.transfers.steps.pop("last", None)
        else:
            bank.transfers.steps["last"] = last

    @bank.transfers.step(after=[check])
    def last() -> None:
        """Nothing."""

    return bank


def test_a_violation_says_which_call_replays_it_and_which_few_of_its_faults_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detent.testing.simulation.world.END_SECONDS", 300.0)
    bank = fragile_bank()
    with pytest.raises(Violation) as caught:
        simulate(bank.app, bank.transfers, 100, seeds=range(100), runs=1, rates=Rates(crash_after=0.1))
    told = str(caught.value)
    seed, replay, fewest, *faults = told.splitlines()
    assert re.match(r"seed \d+: 3: run \w+ is stuck: ", seed)
    call = replay.removeprefix("replay: ")
    number = seed.split(":")[0].removeprefix("seed ")
    rates = "Rates(crash_after=0.1)"
    assert call == f"simulate(app, app.workflows['transfers'], 100, seeds=[{number}], runs=1, rates={rates})"
    counts = re.fullmatch(r"The fewest faults of its (\d+) that do it: (\d+)", fewest)
    assert counts is not None, told
    of, left = map(int, counts.groups())
    assert left <= 3 < of
    assert any("step#check := RUNNING  [crash_after]" in line for line in faults[:left])
    assert faults[left] == "The end of its trace:"
    with pytest.raises(Violation) as again:
        eval(call, {"simulate": simulate, "app": bank.app, "Rates": Rates})
    assert str(again.value) == told


def test_an_input_that_is_too_long_to_spell_is_left_out_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detent.testing.simulation.world.END_SECONDS", 300.0)
    app = App("long", url="memory://")
    flow = app.workflow("long", input=str)
    flow.step(name="only")(lambda text: None)
    assert flow.definition.steps
    flow.steps.clear()
    with pytest.raises(Violation, match=re.escape("simulate(app, app.workflows['long'], ..., seeds=[1], runs=3)")):
        simulate(app, flow, "x" * 1000, seeds=[1])


def test_bodies_that_remember_something_are_said_to_and_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same faults then do something else: the trace is that of the seed as it was."""
    monkeypatch.setattr("detent.testing.simulation.world.END_SECONDS", 300.0)
    app = App("memory", url="memory://")
    flow = app.workflow("memory", input=int)
    begun: list[int] = []

    @flow.step
    def first(number: int) -> None:
        flow.steps.pop("second") if not begun else flow.steps.update(second=second)
        begun.append(number)

    @flow.step(after=[first])
    def second() -> None:
        """Nothing."""

    with pytest.raises(Violation, match="With the same 0 faults it does not fail again: its bodies remember something"):
        simulate(app, flow, 1, seeds=[1], runs=1, rates=NONE)


def test_an_input_that_does_not_fit_is_refused_before_anything_is_simulated() -> None:
    bank = Bank(Delivery.AT_LEAST_ONCE)
    with pytest.raises(InputError, match="simulated input"):
        simulate(bank.app, bank.transfers, "a lot", seeds=[1])
    assert bank.paid == {}
