"""Histories with a known truth, made by a seed: predictions should find it, and find nothing where nothing is."""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from analytics.database import Database
from analytics.record import insert_allocation, insert_outbox, insert_usage, usage_table

AT = datetime(2026, 11, 20, tzinfo=UTC)  # the present of all planted histories
TRACE = Path(__file__).with_name("data") / "azure_v1_dev_q4.csv.gz"
Row = dict[str, Any]


def usage(
    database: Database, seed: int, *, hosts: int = 8, days: int = 3, share: float = 0.11, at: datetime = AT
) -> None:
    """Plant instances with a daily swing, noise and bursts. share: of what they have, used by the median one."""
    dice = random.Random(seed)
    for host in range(hosts):
        rows = []
        for number in range(12):
            cpus, phase = dice.choice((1, 2, 4, 8)), dice.random()
            level = min(share * dice.lognormvariate(0, 0.6), 0.6)
            burst = 0.0
            for tick in range(days * 288):
                burst = max(burst - 0.1, 0.4 if dice.random() < 0.004 else 0.0)
                swing = 1 + 0.4 * math.sin(2 * math.pi * (tick / 288 + phase))
                used = min(max(level * swing * dice.lognormvariate(0, 0.3) + burst, 0.0), 1.0)
                rows.append({
                    "at": at - timedelta(minutes=5 * tick), "host": f"h{host}", "instance_id": f"i{host}-{number}",
                    "cpus": cpus, "cpu_used": used * cpus, "memory_mib": 1024, "memory_used_mib": 300,
                })  # fmt: skip
        insert_usage(database, usage_table(rows))


def step(number: int, at: datetime, name: str, host: str, image: str, duration_s: float, outcome: str = "done") -> Row:
    """Return the outbox row of a deploy's step that ended."""
    payload = {
        "operation": f"op{number}", "verb": "deploy", "instance": f"i{number}", "host": host, "driver": "kvm",
        "image": image, "step": name, "sequence": 0, "attempt": 1, "duration_s": duration_s, "outcome": outcome,
    }  # fmt: skip
    return {"id": number, "at": at, "kind": "step", "subject": f"instance/i{number}", "payload": payload}


def steps(database: Database, seed: int, *, count: int = 12_000, truth: bool = True, at: datetime = AT) -> None:
    """Plant steps whose length depends on host and image, a host and an image that fail often; or none of that."""
    dice = random.Random(seed)
    hosts = {f"h{n}": dice.lognormvariate(0, 0.6) if truth else 1.0 for n in range(10)}
    images = {f"img{n}": dice.lognormvariate(0, 0.6) if truth else 1.0 for n in range(6)}
    rows = []
    for number in range(1, count + 1):
        name, base_s = dice.choice((("image", 4.0), ("define", 0.3), ("start", 2.0)))
        host, image = dice.choice(list(hosts)), dice.choice(list(images))
        took_s = base_s * hosts[host] * images[image] * dice.lognormvariate(0, 0.3)
        chance = max(0.02, 0.2 * (host == "h3"), 0.15 * (image == "img2")) if truth else 0.04
        outcome = "host-fault" if dice.random() < chance else "done"
        ended_at = at - timedelta(days=20 * dice.random())
        rows.append(step(number, ended_at, name, host, image, took_s, outcome))
    insert_outbox(database, rows)


def life(number: int, name: str, start: datetime, end: datetime | None, **about: Any) -> Iterator[Row]:
    """Yield the outbox rows of an instance's start and end; number: of the first of the two."""
    for place, (at, before, after) in enumerate(((start, "starting", "running"), (end, "running", "deleted"))):
        if at is not None:
            payload = {"from": before, "to": after, "instance": name, "host": "h1", **about}
            subject = f"instance/{name}"
            yield {"id": number + place, "at": at, "kind": "lifecycle", "subject": subject, "payload": payload}


def lives(database: Database, seed: int, *, count: int = 6_000, truth: bool = True, at: datetime = AT) -> None:
    """Plant instances whose life depends on template and owner, from minutes to days; or on nothing."""
    dice = random.Random(seed)
    medians_h = {(t, o): dice.choice((0.2, 1.0, 5.0, 30.0)) if truth else 3.0 for t in range(5) for o in range(6)}
    rows: list[Row] = []
    for number in range(count):
        (template, owner), start = dice.choice(list(medians_h)), at - timedelta(hours=dice.random() * 24 * 8)
        hours = medians_h[template, owner] * dice.lognormvariate(0, 0.8)
        end = start + timedelta(hours=hours)
        about = {"template": f"t{template}", "owner": f"o{owner}", "cpu": 1.0, "memory_mib": 512, "image": "tiny"}
        rows += life(2 * number + 1, f"v{number}", start, end if end <= at else None, **about)
    insert_outbox(database, rows)


def trace_lives(database: Database, seed: int, *, keep: float = 1.0, at: datetime = AT) -> None:
    """Plant the arrivals and lifetimes of the trace, ending at a moment; lifetimes drawn inside their bins."""
    dice = random.Random(seed)
    with gzip.open(TRACE, "rt") as lines:
        table = [row for row in csv.DictReader(lines) if keep >= 1 or dice.random() < keep]
    begin = at - timedelta(seconds=2_100_000)
    rows: list[Row] = []
    for number, row in enumerate(table):
        start = begin + timedelta(seconds=int(row["arrive_s"]))
        end = start + timedelta(seconds=dice.uniform(int(row["dur_lo_s"]), int(row["dur_hi_s"]) + 300))
        about = {"owner": "azure", "cpu": float(row["cpu"]), "memory_mib": int(float(row["mem_gb"]) * 1024)}
        seen_end = end if row["censored"] == "0" and end <= at else None
        rows += life(2 * number + 1, f"t{number}", start, seen_end, **about)
    for first in range(0, len(rows), 20_000):
        insert_outbox(database, rows[first : first + 20_000])


def demand(database: Database, seed: int, *, days: int = 90, at: datetime = AT) -> None:
    """Plant three clusters of 1,000 cores: one grows by 5 cores a day from 300, one swings around 500, one shrinks."""
    dice = random.Random(seed)
    rows = []
    for name, first, daily in (("growing", 300.0, 5.0), ("steady", 500.0, 0.0), ("shrinking", 700.0, -3.0)):
        for hour in range(days * 24):
            used = first + daily * hour / 24 + 20 * math.sin(2 * math.pi * hour / 24) + dice.gauss(0, 8)
            rows.append({
                "sampled_at": at - timedelta(hours=days * 24 - hour - 1), "noun": "cluster", "name": name, "host": None,
                "cluster": name, "resource": "cpu", "total": 1000.0, "used": used,
            })  # fmt: skip
    insert_allocation(database, rows)
