"""One condition for many values: what a database takes them as, so that a statement is the same however many they are.

SQLite and PostgreSQL get all values as one parameter, a JSON text or an array; MySQL and MariaDB get a list, in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

PARAMETER = "among"
CHUNK = 1000  # values in one IN list; every database takes more, but plans stay short
_WHOLE = ("sqlite", "postgresql")


class _Json(sa.types.TypeDecorator[Any]):
    """Values as a JSON text."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str:
        return orjson.dumps(list(value)).decode()


class _Among(FunctionElement[Any]):
    name = "among"
    inherit_cache = True


def _in_list(column: Any) -> sa.ColumnElement[Any]:
    return column.in_(sa.bindparam(PARAMETER, expanding=True, type_=column.type))  # type: ignore[no-any-return]


def _in_json(column: Any) -> sa.ColumnElement[Any]:
    given = sa.func.json_each(sa.bindparam(PARAMETER, type_=_Json)).table_valued("value")
    return column.in_(sa.select(given.c.value))  # type: ignore[no-any-return]


def _in_array(column: Any) -> sa.ColumnElement[Any]:
    return column == sa.any_(sa.bindparam(PARAMETER, type_=sa.ARRAY(column.type)))  # type: ignore[no-any-return]


def _said_as(condition: Callable[[Any], sa.ColumnElement[Any]]) -> Callable[..., str]:
    def text(element: _Among, compiler: sa.sql.compiler.SQLCompiler, **how: Any) -> str:
        (column,) = element.clauses
        return compiler.process(condition(column), **how)

    return text


compiles(_Among)(_said_as(_in_list))
compiles(_Among, "sqlite")(_said_as(_in_json))
compiles(_Among, "postgresql")(_said_as(_in_array))


def among(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of the values of the parameter "among", a list."""
    return _Among(column)


def parts(dialect: str, values: Collection[Any]) -> Iterator[list[Any]]:
    """Yield values as often as a statement with `among` has to be run for all of them; nothing for none."""
    listed = list(values)
    size = len(listed) if dialect in _WHOLE else CHUNK
    for start in range(0, len(listed), max(size, 1)):
        yield listed[start : start + size]
