"""`python -m bench.cost`: what the canonical workloads ask of AWS and cost there, beside other engines on AWS.

Nothing is timed. detent's requests are counted at botocore's hooks over moto and metered by the service's rules
(bench/metering.py); its peers are priced in bench/peers.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from detent import App, Workflow
from detent_infra.ops.cost.estimate import estimate
from detent_infra.ops.cost.metering import Usage
from detent_infra.ops.cost.prices import GB, MILLION, US_EAST_1, cost_of
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import peers
from bench.aws import Counted, count_runs
from bench.metering import Bill
from bench.peers import Operations, Price, States
from bench.workflows import SIZES, agent, chain, documents, fan_out, stumbling
from examples.orders.app import app as orders_app
from examples.orders.app import orders
from examples.orders.lines import read_lines

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
DURABLE_PYTHON = ROOT / ".venv-durable" / "bin" / "python"
ORDERS = 300
AT_ONCE = 50
"""Orders started together. moto copies its whole tables for each transaction, so many at once take long."""
LENGTH, WIDTH, TURNS, FAILURES = SIZES["length"], SIZES["width"], SIZES["turns"], SIZES["failures"]
MAP_CONCURRENCY = 40
"""Of Step Functions' inline Map."""


@dataclass(frozen=True)
class Workload:
    """What is run. `peer`: its name among the durable functions; `states`: as Step Functions sees one run of it."""

    title: str
    peer: str
    count: Callable[[], Counted]
    states: Callable[[Counted], States]


@dataclass(frozen=True)
class Measured:
    """A workload, counted, with what one run of it costs each engine. None: it cannot do it, or is not there."""

    title: str
    steps: float
    """Of one run."""
    usage: Usage
    """Of one run, as counted."""
    estimated: float
    """What `detent cost` says of one run, in US dollars, without Lambda."""
    prices: Mapping[str, Price | None]

    @property
    def detent(self) -> float:
        return cost_of(self.usage).services


def workloads(orders_count: int) -> list[Workload]:
    line = States(entered=LENGTH, in_a_row=LENGTH)
    once = States(entered=LENGTH, in_a_row=LENGTH, express=False)
    waves = -(-WIDTH // MAP_CONCURRENCY)
    fork = States(entered=WIDTH + 3, in_a_row=waves + 2)  # the root, the Map itself, the join
    tries = States(entered=1, retries=FAILURES, in_a_row=1 + FAILURES, pauses=1000 + 2000)
    loop = States(entered=3 * TURNS + 1, in_a_row=3 * TURNS + 1)  # think, is it done?, tool
    return [
        _of("chain of 10", "chain", chain, line),
        _of("chain of 10, 10 runs at once", "chain", chain, line, runs=10),
        _of("chain of 10, at_most_once", "at_most_once", lambda app: chain(app, delivery="at_most_once"), once),
        _of(
            "chain of 10, exactly_once with a commit each",
            "exactly_once",
            lambda app: chain(app, delivery="exactly_once"),
            once,
        ),
        _of("fan-out of 100 and join", "fan_out", fan_out, fork),
        _of("a step that fails twice", "retries", lambda app: stumbling(app, failures=FAILURES), tries),
        _of("agent of 10 turns, 1.5 KB each, unrolled", "agent", agent, loop),
        _of("3 steps that pass 100 KB on", "documents", documents, States(entered=3, in_a_row=3)),
        Workload(
            f"{orders_count} real orders, {AT_ONCE} at once", "orders", lambda: _orders(orders_count), _states_of_orders
        ),
    ]


def _of(
    title: str, peer: str, declare: Callable[[App], Workflow[Any, Any]], states: States, *, runs: int = 1
) -> Workload:
    def count() -> Counted:
        app = App("bench", url="memory://")
        return count_runs(app, declare(app), [{"n": 0}] * runs)

    return Workload(title, peer, count, lambda _: states)


def _orders(count: int) -> Counted:
    lines = read_lines()[:count]
    parts = [
        count_runs(orders_app, orders, lines[at : at + AT_ONCE], may_fail=True) for at in range(0, len(lines), AT_ONCE)
    ]
    total = Bill()
    for part in parts:
        total.add(part.bill)
    return Counted(
        total,
        [call for part in parts for call in part.calls],
        {address: item for part in parts for address, item in part.stored.items()},
        [run for part in parts for run in part.runs],
    )


def _states_of_orders(counted: Counted) -> States:
    """One state for each step that ran and one that looks whether there is money to take; on average."""
    attempts = [run.attempts(record) for run in counted.runs for record in run.records.values()]
    ran = [tries for tries in attempts if tries]
    runs = len(counted.runs)
    return States(entered=len(ran) / runs + 1, retries=sum(len(tries) - 1 for tries in ran) / runs, express=False)


# ---- measuring ------------------------------------------------------------------------------------------------


def measure(workload: Workload, durable: Mapping[str, Operations]) -> Measured:
    counted = workload.count()
    runs = len(counted.runs)
    one, estimated = Usage(), Usage()
    one.add(counted.bill, 1 / runs)
    for run in counted.runs:
        estimated.add(estimate(run, counted.timing).usage, 1 / runs)
    bodies = sum(len(run.attempts(record)) for run in counted.runs for record in run.records.values()) / runs
    states = workload.states(counted)
    operations = durable.get(workload.peer)
    return Measured(
        title=workload.title,
        steps=counted.steps / runs,
        usage=one,
        estimated=cost_of(estimated).services,
        prices={
            "detent": _detent(one, cost_of(estimated).storage, counted.blob_bytes / runs, bodies),
            "durable functions": None if operations is None else peers.durable(operations, bodies),
            "Step Functions Standard": peers.standard(states, bodies),
            "Step Functions Express": peers.express(states, bodies),
        },
    )


def _detent(one: Usage, storage: float, blobs: float, bodies: float) -> Price:
    """`storage`: of the records, in US dollars a month. `blobs` in bytes."""
    cost = cost_of(one)
    kept = (storage + blobs / GB * US_EAST_1.blob_gb_month) * peers.KEPT_DAYS / peers.MONTH_DAYS
    return Price(cost.services, cost.services + kept + cost.logs + peers.compute(bodies, one.invocations))


def count_durable(orders_count: int) -> tuple[dict[str, Operations], Mapping[str, str]]:
    """One execution of each, on average, and the versions of AWS's packages; nothing if they are not installed."""
    if not DURABLE_PYTHON.exists():
        return {}, {}
    given = {"sizes": SIZES, "orders": [line.model_dump() for line in read_lines()[:orders_count]]}
    done = subprocess.run(
        [str(DURABLE_PYTHON), "-m", "bench.durable"],
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    operations = {
        name: Operations(
            counts["operations"] / counts["executions"],
            counts["invocations"] / counts["executions"],
            counts["bytes_written"] / counts["executions"],
        )
        for name, counts in found["workloads"].items()
    }
    return operations, found["versions"]


# ---- showing --------------------------------------------------------------------------------------------------


def show(console: Console, found: Sequence[Measured]) -> None:
    _show_counted(console, found)
    _show_beside(
        console,
        "US dollars per million steps: the services that keep the state",
        found,
        lambda measured, price: price.service / measured.steps,
    )
    _show_beside(
        console,
        f"US dollars per million runs, all in: with Lambda (50 ms a body, 1,024 MB, arm64) and {peers.KEPT_DAYS} days' "
        "storage",
        found,
        lambda _, price: price.everything,
    )
    for name in found[0].prices:
        dearer = [measured.title for measured in found if _is_dearer(measured, name)]
        if dearer:
            console.print(f"detent is dearer than {name}: {'; '.join(dearer)}.")
    console.print("Idle, detent costs about $2 a month for alarms, metrics, polling and the tick; the others nothing.")


def _is_dearer(measured: Measured, name: str) -> bool:
    detent, other = measured.prices["detent"], measured.prices[name]
    return detent is not None and other is not None and detent.service > other.service


def _show_counted(console: Console, found: Sequence[Measured]) -> None:
    table = Table(title="detent, per step, counted over moto: requests and units", title_justify="left")
    for heading in ("", "requests", "SQS", "S3", "writes", "index", "reads", "estimate"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for measured in found:
        usage, steps = measured.usage, measured.steps
        figures = (
            usage.total_requests,
            usage.sqs_requests,
            usage.blob_puts + usage.blob_gets,
            usage.write_units,
            usage.index_write_units,
            usage.read_units,
        )
        off = measured.estimated / measured.detent - 1
        table.add_row(measured.title, *(f"{figure / steps:.2f}" for figure in figures), f"{off:+.1%}")
    console.print(table)


def _show_beside(
    console: Console, title: str, found: Sequence[Measured], dollars: Callable[[Measured, Price], float]
) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for name in found[0].prices:
        table.add_column(name, justify="right", overflow="fold")
    for measured in found:
        cells = [
            "—" if price is None else f"{dollars(measured, price) * MILLION:,.2f}" for price in measured.prices.values()
        ]
        table.add_row(measured.title, *cells)
    console.print(table)


def to_json(measured: Measured) -> dict[str, object]:
    usage = measured.usage
    return {
        "workload": measured.title,
        "steps": measured.steps,
        "requests": {name: round(count, 6) for name, count in sorted(usage.requests.items())},
        "write_units": round(usage.write_units, 6),
        "index_write_units": round(usage.index_write_units, 6),
        "read_units": round(usage.read_units, 6),
        "sqs_requests": round(usage.sqs_requests, 6),
        "invocations": round(usage.invocations, 6),
        "log_bytes": round(usage.log_bytes),
        "estimated_dollars_per_million_runs": round(measured.estimated * MILLION, 4),
        "dollars_per_million_runs": {
            name: price
            and {"service": round(price.service * MILLION, 4), "all_in": round(price.everything * MILLION, 4)}
            for name, price in measured.prices.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument("--orders", type=int, default=ORDERS, help=f"how many real orders are run (default {ORDERS})")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    console, progress = Console(), Console(stderr=True)
    with progress.status("counting durable functions with AWS's local runner"):
        durable, versions = count_durable(options.orders)
    planned = workloads(options.orders)
    found = [measure(w, durable) for w in track(planned, "counting requests", console=progress, transient=True)]
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "prices": {"region": US_EAST_1.region, "read_on": US_EAST_1.read_on},
        "versions": {"detent": version("detent"), **versions},
        "workloads": [to_json(measured) for measured in found],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"cost-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    if options.json:
        print(json.dumps(result, indent=2))
        return
    show(console, found)
    if not durable:
        console.print("Durable functions were not counted: `make durable` installs AWS's local runner.")
    console.print(f"Kept in {file}.", soft_wrap=True)


if __name__ == "__main__":
    main()
