"""Queries over ten million samples, and how well predictions do: `scripts/bench history [SAMPLES]`.

Samples are those of 1,000 hosts over 7 days: all of them count for the query. Predictions are judged on planted
histories (bench/planted.py) and, for lifetimes, on a public trace (bench/data/README.md), each beside its baseline.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analytics import durations, failures, forecast, lifetimes, overcommit
from analytics.backtest import backtest
from analytics.database import Database, Limits
from analytics.learn import learn
from analytics.prediction import Prediction
from analytics.query import Queries
from analytics.record import USAGE, insert_usage
from bench import planted
from bench.cloud import say
from bench.dense import SHARES, compare
from core.clock import now

HOSTS, MINUTES = 1000, 7 * 1440
INSTANCES, DAY = 2000, 1440
ROUNDS = 5
SEED = 1
QUERY = "SELECT * FROM host_use_week"

Plant = Callable[[Database], None]
JUDGED: tuple[tuple[str, Plant, tuple[Prediction, ...]], ...] = (
    ("planted", partial(planted.usage, seed=SEED), (overcommit.USE,)),
    ("planted", partial(planted.steps, seed=SEED), (durations.STEPS, failures.OF_HOSTS, failures.OF_IMAGES)),
    ("no effect", partial(planted.steps, seed=SEED, truth=False), (durations.STEPS, failures.OF_HOSTS)),
    ("planted", partial(planted.lives, seed=SEED), (lifetimes.AT_START, lifetimes.AT_AGE)),
    ("no effect", partial(planted.lives, seed=SEED, truth=False), (lifetimes.AT_START,)),
    ("trace", partial(planted.trace_lives, seed=SEED), (lifetimes.AT_START, lifetimes.AT_AGE)),
    ("planted", partial(planted.demand, seed=SEED), (forecast.DEMAND,)),
)  # fmt: skip


def _fill(database: Database, names: int, minutes: int, *, instances: bool) -> int:
    """Insert a sample a minute, up to now, of hosts or of instances, through the code that takes real ones.

    Minutes are a little short, so that none is too old when all are there.
    """
    dice, end, minute_s = np.random.default_rng(SEED), now(), 60 - 900 / MINUTES
    ids = pa.array([f"{'i' if instances else 'h'}{n:05}" for n in range(names)])
    hosts = pa.array([f"h{n % HOSTS:05}" for n in range(names)])
    level = dice.lognormal(-2, 0.7, names)
    for minute in range(minutes):
        used = np.minimum(level * dice.lognormal(0, 0.5, names), 1.0) * 32
        at = pa.scalar(end - timedelta(seconds=minute_s * (minutes - minute - 1)), USAGE.field("sampled_at").type)
        whole = {
            "sampled_at": pa.repeat(at, names), "host": hosts if instances else ids,
            "instance_id": ids if instances else pa.nulls(names, pa.string()), "cpus": np.full(names, 32.0),
            "cpu_used": used, "memory_mib": np.full(names, 65_536), "memory_used_mib": np.full(names, 20_000),
            "disk_total_mib": pa.nulls(names, pa.int64()), "disk_free_mib": pa.nulls(names, pa.int64()),
        }  # fmt: skip
        insert_usage(database, pa.table(whole, schema=USAGE))
    return names * minutes


def _cheapest(work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds of the cheapest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(times)


def _speed(folder: Path, samples: int) -> dict[str, Any]:
    database = Database(folder / "speed.duckdb", Limits())
    say(f"inserting {samples:,} samples of {HOSTS} hosts")
    inserted = _fill(database, HOSTS, samples // HOSTS, instances=False)
    queries = Queries(database, Limits())
    rows = queries.run(QUERY)["rows"]
    if len(rows) != HOSTS or not all(row[1] == samples // HOSTS for row in rows):
        raise RuntimeError(f"{len(rows)} hosts, {rows[:2]}")
    cpu_s, wall_s = _cheapest(lambda: queries.run(QUERY))
    say(f"inserting {INSTANCES * DAY:,} samples of {INSTANCES} instances")
    _fill(database, INSTANCES, DAY, instances=True)
    learn_s, _ = _cheapest(lambda: learn(database, now(), overcommit.USE))
    database.close()
    return {
        "samples": inserted, "p95_7d_cpu_s": round(cpu_s, 3), "p95_7d_wall_s": round(wall_s, 3),
        "learn_use_cpu_s": round(learn_s, 3), "file_mib": (folder / "speed.duckdb").stat().st_size // 2**20,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def _quality(folder: Path) -> list[dict[str, Any]]:
    found = []
    for place, (history, plant, predictions) in enumerate(JUDGED):
        database = Database(folder / f"{place}.duckdb", Limits())
        plant(database)
        for row in backtest(database, planted.AT, predictions):
            figures = {key: row[key] for key in ("prediction", "cases", "beats")}
            errors = {key: round(row[key], 4) for key in ("error", "baseline_error")}
            found.append({"history": history, **figures, **errors})
            verdict = "used" if row["beats"] else "not used"
            say(
                f"{history:9} {row['prediction']:18} {row['error']:8.4f} {row['baseline_error']:8.4f} {verdict:8} "
                f"{row['unit']}; baseline: {row['baseline']}; {row['detail']}"
            )
        database.close()
    return found


def main() -> None:
    """Measure; the last line is JSON."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else HOSTS * MINUTES
    with tempfile.TemporaryDirectory() as folder:
        speed = _speed(Path(folder), samples)
        quality = _quality(Path(folder))
        dense = {load: compare(Path(folder), SEED, load) for load in SHARES}
        for load, rules in dense.items():
            for rule, figures in rules.items():
                say(f"{load} {rule}: {figures}")
    print(json.dumps({**speed, "predictions": quality, "overcommit": dense}))


if __name__ == "__main__":
    main()
