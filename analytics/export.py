"""Give recorded tables away as Arrow batches, for Parquet files that any tool can read.

DuckDB's own COPY is out of reach: the database has no access to files, and its configuration is locked (database.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from analytics.database import Database
from analytics.retention import RECORDED
from core.errors import NotFound

_BATCH_ROWS = 100_000


def columns(database: Database, table: str) -> pa.Schema:
    """Return the columns of a recorded table. Raise NotFound for any other."""
    if table not in RECORDED:
        raise NotFound(f"there is no table {table} to export", f"table/{table}", {"tables": list(RECORDED)})
    with database.read() as cursor:
        return cursor.sql(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema


def stream(database: Database, table: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a recorded table as they are at one moment, some at a time."""
    with database.read() as cursor:
        yield from cursor.sql(f"SELECT * FROM {table}").to_arrow_reader(_BATCH_ROWS)
