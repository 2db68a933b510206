"""How much longer an operation takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from control import eta, operations
from control.eta import StepLeft
from core.clock import now
from tests.rig import Rig

AT = now()
STEP = StepLeft("deploy", "start", "kvm", "h1", "tiny", None)
USUAL = {"p50_s": 10.0, "p95_s": 13.0}


def test_what_is_left_of_a_deploy(cloud: Rig) -> None:
    cloud.ask("a")
    assert cloud.run(lambda c: eta.steps_left(c, cloud.admin, [])) == {}
    [op] = cloud.claim()

    def left() -> list[StepLeft]:
        return cloud.run(lambda c: eta.steps_left(c, cloud.admin, [op.id]))[op.id]

    names = ["place", "image", "volumes", "define", "start"]
    assert [step.step for step in left()] == names
    assert {(step.image, step.host, step.started_at) for step in left()} == {("tiny", None, None)}
    cloud.run(lambda c: operations.begin_step(c, op, 1, "place"))
    cloud.run(lambda c: operations.end_step(c, op, 1, changed=True))
    cloud.run(lambda c: operations.begin_step(c, op, 2, "image", "h1"))
    runs, *later = left()
    assert (runs.step, runs.host, runs.driver, runs.started_at is not None) == ("image", "h1", "fake", True)
    assert [step.step for step in later] == names[2:]
    assert {(step.host, step.driver, step.started_at) for step in later} == {("h1", "fake", None)}
    stranger = cloud.user("bob")
    assert cloud.run(lambda c: eta.steps_left(c, stranger, [op.id])) == {}


def test_seconds_add_up_and_their_spreads_as_squares() -> None:
    assert eta.seconds_left([STEP, STEP], [USUAL, {"p50_s": 5.0, "p95_s": 9.0}], AT) == (15.0, 20.0)


@pytest.mark.parametrize(("elapsed_s", "left_s"), [(0, 10.0), (4, 6.0), (11, 2.0), (50, 0.0)])
def test_a_step_that_runs_takes_less_and_less(elapsed_s: float, left_s: float) -> None:
    runs = replace(STEP, started_at=AT - timedelta(seconds=elapsed_s))
    found = eta.seconds_left([runs], [USUAL], AT)
    assert found is not None
    assert found[0] == pytest.approx(left_s)


def test_nothing_is_said_where_nothing_is_known() -> None:
    unknown = {"p50_s": None, "p95_s": None}
    assert eta.seconds_left([STEP], [unknown], AT) is None
    assert eta.seconds_left([STEP, STEP], [unknown, USUAL], AT) == (10.0, 13.0)
    assert eta.seconds_left([], [], AT) is None
