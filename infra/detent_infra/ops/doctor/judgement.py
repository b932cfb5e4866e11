"""What checks of facts share: a fact that could not be read, and the finding that all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from detent_infra.ops.doctor.findings import Finding
from detent_infra.ops.stack.facts import Fact, StackFacts, Unread

T = TypeVar("T")

NEAR = 0.8
"""Share of a quota above which we warn."""
AGAIN = "Deploy detent's template again: it sets this."
REVERT = (
    "A deploy does not notice that. Make it again, or let a change set with `--deployment-mode REVERT_DRIFT` do it."
)


def when_read(name: str, fact: Fact[T], judged: Callable[[T], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings about the fact; a `fail` if the thing was deleted, a `skip` if it could not be read."""
    if isinstance(fact, Unread) and fact.gone:
        yield Finding(name, "fail", fact.why, REVERT)
    elif isinstance(fact, Unread):
        yield Finding(name, "skip", fact.why, fact.fix)
    else:
        yield from judged(fact)


def skipped(name: str, *needed: Fact[object]) -> Iterator[Finding]:
    """A `skip` for each of the facts that could not be read, once. The check of a deleted thing reports it itself."""
    for fact in dict.fromkeys(each for each in needed if isinstance(each, Unread)):
        yield Finding(name, "skip", fact.why, fact.fix)


def or_well(name: str, findings: Iterable[Finding], said: str) -> Iterator[Finding]:
    """The findings; an `ok` if there is none."""
    yield from list(findings) or [Finding(name, "ok", said)]


def aws(facts: StackFacts, arguments: str) -> str:
    """A command of the AWS CLI, to copy."""
    return f"aws {arguments} --region {facts.region}"
