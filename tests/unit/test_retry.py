"""A failed attempt is tried again after a pause that grows, is jittered, and is never longer than allowed."""

from __future__ import annotations

import math
from typing import Any

import pytest
from detent_state_machine.errors import DefinitionError
from detent_state_machine.retry import MAX_DELAY, Again, GiveUp, Retry, Verdict, decide
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

STEADY = Retry(attempts=10, jitter=False)


def after(
    policy: Retry,
    errors: int,
    *,
    kinds: tuple[str, ...] = ("TimeoutError", "OSError", "Exception"),
    retryable: bool = True,
    retry_after: float | None = None,
    jitter: float = 0.5,
) -> Verdict:
    return decide(policy, errors=errors, kinds=kinds, retryable=retryable, retry_after=retry_after, jitter=jitter)


def test_the_pause_grows_by_the_factor_up_to_the_longest() -> None:
    pauses = [after(STEADY, errors) for errors in range(1, 9)]
    assert pauses == [Again(delay) for delay in (1, 2, 4, 8, 16, 32, 60, 60)]


def test_a_factor_of_one_keeps_the_pause() -> None:
    policy = Retry(attempts=5, backoff=1, initial=7, jitter=False)
    assert [after(policy, errors) for errors in range(1, 5)] == [Again(7)] * 4


def test_jitter_draws_from_nothing_up_to_the_ceiling() -> None:
    policy = Retry(attempts=10)
    assert after(policy, 3, jitter=0.0) == Again(0)
    assert after(policy, 3, jitter=0.25) == Again(1)
    assert after(policy, 3, jitter=0.75) == Again(3)


def test_attempts_count_the_first_one() -> None:
    policy = Retry(attempts=3)
    assert isinstance(after(policy, 1), Again)
    assert isinstance(after(policy, 2), Again)
    assert after(policy, 3) == GiveUp("attempt 3 of 3 failed")
    assert after(Retry(attempts=1), 1) == GiveUp("attempt 1 of 1 failed")


def test_an_error_that_says_not_to_retry_is_not_retried() -> None:
    assert after(STEADY, 1, retryable=False) == GiveUp("the error says not to retry")


@pytest.mark.parametrize("named", ["TimeoutError", "OSError"])
def test_a_class_or_a_base_class_that_is_named_is_not_retried(named: str) -> None:
    policy = Retry(non_retryable=("ValueError", named))
    assert after(policy, 1) == GiveUp(f"{named} is listed as non-retryable")
    assert isinstance(after(policy, 1, kinds=("KeyError", "Exception")), Again)


def test_a_server_that_asks_for_a_longer_pause_gets_it_and_for_a_shorter_one_does_not() -> None:
    assert after(STEADY, 1, retry_after=90) == Again(90)
    assert after(STEADY, 6, retry_after=2) == Again(32)
    assert after(Retry(), 1, retry_after=90, jitter=0) == Again(90)


@pytest.mark.parametrize(
    ("asked", "given_"), [(10 * MAX_DELAY, MAX_DELAY), (math.inf, MAX_DELAY), (-5, 1), (math.nan, 1)]
)
def test_no_server_can_ask_for_an_unbounded_or_senseless_pause(asked: float, given_: float) -> None:
    assert after(STEADY, 1, retry_after=asked) == Again(given_)


def test_a_server_cannot_ask_for_more_attempts() -> None:
    assert isinstance(after(Retry(attempts=2), 2, retry_after=1), GiveUp)


def test_growth_beyond_every_number_is_the_longest_pause() -> None:
    assert after(Retry(attempts=1000, backoff=1000, jitter=False), 999) == Again(60)


def test_no_initial_pause_stays_none_however_many_attempts() -> None:
    assert after(Retry(attempts=1000, backoff=1000, initial=0, jitter=False), 999) == Again(0)


@given(
    st.builds(
        Retry,
        attempts=st.just(1000),
        backoff=st.floats(1, 1000),
        initial=st.floats(0, MAX_DELAY),
        max_delay=st.floats(0, MAX_DELAY),
        jitter=st.booleans(),
    ),
    st.integers(1, 999),
    st.none() | st.floats(),
    st.floats(0, 1, exclude_max=True),
)
def test_every_pause_is_bounded(policy: Retry, errors: int, retry_after: float | None, jitter: float) -> None:
    verdict = after(policy, errors, retry_after=retry_after, jitter=jitter)
    assert isinstance(verdict, Again)
    assert 0 <= verdict.delay <= MAX_DELAY
    if retry_after is None:
        assert verdict.delay <= policy.max_delay


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": 1001},
        {"backoff": 0.5},
        {"backoff": math.nan},
        {"backoff": math.inf},
        {"initial": -1},
        {"max_delay": MAX_DELAY + 1},
        {"attempt": 3},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match="`Retry"):
        Retry.model_validate(wrong)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attempts": 0}, "`Retry(attempts=0)`: it should be greater than or equal to 1. Left out, it is 3."),
        ({"attempt": 3}, "`Retry` has no option 'attempt'. Did you mean 'attempts'?"),
        (
            {"on": "errors"},
            "`Retry` has no option 'on'. It has: attempts, backoff, initial, max_delay, jitter, non_retryable.",
        ),
        ({"non_retryable": "KeyError"}, "classes, not 'KeyError'. Write it as `non_retryable=('KeyError',)`."),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_what_it_should_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        Retry(**options)
    assert said in str(refused.value)


def test_in_a_stored_definition_it_is_the_definition_that_is_refused() -> None:
    class Stored(BaseModel):
        retry: Retry

    with pytest.raises(ValidationError, match=r"retry\.attempts"):
        Stored.model_validate_json('{"retry": {"attempts": 0}}')
