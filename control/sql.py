"""Small helpers over SQLAlchemy Core: batches, upserts, the database's clock. Nothing here knows a noun."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from control import sql_many
from control.sql_among import CHUNK, PARAMETER, among, parts
from control.tables import UtcDateTime
from core.clock import now

__all__ = [
    "CHUNK", "PARAMETER", "LostRace", "among", "chunks", "db_now", "fetch_among", "fetch_in", "insert",
    "insert_columns", "parts", "run_among", "run_in", "tuples_among", "update_columns", "update_each", "upsert",
]  # fmt: skip

T = TypeVar("T")
Rows = Sequence[sa.RowMapping]

_CLOCKS: dict[str, str] = {
    "postgresql": "timezone('utc', clock_timestamp())",
    "mysql": "utc_timestamp(6)",
    "mariadb": "utc_timestamp(6)",
}


def db_now(c: sa.Connection) -> datetime:
    """Return the database's clock, aware, in UTC. SQLite has none of its own: it is this machine's."""
    clock = _CLOCKS.get(c.dialect.name)
    if clock is None:
        return now()
    return c.execute(sa.select(sa.literal_column(clock, UtcDateTime()))).scalar_one()


def chunks(items: Collection[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield lists of at most size items; nothing for an empty collection."""
    listed = list(items)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]


class LostRace(Exception):
    """Somebody else was faster: the store rolls back and tries again."""


def fetch_among(c: sa.Connection, values: Collection[Any], statement: sa.Select[Any]) -> list[sa.RowMapping]:
    """Run a select with `among` in it for all values and return all rows.

    For what is asked often: to build a statement each time takes longer than to run it.
    """
    rows: list[sa.RowMapping] = []
    for part in parts(c.dialect.name, values):
        rows.extend(c.execute(statement, {PARAMETER: part}).mappings().all())
    return rows


def tuples_among(
    c: sa.Connection, values: Collection[Any], statement: sa.Select[Any]
) -> list[Sequence[Any]]:
    """Do as `fetch_among`, but return tuples: for many rows, whose values are taken by their places.

    Values may repeat. Those that follow each other are asked for together: what stands side by side is found sooner.
    Ids mostly come in their order, which is sorted at once: a set would have lost it.
    """
    rows: list[Sequence[Any]] = []
    for part in parts(c.dialect.name, sorted(dict.fromkeys(values))):
        rows.extend(c.execute(statement, {PARAMETER: part}).all())
    return rows


def run_among(c: sa.Connection, values: Collection[Any], statement: sa.Update | sa.Delete) -> None:
    """Run an update or delete with `among` in it for all values."""
    for part in parts(c.dialect.name, values):
        c.execute(statement, {PARAMETER: part})


def fetch_in(
    c: sa.Connection, values: Collection[Any], build: Callable[[list[Any]], sa.Select[Any]]
) -> list[sa.RowMapping]:
    """Run a select once per chunk of values and return all rows; build(values) gives the select."""
    rows: list[sa.RowMapping] = []
    for part in chunks(values):
        rows.extend(c.execute(build(part)).mappings().all())
    return rows


def run_in(c: sa.Connection, values: Collection[Any], build: Callable[[list[Any]], Any]) -> int:
    """Run an update or delete once per chunk of values and return the number of rows it met."""
    return sum(c.execute(build(part)).rowcount for part in chunks(values))


def insert(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all with the same keys, in one go."""
    if rows:
        sql_many.insert(c, table, _columns(rows))


def insert_columns(c: sa.Connection, table: sa.Table, columns: sql_many.Columns) -> None:
    """Insert rows that are given column by column."""
    if len(next(iter(columns.values()))):
        sql_many.insert(c, table, columns)


def update_each(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], key: str = "id") -> None:
    """Give each row, found by its key, values of its own; all rows have the same keys, and the last one counts."""
    if rows:
        sql_many.update(c, table, key, _columns(list({row[key]: row for row in rows}.values())))


def update_columns(c: sa.Connection, table: sa.Table, columns: sql_many.Columns, key: str = "id") -> None:
    """Do as `update_each` with values that are given column by column; no key is there twice."""
    if len(columns[key]):
        sql_many.update(c, table, key, columns)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def upsert(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, or give the row with the same primary key these values; all rows have the same keys."""
    if not rows:
        return
    c.execute(_upsert(c.dialect.name, table, tuple(rows[0])), [dict(row) for row in rows])


@cache
def _upsert(dialect: str, table: sa.Table, names: tuple[str, ...]) -> sa.Executable:
    keys = [column.name for column in table.primary_key.columns]
    others = [name for name in names if name not in keys]
    if dialect in ("mysql", "mariadb"):
        into = mysql.insert(table)
        return into.on_duplicate_key_update({name: into.inserted[name] for name in others})
    if dialect == "postgresql":
        pg = postgresql.insert(table)
        return pg.on_conflict_do_update(index_elements=keys, set_={name: pg.excluded[name] for name in others})
    lite = sqlite.insert(table)
    return lite.on_conflict_do_update(index_elements=keys, set_={name: lite.excluded[name] for name in others})
