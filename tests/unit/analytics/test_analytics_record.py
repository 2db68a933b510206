"""Inserting: outbox rows once each, samples, rolling up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analytics.database import Database, Limits, rows_of
from analytics.record import insert_outbox, insert_usage, usage_table
from analytics.retention import roll_up
from core.errors import Conflict, Invalid
from tests.unit.analytics.rows import AT, lifecycle, sample, step


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


def test_roll_up_keeps_the_hours(database: Database) -> None:
    now = datetime.now(UTC)
    old = (now - timedelta(days=9)).replace(minute=5)
    rows = [sample("h1", old + timedelta(minutes=m), cpu_used=used) for m, used in ((0, 1.0), (10, 3.0), (20, None))]
    fresh = [sample("h1", now, cpu_used=2.0)]
    insert_usage(database, usage_table([*rows, *fresh]))
    query = "SELECT samples, cpu_used_avg, cpu_used_max, memory_used_mib_avg FROM usage_hourly ORDER BY hour_at"
    with database.read() as cursor:
        before = rows_of(cursor, query)
    assert roll_up(database, now, keep_days=7) == 3
    assert roll_up(database, now, keep_days=7) == 0
    with database.read() as cursor:
        assert rows_of(cursor, query) == before
        assert rows_of(cursor, "SELECT count(*) AS n FROM usage") == [{"n": 1}]
    assert before[0] == {"samples": 3, "cpu_used_avg": 2.0, "cpu_used_max": 3.0, "memory_used_mib_avg": 1024.0}
    insert_usage(database, usage_table(rows[:2]))  # samples that come late
    roll_up(database, now, keep_days=7)
    with database.read() as cursor:
        assert rows_of(cursor, query)[0]["samples"] == 5


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
