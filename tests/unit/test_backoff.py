"""Pauses grow from the first to the longest, and stay finite however many tries there were."""

from __future__ import annotations

import pytest
from detent_state_machine.backoff import Backoff


def test_each_pause_is_a_multiple_of_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(first=0.5, longest=10.0, factor=3.0)
    assert [backoff.pause(tries) for tries in (1, 2, 3, 4, 5)] == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_before_the_first_try_it_is_the_first_pause() -> None:
    assert Backoff(1.0, 8.0).pause(0) == 1.0


@pytest.mark.parametrize(("first", "pause"), [(1.0, 60.0), (0.0, 0.0)])
def test_after_any_number_of_tries_it_is_finite(first: float, pause: float) -> None:
    assert Backoff(first, 60.0, factor=1000.0).pause(10**9) == pause


def test_spread_takes_at_most_half_of_the_pause_away() -> None:
    backoff = Backoff(2.0, 60.0)
    assert [backoff.spread(2, jitter) for jitter in (0.0, 0.5, 1.0)] == [2.0, 3.0, 4.0]
