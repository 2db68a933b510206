"""Run a query from outside within limits, and turn its values into JSON."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb

from analytics.database import Database, Limits
from analytics.guard import FIX, check
from core.clock import rfc3339
from core.errors import Busy, Invalid, RackflowError

ROWS_MAX = 100_000
_CHUNK = 500

_JSON: dict[type, Callable[[Any], Any]] = {
    datetime: rfc3339, date: date.isoformat, clock_time: clock_time.isoformat, timedelta: timedelta.total_seconds,
    Decimal: lambda d: int(d) if d == d.to_integral_value() else float(d), UUID: str, bytes: bytes.hex,
    float: lambda f: f if math.isfinite(f) else None,
    list: lambda items: [to_json(item) for item in items], tuple: lambda items: [to_json(item) for item in items],
    dict: lambda found: {str(key): to_json(value) for key, value in found.items()},
}  # fmt: skip


def to_json(value: Any) -> Any:
    """Return a value of DuckDB as JSON knows it: times as RFC 3339, intervals in seconds, NaN as null."""
    convert = _JSON.get(type(value))
    if convert is not None:
        return convert(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


class Queries:
    """Runs queries, few at a time, each with a deadline."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._slots = threading.BoundedSemaphore(limits.query_slots)
        self._running: set[Any] = set()

    def run(self, sql: str, limit: int = 1000) -> dict[str, Any]:
        """Return {"columns": names, "types", "rows": [[…]], "truncated", "duration_s"}. Raise Invalid, Busy."""
        if not 1 <= limit <= ROWS_MAX:
            raise Invalid(f"limit must lie between 1 and {ROWS_MAX}, not {limit}", "query")
        if not self._slots.acquire(timeout=self._limits.query_s):
            raise Busy("other queries are still running", "query", fix="try again in a moment")
        try:
            with self._database.read() as cursor:
                return self._bounded(cursor, check(cursor, sql), limit)
        finally:
            self._slots.release()

    def interrupt(self) -> None:
        """End all that run, for a quick stop."""
        for cursor in list(self._running):
            _interrupt(cursor)

    def _bounded(self, cursor: Any, sql: str, limit: int) -> dict[str, Any]:
        started = time.perf_counter()
        timer = threading.Timer(self._limits.query_s, _interrupt, [cursor])
        timer.start()
        self._running.add(cursor)
        try:
            cursor.execute(sql)
            columns = [(str(name), str(kind)) for name, kind, *_ in cursor.description]
            rows, truncated = self._fetch(cursor, limit)
        except duckdb.Error as error:
            raise self._refusal(error) from error
        finally:
            timer.cancel()
            self._running.discard(cursor)
        return {"columns": [name for name, _ in columns], "types": [kind for _, kind in columns],
                "rows": rows, "truncated": truncated,
                "duration_s": round(time.perf_counter() - started, 4)}  # fmt: skip

    def _fetch(self, cursor: Any, limit: int) -> tuple[list[list[Any]], bool]:
        rows: list[list[Any]] = []
        size = 0
        while size <= self._limits.result_bytes:
            chunk = [[to_json(value) for value in row] for row in cursor.fetchmany(min(_CHUNK, limit + 1 - len(rows)))]
            rows += chunk
            size += len(json.dumps(chunk))
            if len(rows) > limit or not chunk:
                return rows[:limit], len(rows) > limit
        return rows[: max(1, len(rows) - len(chunk))], True

    def _refusal(self, error: duckdb.Error) -> RackflowError:
        if isinstance(error, duckdb.InterruptException):
            message = f"the query took longer than {self._limits.query_s:g} s"
            return Invalid(message, "query", {"limit_s": self._limits.query_s}, "ask for less, for example fewer days")
        if isinstance(error, duckdb.OutOfMemoryException):
            message = f"the query needs more memory than {self._limits.memory_mib} MiB"
            return Invalid(message, "query", {"duckdb": str(error)[:500]}, "ask for less, for example fewer days")
        return Invalid(f"the query failed: {str(error)[:2000]}", "query", fix=FIX)


def _interrupt(cursor: Any) -> None:
    with suppress(duckdb.Error):  # it may just have ended
        cursor.interrupt()
