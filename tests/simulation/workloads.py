"""Workflows drawn at random over everything the kernel has, and an oracle that says how they must end.

A capability joins the simulation by adding its generator to `GENERATORS`. Each generator turns a blank step into one
of its kind; the oracle reads the finished drawing, never the engine.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from detent import App, Context, Failure, NonRetryable, Retry, RetryAfter, RunStatus, StepStatus, Update
from detent.wait import AnyNode, Wait
from detent_state_machine.compiler import Scope
from detent_state_machine.status import Delivery

FOREVER = 10**6
START = datetime(2026, 1, 1, tzinfo=UTC)
"""When virtual time begins."""
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
WOKE = 1
"""Stands for the output of every wait: a time, which depends on faults, or what events carry."""
KEY = "key"
"""Of events."""


@dataclass(frozen=True)
class Drawn:
    """A step as drawn: what it depends on and how it behaves. Seconds are simulated."""

    name: str
    parents: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    """Parents whose output may be None: a skipped one does not skip this step."""
    after: tuple[str, ...] = ()
    runs_when: int | None = None
    """Skipped unless the input is above this number."""
    when_output: str | None = None
    """Skipped unless this step's output is above 0 (it always is, unless that step was skipped)."""
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    errors: int = 0
    """How many of its attempts raise."""
    fatal: bool = False
    """Its first error is not retried."""
    retry: Retry = Retry(attempts=3, initial=0.5)
    takeovers: int = 50
    seconds: float = 0.0
    timeout: float = 60.0
    hangs: int = 0
    """How many of its attempts run into the timeout."""
    pause: float = 0.0
    """Seconds a failed attempt asks to wait."""
    scope: Scope = "main"
    large: bool = False
    """Its output is too large for a record."""
    sleeps: float | None = None
    """It has no body: it waits for so long."""
    until: str | None = None
    """It has no body: it waits until the time that this step's output tells."""
    awaits: bool = False
    """It has no body: it waits for an event of its own name. With `errors`, one comes that does not fit."""
    limit: float | None = None
    """After so long it waits no more."""

    @property
    def fails(self) -> bool:
        """Whether it fails for good, however often it is tried."""
        if self.waits:
            return self.errors > 0
        tries = 1 if self.delivery is Delivery.AT_MOST_ONCE or self.fatal else self.retry.attempts
        return self.errors + self.hangs >= tries

    @property
    def waits(self) -> bool:
        """Whether it has no body."""
        return self.sleeps is not None or self.until is not None or self.awaits

    @property
    def payload(self) -> str:
        """Of the event that it waits for, as JSON."""
        return '"no number"' if self.errors else str(WOKE)

    @property
    def needs(self) -> list[str]:
        """Steps that must have completed, or this one is skipped."""
        return [*(each for each in self.parents if each not in self.optional), *([self.until] if self.until else [])]

    @property
    def edges(self) -> set[str]:
        """The steps it comes after."""
        return {*self.parents, *self.after, *filter(None, (self.when_output, self.until))}


@dataclass
class World:
    """What bodies did, outside of every store: it survives crashes as the real world does.

    By idempotency key, so that it goes on where a run is retried.
    """

    raised: Counter[str] = field(default_factory=Counter[str])
    hung: Counter[str] = field(default_factory=Counter[str])
    fixed: bool = False
    """What made bodies fail is gone."""

    def forget(self) -> None:
        """As if no body had run yet."""
        self.raised.clear()
        self.hung.clear()
        self.fixed = False


@dataclass
class Workload:
    """A drawn workflow as an app, with its oracle."""

    app: App
    steps: tuple[Drawn, ...]
    world: World
    name: str = "drawn"

    def expected(self, value: int, *, fixed: bool = False) -> Expected:
        """How a run must end; `fixed`: once what made bodies fail is gone."""
        steps = tuple(step if step.waits else replace(step, errors=0) for step in self.steps) if fixed else self.steps
        return oracle(steps, value)


@dataclass(frozen=True)
class Expected:
    """How a run must end when no worker is lost for good."""

    status: RunStatus
    steps: dict[str, tuple[StepStatus, int | None]]
    """Status and output of each step; of a failing run, only of those that certainly ran."""


def at_least_once(rng: random.Random, step: Drawn) -> Drawn:
    return step


def at_most_once(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, delivery=Delivery.AT_MOST_ONCE)


def exactly_once(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, delivery=Delivery.EXACTLY_ONCE)


def retried(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, errors=rng.randint(1, 2), pause=rng.choice([0.0, 0.0, 30.0]))


def failing(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, errors=FOREVER, fatal=rng.random() < 0.5)


def long(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, seconds=rng.uniform(1.5, 50.0), timeout=300.0)


def timed_out(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, hangs=1, timeout=rng.uniform(0.5, 15.0))


def skipped(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, runs_when=rng.choice([-1, 5, 100]))


def skipped_by_output(rng: random.Random, step: Drawn) -> Drawn:
    known = (*step.parents, *step.after)
    return replace(step, when_output=rng.choice(known)) if known else step


def patient(rng: random.Random, step: Drawn) -> Drawn:
    """A retry policy of its own, with an error or two to use it."""
    policy = Retry(
        attempts=rng.choice([2, 4]),
        initial=rng.choice([0.0, 2.0]),
        backoff=rng.choice([1.0, 3.0]),
        max_delay=rng.choice([5.0, 60.0]),
        jitter=rng.random() < 0.5,
        non_retryable=rng.choice([(), ("OSError",)]),
    )
    return replace(step, retry=policy, errors=1, fatal=bool(policy.non_retryable))


def fragile(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, takeovers=rng.choice([0, 1]))


def large_output(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, large=True)


def sleeping(rng: random.Random, step: Drawn) -> Drawn:
    """Not at all, a moment, longer than the faults last, longer than the queue delays a message."""
    return replace(step, sleeps=rng.choice([0.0, 0.5, 5.0, 40.0, 300.0, 2000.0]))


def sleeping_until(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, until=rng.choice(step.parents)) if step.parents else step


def awaiting(rng: random.Random, step: Drawn) -> Drawn:
    """An event, for ever or for a time; now and then one comes that does not fit."""
    limit = rng.choice([None, None, 1.0, 30.0, 2000.0])
    return replace(step, awaits=True, limit=limit, errors=FOREVER if limit is None and rng.random() < 0.2 else 0)


def ordered_only(rng: random.Random, step: Drawn) -> Drawn:
    return replace(step, parents=(), after=(*step.after, *step.parents), optional=frozenset())


GENERATORS: dict[Callable[[random.Random, Drawn], Drawn], float] = {
    at_least_once: 5,
    at_most_once: 1,
    exactly_once: 2,
    retried: 2,
    failing: 0.5,
    long: 1.5,
    timed_out: 0.7,
    skipped: 1,
    skipped_by_output: 0.7,
    patient: 0.7,
    fragile: 0.2,
    large_output: 0.7,
    sleeping: 1,
    sleeping_until: 0.5,
    awaiting: 1,
    ordered_only: 1,
}
"""Every kind of step the kernel has, and how often it is drawn."""


def draw(rng: random.Random) -> tuple[Drawn, ...]:
    """A workflow of one to eight steps, some with steps that follow its success or its failure."""
    steps: list[Drawn] = []
    for number in range(rng.randint(1, 8)):
        names = [step.name for step in steps]
        parents = rng.sample(names, min(len(names), rng.choice([0, 1, 1, 1, 2, 3])))
        optional = frozenset(parent for parent in parents if rng.random() < 0.4)
        blank = Drawn(f"s{number}", tuple(parents), optional)
        kinds = rng.choices(list(GENERATORS), weights=list(GENERATORS.values()), k=rng.choice([1, 1, 2]))
        for kind in kinds:
            blank = kind(rng, blank)
        steps.append(_sound(blank, {step.name: step for step in steps if step.waits}))
    for scope, prefix, likely in SCOPES:
        if rng.random() >= likely:
            continue
        for number in range(rng.randint(1, 3)):
            before = [step.name for step in steps if step.scope == scope]
            parents = rng.sample(before, min(len(before), rng.choice([0, 1, 2])))
            steps.append(Drawn(f"{prefix}{number}", tuple(parents), scope=scope, errors=rng.choice([0, 0, 1])))
    return tuple(steps)


def line(rng: random.Random) -> tuple[Drawn, ...]:
    """Eight to twelve steps in a row, each too short for a heartbeat, all together longer than the time between two."""
    names = [f"s{number}" for number in range(rng.randint(8, 12))]
    before = [(), *((name,) for name in names)]
    return tuple(Drawn(name, after, seconds=rng.uniform(0.5, 0.95)) for name, after in zip(names, before, strict=False))


SCOPES: tuple[tuple[Scope, str, float], ...] = (("on_success", "z", 0.2), ("on_failure", "h", 0.35))
"""Where steps can be besides the main graph, what they are called, and how often there are some."""


def _sound(step: Drawn, waits: Mapping[str, Drawn]) -> Drawn:
    """The step with an end that faults cannot change: an error whose record is lost with its worker does not count,
    so a step either fails for good however often it is tried, or has an attempt to spare.
    """
    tells = waits.get(step.when_output or "")
    if tells is not None and tells.limit is not None:
        step = replace(step, when_output=None)  # whether its time is out is a matter of faults
    if step.awaits:
        after = tuple(dict.fromkeys((*step.after, *step.parents)))
        blank = Drawn(step.name, after=after, awaits=True, limit=step.limit, errors=step.errors)
        skips = step.limit is None  # else None would tell of both
        return replace(blank, runs_when=step.runs_when, when_output=step.when_output) if skips else blank
    if step.waits:
        told = None if step.until in waits else step.until  # what a wait ends with has no time in it
        after = tuple(dict.fromkeys((*step.after, *step.parents)))
        sleeps = step.sleeps if told is None else None
        blank = Drawn(step.name, after=after, runs_when=step.runs_when, when_output=step.when_output)
        return replace(blank, until=told, sleeps=sleeps if told or sleeps is not None else 1.0)
    if step.hangs:
        step = replace(step, seconds=0.0)
    if step.delivery is Delivery.AT_MOST_ONCE:
        step = replace(step, hangs=0, errors=FOREVER if step.fails and step.errors else 0)
    elif step.fails and step.errors:
        step = replace(step, errors=FOREVER)
    elif step.errors:
        step = replace(step, errors=min(step.errors, step.retry.attempts - 1 - step.hangs))
    return step


def build(steps: tuple[Drawn, ...], *, on_queue: str | None = None) -> Workload:
    """The drawing as an app, written with the public SDK."""
    app = App("simulated", url="memory://")
    flow = app.workflow("drawn", input=int, on_queue=on_queue)
    world = World()
    made: dict[str, AnyNode] = {}
    limited = frozenset(drawn.name for drawn in steps if drawn.limit is not None)
    for drawn in steps:
        options = options_of(drawn, made, flow.input)
        if drawn.waits:
            chosen = {name: options[name] for name in ("after", "when") if name in options}
            if drawn.awaits:
                made[drawn.name] = flow.event(drawn.name, drawn.name, key=KEY, type=int, timeout=drawn.limit, **chosen)
            elif drawn.until is not None:
                told: Any = made[drawn.until].output
                made[drawn.name] = flow.until(drawn.name, told["at"], **chosen)
            else:
                made[drawn.name] = flow.sleep(drawn.name, drawn.sleeps or 0.0, **chosen)
            continue
        declare: Any = {"main": flow.step, "on_success": flow.on_success, "on_failure": flow.on_failure}[drawn.scope]
        tells = any(other.until == drawn.name for other in steps)
        made[drawn.name] = declare(**options)(_body(drawn, made, world, tells=tells, limited=limited))
    return Workload(app, steps, world)


def options_of(drawn: Drawn, made: Mapping[str, AnyNode], value: int) -> dict[str, Any]:
    """The keyword arguments that declare the step."""
    options: dict[str, Any] = {
        "name": drawn.name,
        "after": list(drawn.after),
        "delivery": drawn.delivery,
        "timeout": drawn.timeout,
        "takeovers": drawn.takeovers,
    }
    if drawn.delivery is not Delivery.AT_MOST_ONCE:
        options["retry"] = drawn.retry
    if drawn.runs_when is not None:
        options["when"] = value > drawn.runs_when
    elif drawn.when_output is not None:
        output: Any = made[drawn.when_output].output
        wait = made[drawn.when_output]
        told = wait.declared.returns if isinstance(wait, Wait) else None
        options["when"] = output["n"] > 0 if told is None else output > (LONG_AGO if told is datetime else 0)
    return options


def _body(drawn: Drawn, made: dict[str, AnyNode], world: World, *, tells: bool, limited: frozenset[str]) -> Any:
    """`tells`: a time, in its output. `limited`: waits that end with nothing if their time is out."""

    async def body(ctx: Context, **given: Any) -> dict[str, Any]:
        key = ctx.idempotency_key
        if world.hung[key] < drawn.hangs:
            world.hung[key] += 1
            await asyncio.sleep(drawn.timeout * 3)
        if drawn.seconds:
            await asyncio.sleep(drawn.seconds)
        if world.raised[key] < drawn.errors and not world.fixed:
            world.raised[key] += 1
            if drawn.fatal and not drawn.retry.non_retryable:
                raise NonRetryable("fatal")
            raise RetryAfter(drawn.pause) if drawn.pause else ConnectionError("planned")
        if drawn.delivery is Delivery.EXACTLY_ONCE:
            ctx.commit(Update("effects", ctx.idempotency_key, add={"times": 1}))
        given.pop("why", None)
        parts = [WOKE if name in limited else _number_in(given[name]) for name in sorted(given) if name != "value"]
        number = mix(drawn.name, given["value"], parts)
        pad = "x" * 20_000 if drawn.large else ""
        time = {"at": (START + timedelta(seconds=number % 150)).isoformat()} if tells else {}
        return {"n": number, "pad": pad, **time}

    kinds: list[inspect.Parameter] = [
        inspect.Parameter("value", inspect.Parameter.KEYWORD_ONLY, annotation=int),
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=Context),
    ]
    for parent in drawn.parents:
        wait = made[parent]
        annotation: Any = wait.declared.returns if isinstance(wait, Wait) else dict[str, Any]
        annotation = annotation | None if parent in drawn.optional else annotation
        default = made[parent].output
        kinds.append(inspect.Parameter(parent, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default))
    if drawn.scope == "on_failure":
        kinds.append(inspect.Parameter("why", inspect.Parameter.KEYWORD_ONLY, annotation=Failure))
    body.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
    body.__annotations__ = {kind.name: kind.annotation for kind in kinds} | {"return": dict[str, Any]}
    body.__name__ = drawn.name
    return body


def _number_in(output: dict[str, Any] | datetime | int | None) -> int | None:
    if isinstance(output, datetime | int):
        return WOKE
    return None if output is None else output["n"]


def mix(name: str, value: int, parts: list[int | None]) -> int:
    """A step's output: any difference in what it saw shows."""
    return zlib.crc32(repr((name, value, parts)).encode()) | 1


def oracle(steps: tuple[Drawn, ...], value: int) -> Expected:
    """How a run ends, by reading the drawing."""
    found: dict[str, tuple[StepStatus, int | None]] = {}
    broken = False
    for step in steps:
        if step.scope == "on_failure" or (step.scope == "on_success" and broken):
            continue
        if any(found.get(parent, (StepStatus.FAILED, None))[0] is StepStatus.FAILED for parent in step.edges):
            found[step.name] = (StepStatus.FAILED, None)  # never runs: behind a failed step
            continue
        outputs = {parent: found[parent][1] for parent in step.parents}
        by_output = step.when_output is not None and step.runs_when is None and found[step.when_output][1] is None
        if any(found[parent][1] is None for parent in step.needs) or _false(step, value) or by_output:
            found[step.name] = (StepStatus.SKIPPED, None)
        elif step.fails:
            found[step.name] = (StepStatus.FAILED, None)
            broken = True
        elif step.waits:
            found[step.name] = (StepStatus.COMPLETED, WOKE)
        else:
            parts = [outputs[parent] for parent in sorted(outputs)]
            found[step.name] = (StepStatus.COMPLETED, mix(step.name, value, parts))
    return Expected(RunStatus.FAILED if broken else RunStatus.COMPLETED, found)


def _false(step: Drawn, value: int) -> bool:
    return step.runs_when is not None and not value > step.runs_when
