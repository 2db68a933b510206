"""The DuckDB file: opened once, locked down, one writer at a time, a cursor for each reader.

The limits hold for everything in the process: https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from core.errors import Conflict, HostFault

SCHEMA = tuple(Path(__file__).with_name(name) for name in ("schema.sql", "learned.sql"))


@dataclass(frozen=True)
class Limits:
    """What the history may take of the machine. Times in seconds."""

    memory_mib: int = 512  # DuckDB's buffers; see also owner.limit_process_memory
    temp_mib: int = 2048  # spilled to disk by large sorts and joins
    threads: int = 2
    query_s: float = 10.0
    query_slots: int = 2  # queries of people at one time
    result_bytes: int = 2**24
    keep_days: tuple[int, int, int] = (7, 31, 400)  # usage as sampled, by 5 minutes, by hour; by day for ever


class Database:
    """The open file. Raise Conflict if another process has it open."""

    def __init__(self, path: Path, limits: Limits) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._root = duckdb.connect(str(path), config={
                "memory_limit": f"{limits.memory_mib}MiB", "threads": limits.threads,
                "temp_directory": f"{path}.tmp", "max_temp_directory_size": f"{limits.temp_mib}MiB",
            })  # fmt: skip
        except duckdb.IOException as error:
            raise _not_opened(path, error) from error
        for file in SCHEMA:
            self._root.execute(file.read_text())
        # No files, no network, no Python variables as tables, and no way back: configuration is locked.
        self._root.execute(
            "SET GLOBAL TimeZone = 'UTC'; SET python_enable_replacements = false;"
            "SET enable_external_access = false; SET lock_configuration = true"
        )
        self._writer = self._root.cursor()

    @contextlib.contextmanager
    def write(self) -> Iterator[Any]:
        """Yield the writing cursor inside a transaction; one at a time. Raise HostFault (disk full, …)."""
        with self._lock:
            try:
                self._writer.execute("BEGIN")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(duckdb.Error):
                    self._writer.execute("ROLLBACK")
                if isinstance(error, duckdb.Error):
                    raise _not_written(error) from error
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Any]:
        """Yield a cursor of its own inside a read-only transaction."""
        cursor = self._root.cursor()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            yield cursor
        finally:
            cursor.close()

    def checkpoint(self) -> None:
        """Bring the write-ahead log into the file."""
        with self._lock:
            self._writer.execute("CHECKPOINT")

    def close(self) -> None:
        """Checkpoint and give the file free."""
        with self._lock:
            self._writer.close()
            self._root.close()


def rows_of(cursor: Any, sql: str, parameters: list[Any] | dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Run SQL of our own and return rows by column name."""
    cursor.execute(sql, parameters or [])
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _not_written(error: duckdb.Error) -> HostFault:
    seen = {"duckdb": f"{type(error).__name__}: {error}"[:500]}
    return HostFault("the history could not be written", "analytics", seen, "see whether the disk is full")


def _not_opened(path: Path, error: Exception) -> Conflict | HostFault:
    seen = {"file": str(path), "duckdb": str(error)}
    if "lock" in str(error).lower():
        return Conflict("the history is open in another process", f"file/{path}", seen, "stop the other rackflow")
    return HostFault(f"the history cannot be opened: {error}", f"file/{path}", seen, "look at the disk and the file")
