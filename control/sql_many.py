"""Many rows by few statements, without what SQLAlchemy does for each of them; the values are converted as it would.

Values come and are converted column by column, equal ones that follow each other once; then the driver gets them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import orjson
import sqlalchemy as sa

Columns = Mapping[str, Sequence[Any]]  # by name, all of one length
_Convert = Callable[[Any], Any] | None
_KEY = "k_key"
_FEW = 8  # rows that are updated one by one


def insert(c: sa.Connection, table: sa.Table, columns: Columns) -> None:
    """Insert rows; there is at least one."""
    statement = _insert(table)
    text, order, positional = _compiled(c.dialect, statement, tuple(columns))
    converted = [_column(columns[name], convert) for name, convert in order]
    _run(c, text, [name for name, _ in order], converted, positional)


def update(c: sa.Connection, table: sa.Table, key: str, columns: Columns) -> None:
    """Give rows that are found by a key column, each once, values of their own; there is at least one."""
    names = tuple(name for name in columns if name != key)
    if c.dialect.name == "sqlite" and len(columns[key]) > _FEW and _is_plain(table, (key, *names)):
        _update_joined(c, table, key, names, columns)
        return
    statement = _update(table, key, names)
    text, order, positional = _compiled(c.dialect, statement, ())
    given = {key if name == _KEY else name.removeprefix("v_"): (name, convert) for name, convert in order}
    converted = [_column(columns[name], convert) for name, (_, convert) in given.items()]
    _run(c, text, [name for name, _ in order], converted, positional)


def _run(c: sa.Connection, text: str, names: list[str], columns: list[Sequence[Any]], positional: bool) -> None:
    rows = zip(*columns, strict=True)
    if positional:
        c.exec_driver_sql(text, list(rows))
    else:
        c.exec_driver_sql(text, [dict(zip(names, one, strict=True)) for one in rows])


def _update_joined(c: sa.Connection, table: sa.Table, key: str, names: tuple[str, ...], columns: Columns) -> None:
    """Update from a list of values in SQLite, which comes as one JSON text; what all rows get comes once, beside it.

    It keeps a copy of each page that a statement changes when that may break a foreign key: one statement for each
    row takes four times as long, and one that has each value as a parameter a third longer (measured for 20,000
    instances).
    """
    found = {name: _column(columns[name], _bind(c.dialect, table, name)) for name in (key, *names)}
    same = tuple(name for name in names if found[name].count(found[name][0]) == len(found[name]))
    own = tuple(name for name in names if name not in same)
    rows = zip(found[key], *(found[name] for name in own), strict=True)
    text = orjson.dumps(list(rows)).decode()
    c.exec_driver_sql(_joined(table, key, same, own), (*(found[name][0] for name in same), text))


@cache
def _joined(table: sa.Table, key: str, same: tuple[str, ...], own: tuple[str, ...]) -> str:
    """Return the statement. same: columns of one value for all rows; own: those that the lists have, after the key."""
    places = [f'"{name}" = ?' for name in same] + [f'"{name}" = given.value ->> {n}' for n, name in enumerate(own, 1)]
    return (
        f'UPDATE "{table.name}" SET {", ".join(places)} FROM json_each(?) AS given '
        f'WHERE "{table.name}"."{key}" = given.value ->> 0'
    )


@cache
def _is_plain(table: sa.Table, names: tuple[str, ...]) -> bool:
    """Say whether values come out of a JSON text in SQLite as they went in: of floats it may lose the last bit."""
    return not any(isinstance(table.c[name].type, sa.Float | sa.LargeBinary) for name in names)


@lru_cache(maxsize=256)
def _bind(dialect: sa.Dialect, table: sa.Table, name: str) -> _Convert:
    return table.c[name].type.dialect_impl(dialect).bind_processor(dialect)


@cache
def _insert(table: sa.Table) -> sa.Insert:
    return sa.insert(table)


@cache
def _update(table: sa.Table, key: str, names: tuple[str, ...]) -> sa.Update:
    columns = {name: sa.bindparam(f"v_{name}", type_=table.c[name].type) for name in names}
    return sa.update(table).where(table.c[key] == sa.bindparam(_KEY)).values(columns)


@lru_cache(maxsize=256)
def _compiled(
    dialect: sa.Dialect, statement: sa.Insert | sa.Update, names: tuple[str, ...]
) -> tuple[str, list[tuple[str, _Convert]], bool]:
    """Return the text, and for each value in its order the name and what converts it."""
    keys = list(names) if isinstance(statement, sa.Insert) else None
    found = statement.compile(dialect=dialect, column_keys=keys)
    order = list(found.positiontup or found.binds)
    types = {name: found.binds[name].type.dialect_impl(dialect) for name in order}
    return str(found), [(name, types[name].bind_processor(dialect)) for name in order], found.positional


def _column(values: Sequence[Any], convert: _Convert) -> Sequence[Any]:
    if convert is None:
        return values
    found: list[Any] = []
    before: Any = values  # which is none of them
    for value in values:
        if value is not before:
            before, last = value, convert(value)
        found.append(last)
    return found
