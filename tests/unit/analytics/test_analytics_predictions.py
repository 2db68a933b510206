"""Predictions: by hand-made figures, by planted truth that must be found, and by noise that must not be."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics import durations, failures, forecast, lifetimes, overcommit
from analytics.backtest import backtest
from analytics.capacity import Features
from analytics.database import Database, rows_of
from analytics.learn import PREDICTIONS, learn
from analytics.learned import learned_features
from analytics.prediction import Prediction
from analytics.record import insert_allocation, insert_outbox, insert_usage, usage_table
from bench import planted
from bench.planted import AT

HOUR = timedelta(hours=1)
ABOUT = {"template": "t", "owner": "o", "cpu": 1.0, "memory_mib": 512}


def read(database: Database, sql: str) -> list[dict[str, Any]]:
    with database.read() as cursor:
        return rows_of(cursor, sql)


def judge(database: Database, prediction: Prediction) -> dict[str, Any]:
    """Learn and judge as of the planted present; return the outcome."""
    learn(database, AT, prediction)
    [row] = backtest(database, AT, [prediction])
    return row


def use(database: Database, instance: str, hours: float, used: list[float], *, cpus: float = 4.0) -> None:
    """Give an instance on h1 samples every 5 minutes, the last one now, that go through the values of used."""
    insert_usage(database, usage_table([
        {"at": AT - timedelta(minutes=5 * tick), "host": "h1", "instance_id": instance, "cpus": cpus,
         "cpu_used": used[tick % len(used)], "memory_mib": 512, "memory_used_mib": 100}
        for tick in range(int(hours * 12))
    ]))  # fmt: skip


def test_demand_is_the_sum_of_p95_or_five_sigma(database: Database) -> None:
    use(database, "calm", 24, [1.0])
    use(database, "swings", 24, [0.0, 2.0])  # mean 1, sigma 1
    use(database, "young", 11, [0.1])
    learn(database, AT, overcommit.USE)
    instances = {row["instance_id"]: row for row in read(database, "FROM learned_instance_use")}
    assert {name: row["counted_cpus"] for name, row in instances.items()} == {"calm": 1.0, "swings": 2.0, "young": 4.0}
    assert instances["young"]["hours"] == 11.0
    [host] = read(database, "FROM learned_host_use")
    assert host["p95_sum_cpus"] == 3.0
    assert host["mean_5_sigma_cpus"] == pytest.approx(2 + 5 * 1)
    assert (host["unproven"], host["demand_cpus"]) == (1, pytest.approx(7 + 4))


def test_demand_is_never_more_than_allocated(database: Database) -> None:
    use(database, "swings", 24, [0.0, 4.0])
    learn(database, AT, overcommit.USE)
    [host] = read(database, "FROM learned_host_use")
    assert host["mean_5_sigma_cpus"] > 4
    assert host["demand_cpus"] == host["allocated_cpus"] == 4.0


def test_an_instance_that_is_gone_counts_no_more(database: Database) -> None:
    use(database, "here", 24, [1.0])
    rows = [{"at": AT - 2 * HOUR, "host": "h1", "instance_id": "gone", "cpus": 4.0, "cpu_used": 4.0, "memory_mib": 1}]
    insert_usage(database, usage_table(rows))
    learn(database, AT, overcommit.USE)
    assert [row["instance_id"] for row in read(database, "FROM learned_instance_use")] == ["here"]


def test_use_holds_less_than_allocation_and_is_seldom_over(database: Database) -> None:
    planted.usage(database, seed=1)
    row = judge(database, overcommit.USE)
    told = dict(part.split(" ") for part in row["detail"].split(", "))
    assert row["beats"]
    assert float(told["over_ratio"]) < float(told["over_ratio_4x"])
    assert float(told["held_ratio"]) < 0.5


def live(database: Database, count: int, template: str, owner: str, *, first: int, hours: float) -> None:
    """Plant lives of so many hours in the median, all begun long enough ago to have ended."""
    dice, start, rows = random.Random(first), AT - timedelta(days=60), []
    about = {"template": template, "owner": owner, "cpu": 1.0, "memory_mib": 512}
    for number in range(first, first + count):
        rows += planted.life(2 * number + 1, f"v{number}", start, start + hours * 2 ** dice.gauss(0, 1) * HOUR, **about)
    insert_outbox(database, rows)


def left(database: Database, where: str) -> float:
    [row] = read(database, f"SELECT residual_s FROM learned_lifetimes WHERE {where} AND age_s = 0")
    return float(row["residual_s"]) / 3600


def test_life_of_a_few_is_pulled_towards_the_wider_group(database: Database) -> None:
    live(database, 2000, "web", "ann", first=0, hours=24)
    live(database, 5, "web", "bob", first=5000, hours=1)
    live(database, 500, "job", "bob", first=6000, hours=1)
    learn(database, AT, lifetimes.AT_START)
    assert left(database, "template = 'web' AND owner = 'ann'") == pytest.approx(24, rel=0.15)
    assert left(database, "template = 'job' AND owner = 'bob'") == pytest.approx(1, rel=0.15)
    assert 12 < left(database, "template = 'web' AND owner = 'bob'") < 24


def kaplan_meier(lives: list[tuple[float, bool]]) -> float:
    """Return the median of exact Kaplan-Meier survival, the plain way."""
    survival, at_risk = 1.0, len(lives)
    for life, ended in sorted(lives):
        if ended:
            survival *= 1 - 1 / at_risk
        if survival <= 0.5:
            return life
        at_risk -= 1
    return math.inf


def test_running_ones_are_censored(database: Database) -> None:
    """The mean of those that ended says 5 h; with those that still run the median is twice as long and more."""
    dice = random.Random(4)
    lives, rows = [], []
    for number in range(3000):
        age, life = dice.uniform(0, 24), dice.expovariate(math.log(2) / 12)
        start, ended = AT - age * HOUR, life <= age
        lives.append((min(life, age), ended))
        rows += planted.life(2 * number + 1, f"v{number}", start, start + life * HOUR if ended else None, **ABOUT)
    insert_outbox(database, rows)
    learn(database, AT, lifetimes.AT_START)
    found = left(database, "template = 't' AND owner = 'o'")
    assert found == pytest.approx(kaplan_meier(lives), rel=0.1)
    assert found == pytest.approx(12, rel=0.1)


def test_without_history_it_lives_as_long_again(database: Database) -> None:
    insert_outbox(database, list(planted.life(1, "v1", AT - HOUR, None, **ABOUT)))
    learn(database, AT, lifetimes.AT_START)
    rows = read(database, "SELECT age_s, residual_s FROM learned_lifetimes WHERE template IS NULL AND flavour IS NULL")
    later = [row for row in rows if 2 * 3600 <= row["age_s"] < 64 * 86400]
    assert len(later) > 10
    assert all(row["residual_s"] == pytest.approx(row["age_s"], rel=0.25) for row in later)


@pytest.mark.parametrize("truth", [True, False])
def test_lifetimes_are_used_only_where_they_depend_on_something(database: Database, truth: bool) -> None:
    planted.lives(database, seed=2, count=3000, truth=truth)
    assert judge(database, lifetimes.AT_START)["beats"] is truth
    assert judge(database, lifetimes.AT_AGE)["beats"]
    found = learned_features(database)["lifetimes"]
    assert found["ages_s"][:2] == [0, 60]
    assert len(found["all"]) == len(found["ages_s"])
    assert bool(found["owners"]) is bool(found["templates"]) is truth


@pytest.mark.parametrize("truth", [True, False])
def test_effects_of_hosts_and_images_are_found_only_where_they_are(database: Database, truth: bool) -> None:
    planted.steps(database, seed=5, count=9000, truth=truth)
    row = judge(database, durations.STEPS)
    assert row["beats"] is truth
    assert float(row["detail"].removeprefix("within_p95_ratio ")) == pytest.approx(0.95, abs=0.03)
    for prediction in (failures.OF_HOSTS, failures.OF_IMAGES):
        assert judge(database, prediction)["beats"] is truth
    found = learned_features(database)
    assert bool(found["steps"]) is bool(found["hosts"]) is bool(found["images"]) is truth
    if truth:
        assert max(found["hosts"], key=lambda name: float(found["hosts"][name]["failure_ratio"])) == "h3"
        assert max(found["images"], key=lambda name: float(found["images"][name]["failure_ratio"])) == "img2"
        assert found["hosts"]["h3"]["failure_ratio"] == pytest.approx(0.2, abs=0.05)


def test_eta_of_a_host_and_an_image_that_have_not_met(database: Database) -> None:
    """slow takes four times as long with every image, big three times as long on every host."""
    factors = {("fast", "small"): 1.0, ("slow", "small"): 4.0, ("fast", "big"): 3.0}
    dice = random.Random(6)
    rows = [
        planted.step(n, AT - n * HOUR / 20, "start", host, image, factor * dice.lognormvariate(0, 0.1))
        for n, ((host, image), factor) in enumerate(list(factors.items()) * 300, 1)
    ]
    insert_outbox(database, rows)
    row = judge(database, durations.STEPS)
    assert row["beats"]
    asked = [{"verb": "deploy", "step": "start", "driver": "kvm", "host": host, "image": image}
             for host, image in [*factors, ("slow", "big"), ("new", "big"), ("new", "new")]]  # fmt: skip
    told = [float(one["p50_s"] or 0) for one in durations.eta(database, asked)]
    assert told[:3] == pytest.approx([1.0, 4.0, 3.0], rel=0.1)
    assert told[3] == pytest.approx(12.0, rel=0.1)
    assert told[4] > told[5]
    anywhere = durations.eta(database, [{"verb": "deploy", "step": "start"}])
    assert anywhere == durations.eta(database, [{**asked[-1], "driver": "other"}])
    assert float(anywhere[0]["p50_s"] or 0) == pytest.approx(told[5])
    assert durations.eta(database, [{"verb": "deploy", "step": "never"}]) == [{"p50_s": None, "p95_s": None}]
    assert durations.eta(database, []) == []


def test_demand_finds_trends_and_says_when_a_cluster_runs_out(database: Database) -> None:
    planted.demand(database, seed=7)
    row = judge(database, forecast.DEMAND)
    assert row["beats"]
    assert 0.6 <= float(row["detail"].removeprefix("within_ratio ")) <= 1.0
    growing, shrinking, steady = sorted(forecast.outlook(database), key=lambda found: str(found["cluster"]))
    when = "cluster = 'growing' AND expected >= total"
    days = read(database, f"SELECT min(ahead_days) AS d FROM learned_demand WHERE {when}")
    assert days[0]["d"] == pytest.approx((1000 - 30 - 750) / 5, abs=8)
    assert growing["earliest_at"] <= growing["runs_out_at"] <= growing["latest_at"]
    assert shrinking["runs_out_at"] is steady["runs_out_at"] is None
    assert growing["proven"]


def test_a_wandering_demand_is_not_foretold(database: Database) -> None:
    dice, used, rows = random.Random(8), 500.0, []
    for hour in range(90 * 24):
        used += dice.gauss(0, 3)
        rows.append({"sampled_at": AT - hour * HOUR, "noun": "cluster", "name": "c", "cluster": "c", "resource": "cpu",
                     "total": 1000.0, "used": used})  # fmt: skip
    insert_allocation(database, rows)
    assert not judge(database, forecast.DEMAND)["beats"]


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: prediction.name)
def test_without_history_nothing_is_used(database: Database, prediction: Prediction) -> None:
    row = judge(database, prediction)
    assert (row["cases"], row["error"], row["beats"]) == (0, None, False)
    found = learned_features(database)
    assert found.pop("used") == []
    assert not any(found.values())


def test_nothing_later_is_learned_from(database: Database) -> None:
    """What a prediction learns as of a moment is the same whatever comes after it."""
    before = AT - timedelta(days=2)
    planted.steps(database, seed=9, count=2000)
    planted.usage(database, seed=9, hosts=1)
    planted.lives(database, seed=9, count=500)
    planted.demand(database, seed=9)
    asked = [(table, select) for one in PREDICTIONS for table, select in one.tables.items()]

    def learned() -> list[list[tuple[Any, ...]]]:
        with database.read() as cursor:
            tables = [cursor.execute(select, {"at": before}).fetchall() for _, select in asked]
        # sums of floats depend on which thread comes first
        return [sorted(repr([f"{v:.6g}" if isinstance(v, float) else v for v in r]) for r in rows) for rows in tables]

    whole = learned()
    with database.write() as cursor:
        for table, column in (("steps", "occurred_at"), ("events", "occurred_at"), ("usage", "sampled_at"),
                              ("allocation", "sampled_at")):  # fmt: skip
            cursor.execute(f"DELETE FROM {table} WHERE {column} > ?", [before])
    assert all(whole)
    assert learned() == whole


def test_when_the_last_one_on_a_host_ends_is_told_by_age_and_again_when_that_has_passed(database: Database) -> None:
    """Jobs live for an hour in the median, always; one that is there for three hours already lives on."""
    present, dice = datetime.now(UTC), random.Random(11)
    rows = []
    for number in range(2000):
        start = present - timedelta(days=8) * dice.random()
        end = start + HOUR * dice.expovariate(math.log(2))
        about = {"template": "job", "owner": "ann", "cpu": 1.0, "memory_mib": 512, "host": "gone"}
        rows += planted.life(2 * number + 1, f"v{number}", start, end if end <= present else None, **about)
    there = (("young", 0.01, "running"), ("old", 3, "running"), ("off", 1, "stopped"))
    for number, (host, age_h, state) in enumerate(there):
        about = {"template": "job", "owner": "ann", "cpu": 1.0, "memory_mib": 512, "host": host}
        rows += planted.life(9000 + 2 * number, host, present - age_h * HOUR, None, **about)
        rows[-1]["payload"]["to"] = state
    insert_outbox(database, rows)
    for names, old_h in (([lifetimes.AT_START], 3.0), ([lifetimes.AT_START, lifetimes.AT_AGE], 1.0)):
        learn(database, present, lifetimes.AT_START)
        with database.write() as cursor:
            cursor.execute("DELETE FROM backtests")
            for one in names:
                cursor.execute("INSERT INTO backtests VALUES (?, now(), 100, 1, 2, 'u', 'b', '', true)", [one.name])
        told = Features(database).get()["hosts"]
        assert "off" not in told
        assert told["young"]["exit_s"] == pytest.approx(3600, rel=0.2)
        assert told["old"]["exit_s"] == pytest.approx(3600 * old_h, rel=0.3)
