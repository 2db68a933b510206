"""SQL from outside: what passes, and all that must not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.database import Database, Limits
from analytics.query import Queries
from analytics.record import insert_outbox
from core.errors import Invalid
from tests.unit.analytics.rows import lifecycle

GOOD = [
    "SELECT 1",
    "select * from events; ",
    "FROM steps",
    "VALUES (1), (2)",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a -- a remark",
    "SHOW TABLES",
    "DESCRIBE events",
    "SELECT * FROM generate_series(1, 3)",
    "SELECT host, quantile_cont(cpu_used, 0.95) OVER (PARTITION BY host) FROM usage",
    "SELECT payload ->> 'to' FROM events",
    "SELECT list_transform([1, 2], lambda x: x + 1)",
    "SELECT * FROM (SELECT 1 UNION ALL SELECT 2) AS t(a) ORDER BY a",
]

HOSTILE = [
    "", "-- nothing", "SELECT", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE events",
    "CREATE TABLE x (a INT)", "CREATE TEMP TABLE x (a INT)", "CREATE MACRO f() AS 1", "CREATE SECRET s (TYPE s3)",
    "INSERT INTO events SELECT * FROM events", "UPDATE events SET host = 'x'", "DELETE FROM events", "TRUNCATE events",
    "DROP TABLE events", "ALTER TABLE events ADD COLUMN x INT", "MERGE INTO usage USING usage u ON false WHEN NOT "
    "MATCHED THEN INSERT VALUES (now(), 'x', NULL, 1, 1, 1, 1, 1, 1)",
    "WITH x AS (INSERT INTO usage (host) VALUES ('x') RETURNING host) SELECT * FROM x",
    "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE events SET host = 'x' RETURNING *) SELECT * FROM x",
    "SELECT * FROM (WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x)",
    "COPY events TO '/tmp/rackflow-hostile.csv'", "COPY (SELECT 1) TO '/tmp/rackflow-hostile.csv'",
    "COPY events FROM '/etc/passwd'", "EXPORT DATABASE '/tmp/rackflow-hostile'", "IMPORT DATABASE '/tmp'",
    "ATTACH '/tmp/rackflow-hostile.duckdb' AS h", "DETACH history", "USE memory",
    "INSTALL httpfs", "LOAD httpfs", "INSTALL '/tmp/x.duckdb_extension'",
    "PRAGMA database_size", "PRAGMA memory_limit='64GB'", "SET memory_limit = '64GB'", "RESET memory_limit",
    "SET enable_external_access = true", "SET VARIABLE a = 1", "CALL pragma_version()",
    "CHECKPOINT", "VACUUM", "ANALYZE",
    "BEGIN", "COMMIT", "PREPARE p AS SELECT 1", "EXECUTE p", "EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'", "SELECT * FROM '/etc/passwd.csv'",
    "SELECT * FROM read_text('/etc/shadow')", "SELECT * FROM read_blob('/etc/shadow')", "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_json('/etc/passwd')", "SELECT * FROM read_parquet('http://127.0.0.1:1/x')",
    "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM read_duckdb('/tmp/x')", "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('events')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT * FROM checkpoint()", "SELECT * FROM force_checkpoint()", "SELECT * FROM enable_logging()",
    "SELECT * FROM enable_profiling()", "SELECT * FROM truncate_duckdb_logs()", "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM import_database('/tmp')", "SELECT getenv('PATH')", "SELECT write_log('x')", "SELECT nextval('s')",
    "SELECT * FROM sample_rows",
]  # fmt: skip

GREEDY = [
    "SELECT length(repeat('x', 2000000000))",
    "SELECT 'x'.repeat(2000000000)",
    "SELECT len(range(400000000))",
    "SELECT len(list_resize([1], 1000000000))",
    "SELECT rpad('x', 2000000000, 'y')",
    "SELECT levenshtein(a.subject, b.subject) FROM events a, events b",
    "SELECT unnest(generate_series(1, 1000000000))",
]

ENDLESS = [
    "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r) SELECT count(*) FROM r",
    "SELECT count(*) FROM range(10000000) a, range(10000000) b, range(10000000) c",
]

HUNGRY = [
    "SELECT sum(a.range * b.range) FROM range(10000000) a JOIN range(10000000) b ON a.range % 7 = b.range % 7",
    "SELECT list(range) FROM range(500000000)",
    "SELECT string_agg(range::VARCHAR, ',') FROM range(300000000)",
    "SELECT count(DISTINCT range) FROM range(10000000000)",
]


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queries]:
    limits = Limits(memory_mib=64, temp_mib=32, query_s=0.7)
    database = Database(tmp_path_factory.mktemp("guard") / "history.duckdb", limits)
    insert_outbox(database, [lifecycle(n, "pending", "running") for n in range(50)])
    yield Queries(database, limits)
    with database.read() as cursor:  # after all of it, nothing has changed
        cursor.execute("SELECT count(*), count(DISTINCT host) FROM events")
        assert cursor.fetchall() == [(50, 1)]
    database.close()


@pytest.mark.parametrize("sql", GOOD)
def test_select_passes(queries: Queries, sql: str) -> None:
    assert queries.run(sql)["columns"]


@pytest.mark.parametrize("sql", [*HOSTILE, *GREEDY])
def test_hostile_is_refused(queries: Queries, sql: str) -> None:
    sample_rows = [[1]]  # a Python variable must not be found as a table
    with pytest.raises(Invalid):
        queries.run(sql)
    assert sample_rows
    assert not list(Path("/tmp").glob("rackflow-hostile*"))


@pytest.mark.parametrize("sql", ENDLESS)
def test_endless_is_ended(queries: Queries, sql: str) -> None:
    started = time.perf_counter()
    with pytest.raises(Invalid, match="took longer"):
        queries.run(sql)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("sql", HUNGRY)
def test_hungry_is_refused(queries: Queries, sql: str) -> None:
    with pytest.raises(Invalid, match=r"memory|longer"):
        queries.run(sql)


def test_rows_are_limited(queries: Queries) -> None:
    answer = queries.run("SELECT * FROM range(10000000000)", limit=7)
    assert [row[0] for row in answer["rows"]] == list(range(7))
    assert answer["truncated"]
    assert not queries.run("SELECT * FROM range(7)", limit=7)["truncated"]


@pytest.mark.parametrize("limit", [0, -1, 10**9])
def test_limit_out_of_bounds(queries: Queries, limit: int) -> None:
    with pytest.raises(Invalid, match="limit"):
        queries.run("SELECT 1", limit=limit)


def test_process_memory_is_bounded(tmp_path: Path) -> None:
    """What memory_limit does not count is refused by the kernel, and the owner lives on."""
    script = f"""
from pathlib import Path
from analytics.database import Database, Limits
from analytics.owner import limit_process_memory
from analytics.query import Queries
from core.errors import Invalid
limits = Limits(memory_mib=64)
database = Database(Path({str(tmp_path / "h.duckdb")!r}), limits)
limit_process_memory(600)
big = "SELECT length(format('{{:>1500000000}}', 'x'))"
try:
    Queries(database, limits).run(big)
except Invalid as error:
    print("refused:", error.message)
print(Queries(database, limits).run("SELECT 42")["rows"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "refused: the query needs more memory" in done.stdout
    assert "[[42]]" in done.stdout


def test_deep_nesting_is_answered(queries: Queries) -> None:
    with pytest.raises(Invalid):
        queries.run("SELECT " + "(" * 20_000 + "1" + ")" * 20_000)
