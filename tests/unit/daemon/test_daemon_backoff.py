"""When a dead process is started again."""

from __future__ import annotations

from daemon.backoff import GIVE_UP_AFTER, HEALTHY_AFTER_S, LONGEST_S, Failures


def after(*lives_s: float) -> Failures:
    failures = Failures()
    for lived_s in lives_s:
        failures = failures.after(lived_s)
    return failures


def test_the_pause_doubles_and_is_bounded() -> None:
    pauses = [after(*[1.0] * n).delay_s for n in range(1, 12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_S
    assert pauses == sorted(pauses)


def test_a_long_life_is_forgiven_all_that_was_before() -> None:
    assert after(1, 1, 1, 1, HEALTHY_AFTER_S) == Failures(1)


def test_a_process_that_never_was_ready_is_given_up_one_that_was_is_not() -> None:
    assert not after(*[1.0] * (GIVE_UP_AFTER - 1)).hopeless(was_ready=False)
    assert after(*[1.0] * GIVE_UP_AFTER).hopeless(was_ready=False)
    assert not after(*[1.0] * 50).hopeless(was_ready=True)
