"""Inserting: outbox rows once each, samples, rolling up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics.database import Database, Limits, rows_of
from analytics.record import insert_allocation, insert_outbox, insert_usage, usage_table
from analytics.retention import roll_up
from core.errors import Conflict, Invalid
from tests.unit.analytics.rows import AT, lifecycle, sample, step


def read(database: Database, sql: str) -> list[dict[str, Any]]:
    with database.read() as cursor:
        return rows_of(cursor, sql)


def counts(database: Database) -> tuple[int, int]:
    with database.read() as cursor:
        found = rows_of(cursor, "SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM steps) AS s")[0]
    return found["e"], found["s"]


def test_each_outbox_id_once(database: Database) -> None:
    rows = [lifecycle(1, "pending", "staging"), step(2, "define", 0.5), lifecycle(4, "staging", "running")]
    assert insert_outbox(database, rows) == 3
    assert insert_outbox(database, rows) == 0
    assert insert_outbox(database, [*rows, step(3, "start", 1.0), step(3, "start", 1.0)]) == 1
    assert counts(database) == (2, 2)


def test_ids_may_come_late(database: Database) -> None:
    """On PostgreSQL ids are given before commit: a smaller one may become visible after a greater one."""
    insert_outbox(database, [lifecycle(10, "pending", "staging")])
    assert insert_outbox(database, [lifecycle(9, "", "pending")]) == 1
    assert counts(database) == (2, 0)


def test_odd_payload_does_not_stop_the_rest(database: Database) -> None:
    odd = lifecycle(1, "pending", "running")
    odd["payload"].update(cpu="many", error={"code": "host-fault", "message": "disk"}, extra=[1, {"a": None}])
    assert insert_outbox(database, [odd, lifecycle(2, "running", "stopped")]) == 2
    with database.read() as cursor:
        row = rows_of(cursor, "SELECT cpu, error, payload ->> 'cpu' AS said FROM events WHERE outbox_id = 1")[0]
    assert row == {"cpu": None, "error": "host-fault: disk", "said": "many"}


def test_nothing_is_written_when_one_part_fails(database: Database) -> None:
    bad = step(2, "define", 0.5)
    bad["at"] = "not a time"
    with pytest.raises(ValueError, match="not a time"):
        insert_outbox(database, [lifecycle(1, "pending", "staging"), bad])
    assert counts(database) == (0, 0)


def test_usage_needs_the_right_fields() -> None:
    with pytest.raises(Invalid, match="usage"):
        usage_table([{"host": "h1"}])
    with pytest.raises(Invalid, match="usage"):
        usage_table([sample("h1", AT, cpus="many")])


KEEP = (7, 31, 400)


def test_roll_up_keeps_what_the_hours_say(database: Database) -> None:
    now = datetime.now(UTC)
    old = (now - timedelta(days=9)).replace(hour=5, minute=5, second=0)
    rows = [sample("h1", old + timedelta(minutes=m), cpu_used=used) for m, used in ((0, 1.0), (10, 3.0), (20, None))]
    fresh = [sample("h1", now, cpu_used=2.0)]
    insert_usage(database, usage_table([*rows, *fresh]))
    query = "SELECT samples, cpu_used_avg, cpu_used_max, memory_used_mib_avg FROM usage_hourly ORDER BY hour_at"
    before = read(database, query)
    assert roll_up(database, now, KEEP) == 3
    assert roll_up(database, now, KEEP) == 0
    assert read(database, query) == before
    assert read(database, "SELECT count(*) AS n FROM usage") == [{"n": 1}]
    assert before[0] == {"samples": 3, "cpu_used_avg": 2.0, "cpu_used_max": 3.0, "memory_used_mib_avg": 1024.0}
    insert_usage(database, usage_table(rows[:2]))  # samples that come late
    roll_up(database, now, KEEP)
    assert read(database, query)[0]["samples"] == 5


def test_samples_grow_coarser_with_age_and_are_never_lost(database: Database) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    insert_usage(database, usage_table([
        sample("h1", start + timedelta(minutes=m), cpu_used=float(m % 4), instance_id=instance)
        for m in range(3 * 1440) for instance in (None, "i1")
    ]))  # fmt: skip
    figures = "sum(samples)::BIGINT AS n, max(cpu_used_max) AS top, round(avg(cpu_used_avg), 6) AS mean"
    whole = f"SELECT {figures} FROM usage_daily"
    before = read(database, whole)
    assert before == [{"n": 2 * 3 * 1440, "top": 3.0, "mean": 1.5}]
    days = {8: "usage_5min", 32: "usage_hour", 401: "usage_day"}
    for age, table in days.items():
        roll_up(database, start + timedelta(days=3 + age), KEEP)
        there = ("usage", *days.values())
        counts = {name: read(database, f"SELECT count(*) AS n FROM {name}")[0]["n"] for name in there}
        rows = {"usage_5min": 288, "usage_hour": 24, "usage_day": 1}[table] * 2 * 3
        assert counts == {name: rows if name == table else 0 for name in counts}
        assert read(database, whole) == before


def test_allocation_keeps_the_last_of_an_hour_then_of_a_day(database: Database) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    row = {"noun": "cluster", "name": "c", "host": None, "cluster": "c", "resource": "cpu", "total": 10.0}
    insert_allocation(database, [{**row, "sampled_at": start + timedelta(minutes=5 * n), "used": float(n)}
                                 for n in range(2 * 288)])  # fmt: skip
    query = "SELECT used FROM allocation ORDER BY sampled_at"
    roll_up(database, start + timedelta(days=9), KEEP)
    assert [row["used"] for row in read(database, query)] == list(range(11, 576, 12))
    roll_up(database, start + timedelta(days=402), KEEP)
    assert [row["used"] for row in read(database, query)] == [287, 575]


def test_a_file_of_before_is_opened(tmp_path: Path) -> None:
    """usage_rollup and its hour_at were the names of usage_hour and began_at."""
    with duckdb.connect(str(tmp_path / "old.duckdb")) as old:
        old.execute("CREATE TABLE usage_rollup (hour_at TIMESTAMPTZ NOT NULL, host VARCHAR, instance_id VARCHAR, "
                    "samples BIGINT, cpus DOUBLE, cpu_used_avg DOUBLE, cpu_used_max DOUBLE, memory_mib BIGINT, "
                    "memory_used_mib_avg DOUBLE, memory_used_mib_max BIGINT, disk_total_mib BIGINT, "
                    "disk_free_mib_min BIGINT)")  # fmt: skip
        old.execute("INSERT INTO usage_rollup (hour_at, host, samples) VALUES ('2026-01-01 00:00:00+00', 'h1', 60)")
    for _ in range(2):
        opened = Database(tmp_path / "old.duckdb", Limits(memory_mib=64))
        assert read(opened, "SELECT host, samples FROM usage_hourly") == [{"host": "h1", "samples": 60}]
        opened.close()


def test_one_owner_only(database: Database, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = ("import sys; from pathlib import Path; from analytics.database import Database, Limits; "
            f"Database(Path({str(tmp_path / 'history.duckdb')!r}), Limits())")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert Conflict.__name__ in done.stderr
    assert "another process" in done.stderr


def test_reopened_file_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "again.duckdb"
    first = Database(path, Limits(memory_mib=64))
    insert_outbox(first, [lifecycle(1, "pending", "running")])
    first.close()
    second = Database(path, Limits(memory_mib=64))
    assert insert_outbox(second, [lifecycle(1, "pending", "running")]) == 0
    assert counts(second) == (1, 0)
    second.close()
