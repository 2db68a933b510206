"""Many rows by one statement, without what SQLAlchemy does for each of them; the values are converted as it would.

A statement is compiled once per dialect; its values are converted column by column, equal ones that follow each other
once; then the driver gets them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

_Convert = Callable[[Any], Any] | None


def run(c: sa.Connection, statement: sa.Insert | sa.Update, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run a statement with bound values once for each row; all rows have the same keys, and nothing is returned."""
    text, columns, positional = _compiled(c.dialect, statement, tuple(rows[0]))
    converted = [_column([row[name] for row in rows], convert) for name, convert in columns]
    values = list(zip(*converted, strict=True))
    if positional:
        c.exec_driver_sql(text, values)
    else:
        names = [name for name, _ in columns]
        c.exec_driver_sql(text, [dict(zip(names, one, strict=True)) for one in values])


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


def _column(values: list[Any], convert: _Convert) -> list[Any]:
    if convert is None:
        return values
    found: list[Any] = []
    before: Any = values  # which is none of them
    for value in values:
        if value is not before:
            before, last = value, convert(value)
        found.append(last)
    return found
