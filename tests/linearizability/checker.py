"""Whether what clients saw could have come from one store that does one thing at a time.

A history of calls is linearizable if each call can be given one moment between its invocation and its return, so that
doing the calls at these moments one after the other gives every client what it was given. The search is Wing and
Gong's, with Lowe's memory of configurations that led nowhere: exponential at worst, quick where calls overlap little.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

FOREVER = 2**63


class Timed(Protocol):
    """A call between two moments of one monotonic clock. `returned` is None if nobody knows whether it was done."""

    @property
    def invoked(self) -> int: ...
    @property
    def returned(self) -> int | None: ...


CallT = TypeVar("CallT", bound=Timed)
StateT = TypeVar("StateT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Verdict(Generic[CallT]):
    """`order` is a linearization if there is one, else the longest beginning of one; `stuck` is what cannot follow."""

    linearizable: bool
    order: Sequence[CallT]
    stuck: Sequence[CallT]


def check(calls: Iterable[CallT], initial: StateT, step: Callable[[StateT, CallT], Iterable[StateT]]) -> Verdict[CallT]:
    """Looks for a linearization from the initial state.

    `step` gives the states that the store can be in after it did this call and answered as it did; none if it cannot
    have answered so. Calls without a return may be left out, or done at any time after their invocation.
    """
    search = _Search(sorted(calls, key=lambda call: call.invoked), step)
    return search.run(initial)


class _Search(Generic[CallT, StateT]):
    def __init__(self, calls: Sequence[CallT], step: Callable[[StateT, CallT], Iterable[StateT]]) -> None:
        self._calls = calls
        self._step = step
        self._must = sum(1 << n for n, call in enumerate(calls) if call.returned is not None)
        self._visited: set[tuple[int, StateT]] = set()

    def run(self, initial: StateT) -> Verdict[CallT]:
        order: list[int] = []
        longest: list[int] = []
        done = 0
        choices = [self._next(done, initial)]
        while self._must & ~done:
            found = next(choices[-1], None)
            if found is not None:
                n, state = found
                order.append(n)
                done |= 1 << n
                if len(order) > len(longest):
                    longest = list(order)
                choices.append(self._next(done, state))
            elif order:
                choices.pop()
                done &= ~(1 << order.pop())
            else:
                blocked = self._candidates(sum(1 << n for n in longest))
                return Verdict(False, [self._calls[n] for n in longest], [self._calls[n] for n in blocked])
        return Verdict(True, [self._calls[n] for n in order], [])

    def _next(self, done: int, state: StateT) -> Iterator[tuple[int, StateT]]:
        """The calls that can be next, with the states after them that have not been tried with the same calls done.

        Who has no return comes last, and only if it changes something: leaving it out explains as much.
        """
        answered: list[int] = []
        unanswered: list[int] = []
        for n in self._candidates(done):
            (unanswered if self._calls[n].returned is None else answered).append(n)
        for n in (*answered, *unanswered):
            for after in self._step(state, self._calls[n]):
                if after == state and self._calls[n].returned is None:
                    continue
                tried = (done | 1 << n, after)
                if tried not in self._visited:
                    self._visited.add(tried)
                    yield n, after

    def _candidates(self, done: int) -> Iterator[int]:
        """The calls that are not done and were invoked before any other such call returned."""
        first = ((done + 1) & ~done).bit_length() - 1  # the lowest bit that is not set
        horizon = FOREVER
        for n in range(first, len(self._calls)):
            call = self._calls[n]
            if call.invoked > horizon:
                return
            if not done >> n & 1:
                horizon = min(horizon, FOREVER if call.returned is None else call.returned)
                yield n
