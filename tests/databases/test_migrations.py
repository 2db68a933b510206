"""Migrations lead to exactly the tables of control/tables.py, and away from them again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from control.store import Store
from control.tables import metadata


def _differences(c: sa.Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(c, opts={"compare_type": True}), metadata))


def _tables(c: sa.Connection) -> set[str]:
    return set(sa.inspect(c).get_table_names())


def test_up_gives_the_tables_and_down_takes_them_away(empty_url: str, opened: Callable[[str], Store]) -> None:
    store = opened(empty_url)
    store.migrate()
    assert _tables_of(store) == {*metadata.tables, "alembic_version"}
    assert store.read_now(_differences) == []
    store.migrate()  # nothing to do
    store.migrate("base")
    assert _tables_of(store) == {"alembic_version"}
    store.migrate()
    assert store.read_now(_differences) == []


def _tables_of(store: Store) -> set[str]:
    return store.read_now(_tables)


def test_names_are_told_apart_by_case(store: Store) -> None:
    """MySQL and MariaDB compare without case by default; keys and names must not."""
    t = metadata.tables["worker"]
    at = sa.func.current_timestamp()
    store.write_now(lambda c: c.execute(sa.insert(t).values(id="a", label="x", expires_at=at)))
    store.write_now(lambda c: c.execute(sa.insert(t).values(id="A", label="x", expires_at=at)))
    assert store.read_now(lambda c: c.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()) == 2


@pytest.mark.parametrize("value", [0.1, 1.1, 1e-3, 123456.789])
def test_numbers_come_back_as_they_were(store: Store, value: float) -> None:
    """FLOAT in MySQL and MariaDB holds seven digits only; cores and factors need more."""
    t = metadata.tables["account"]
    row = {"id": "u", "name": "u", "role": "user", "max_cpu": value, "created_at": sa.func.current_timestamp()}
    store.write_now(lambda c: c.execute(sa.insert(t).values(row)))
    assert store.read_now(lambda c: c.execute(sa.select(t.c.max_cpu)).scalar_one()) == value
