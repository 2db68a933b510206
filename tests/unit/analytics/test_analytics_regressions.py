"""Regression watch: the step, the host and the moment are found; noise and another mix of images are not."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from analytics.database import Database
from analytics.record import insert_outbox
from analytics.regressions import regressions
from bench.planted import AT, Row, step

SINCE = AT - timedelta(days=3)
Took = Callable[[str, str, datetime], float]


def plant(database: Database, took: Took, *, seed: int = 1, count: int = 2000, spread: float = 0.3) -> None:
    """Plant two steps on five hosts over 12 days, each as long as took(step, host, at) says, with noise."""
    dice = random.Random(seed)
    rows: list[Row] = []
    for number in range(1, count + 1):
        at, name = AT - timedelta(days=12 * dice.random()), dice.choice(["image", "start"])
        host = f"h{dice.randrange(5)}"
        rows.append(step(number, at, name, host, "tiny", took(name, host, at) * dice.lognormvariate(0, spread)))
    insert_outbox(database, rows)


def test_a_step_that_became_slow_on_one_host(database: Database) -> None:
    plant(database, lambda name, host, at: 6.0 if (name, host) == ("start", "h3") and at >= SINCE else 2.0)
    [found] = regressions(database, AT)
    assert (found["verb"], found["step"], found["host"]) == ("deploy", "start", "h3")
    assert found["ratio"] == pytest.approx(3.0, rel=0.2)
    assert abs(datetime.fromisoformat(found["since_at"]) - SINCE) < timedelta(hours=6)
    assert found["others_ratio"] == pytest.approx(1.0, abs=0.1)
    assert found["after_p50_s"] > 2 * found["before_p50_s"]


def test_a_step_that_became_slow_everywhere(database: Database) -> None:
    plant(database, lambda name, host, at: 6.0 if name == "start" and at >= SINCE else 2.0)
    found = regressions(database, AT)
    assert [row["step"] for row in found] == ["start"] * 5
    assert all(row["others_ratio"] == pytest.approx(row["ratio"], rel=0.3) for row in found)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_change(database: Database, seed: int) -> None:
    plant(database, lambda name, host, at: 2.0, seed=seed, spread=0.8)
    assert regressions(database, AT) == []


def test_faster_is_no_regression(database: Database) -> None:
    plant(database, lambda name, host, at: 0.5 if host == "h3" and at >= SINCE else 2.0)
    assert regressions(database, AT) == []


def test_another_mix_of_images_is_no_change(database: Database) -> None:
    """From some day on h1 gets the big image: each image takes as long as it always did."""
    dice = random.Random(3)
    rows = []
    for number in range(1, 1500):
        at, host = AT - timedelta(days=12 * dice.random()), f"h{dice.randrange(4)}"
        big = dice.random() < (0.9 if host == "h1" and at >= SINCE else 0.1)
        rows.append(step(number, at, "image", host, "big" if big else "small", 9.0 if big else 1.0))
    insert_outbox(database, rows)
    assert regressions(database, AT) == []
