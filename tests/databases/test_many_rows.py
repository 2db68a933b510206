"""Many rows by few statements, on every database: what is written is what comes back, however many there are."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from control import hosts, placing_book, sleeping, sql, tables
from control.store import Store
from core.states import HostState
from tests.books import differences
from tests.rig import Rig

_T, MANY = tables.drift, 2500
_SOME = sa.select(_T.c.id, _T.c.host).where(sql.among(_T.c.id)).order_by(_T.c.id)


def _rows(count: int) -> list[dict[str, Any]]:
    at = datetime(2026, 11, 26, 12, 0, 0, 123456, UTC)
    return [
        {"id": f"{n:020}", "subject": f"instance/{n}", "host": f"h{n % 7}", "kind": "residue", "recorded": {"n": n},
         "seen": {}, "policy": "alert", "state": "open", "since_at": at, "closed_at": None}
        for n in range(count)
    ]  # fmt: skip


def _all(c: sa.Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in c.execute(sa.select(_T).order_by(_T.c.id)).mappings()]


@pytest.mark.parametrize("count", [1, 5, 9, MANY])
def test_each_row_gets_its_own_values(store: Store, count: int) -> None:
    rows, at = _rows(count), datetime(2026, 11, 27, tzinfo=UTC)
    want = [{**row, "host": f"x{n}", "recorded": {"m": [n]}, "closed_at": at if n % 2 else None}
            for n, row in enumerate(rows)]  # fmt: skip
    news = [{name: row[name] for name in ("closed_at", "id", "recorded", "host")} for row in want]
    stale = {**news[0], "host": "never"}  # the last one of a key counts

    def change(c: sa.Connection) -> None:
        sql.insert(c, _T, rows)
        sql.update_each(c, _T, [stale, *reversed(news)])

    store.write_now(change)
    assert store.read_now(_all) == want


@pytest.mark.parametrize("seen", [lambda n: {"n": 1}, lambda n: {"n": 1 if n % 2 else True}])
def test_all_rows_get_the_same_values(store: Store, seen: Callable[[int], Any]) -> None:
    at = datetime(2026, 11, 27, tzinfo=UTC)
    *rows, other = ({**row, "closed_at": at} for row in _rows(MANY))
    news = [{"id": row["id"], "seen": seen(n), "host": "x", "closed_at": None} for n, row in enumerate(rows)]

    def change(c: sa.Connection) -> None:
        sql.insert(c, _T, [*rows, other])
        sql.update_each(c, _T, news)

    store.write_now(change)
    found = store.read_now(_all)
    assert found == [*({**row, **new} for row, new in zip(rows, news, strict=True)), other]
    assert [type(row["seen"]["n"]) for row in found[:-1]] == [type(row["seen"]["n"]) for row in news]


def test_floats_come_back_to_the_last_bit(store: Store) -> None:
    figures = sa.Table(
        "figures", sa.MetaData(), sa.Column("id", sa.String(20), primary_key=True), sa.Column("value", sa.Double)
    )
    rng = random.Random(1)
    news = [{"id": f"{n:020}", "value": rng.random() * 10 ** rng.randint(-9, 9)} for n in range(MANY)]

    def change(c: sa.Connection) -> list[dict[str, Any]]:
        figures.create(c)
        sql.insert(c, figures, [{**row, "value": 0.0} for row in news])
        sql.update_each(c, figures, news)
        found = [dict(row) for row in c.execute(sa.select(figures).order_by(figures.c.id)).mappings()]
        figures.drop(c)
        return found

    assert store.write_now(change) == news


@pytest.mark.parametrize("count", [0, 1, MANY])
def test_all_values_are_found_and_no_others(store: Store, count: int) -> None:
    store.write_now(lambda c: sql.insert(c, _T, _rows(MANY + 50)))
    ids = [f"{n:020}" for n in range(50, 50 + count)]
    want = [(row["id"], row["host"]) for row in _rows(MANY + 50)[50 : 50 + count]]
    assert [tuple(row) for row in store.read_now(lambda c: sql.tuples_among(c, ids, _SOME))] == want
    assert [tuple(row) for row in store.read_now(lambda c: sql.tuples_among(c, [*ids, *ids], _SOME))] == want
    assert [tuple(row.values()) for row in store.read_now(lambda c: sql.fetch_among(c, ids, _SOME))] == want
    drop = sa.delete(_T).where(sql.among(_T.c.id))
    store.write_now(lambda c: sql.run_among(c, ids, drop))
    assert len(store.read_now(_all)) == MANY + 50 - count


def _book(c: sa.Connection) -> placing_book.Book:
    """Return what is kept; raise AssertionError unless it is what stands in the database."""
    kept = placing_book.read(c)
    assert differences(kept, placing_book.whole(c, kept.ids)) == {}
    return kept


def test_what_another_process_frees_is_seen(rig: Rig, url: str, opened: Callable[[str], Store]) -> None:
    other = opened(url)
    rig.network()
    rig.image()
    rig.host("h1")
    rig.host("h2")
    rig.deploy("web", cpu=1, memory=256)
    there = other.write_now(_book)
    assert there.held.instances.sum() == 1
    rig.delete("web")
    gone = other.write_now(_book)
    assert (gone.held.instances.sum(), gone.held.memory_mib.sum()) == (0, 0)
    assert sum(a != b for a, b in zip(there.marks, gone.marks, strict=True)) == 1
    assert gone.columns["labels"] is there.columns["labels"]  # what did not change was not made again
    rig.run(lambda c: hosts.set_state(c, gone.ids[0], HostState.DISABLED))
    assert "disabled" in other.write_now(_book).columns["states"]


def test_what_was_undone_is_forgotten(rig: Rig, store: Store, url: str, opened: Callable[[str], Store]) -> None:
    """A mark that was never committed is not taken for another change, by whoever makes it."""
    rig.host("h1")
    (host_id,) = store.write_now(_book).ids

    def failing(c: sa.Connection) -> None:
        c.execute(sa.update(tables.host).where(tables.host.c.id == host_id).values(cpus=1.0))
        assert _book(c).columns["cpus_m"].tolist() == [1000]
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        store.write_now(failing)
    change = sa.update(tables.host).where(tables.host.c.id == host_id).values(cpus=2.0)
    opened(url).write_now(lambda c: c.execute(change))
    assert store.write_now(_book).columns["cpus_m"].tolist() == [2000]


@pytest.mark.parametrize("count", [2, 12])
def test_since_when_hosts_are_idle_is_written_together_and_seen_as_a_change(rig: Rig, count: int) -> None:
    ids = [rig.host(f"h{n:02}") for n in range(count)]
    busy, *idle = ids
    last = {"switched_at": "2026-11-27T00:00:00Z"}
    rig.run(lambda c: c.execute(sa.update(tables.host).where(tables.host.c.id == busy).values(power=last)))
    before = rig.run(_book)
    rig.run(lambda c: sleeping.note_idle(c, {busy: None, **dict.fromkeys(idle, "2026-11-27T12:00:00Z")}))
    found = rig.run(lambda c: hosts.by_id(c, ids))
    assert found[busy].power == {**last, "idle_since": None}
    assert [found[one].power for one in idle] == [{"idle_since": "2026-11-27T12:00:00Z"}] * len(idle)
    after = rig.run(_book)
    assert all(a != b for a, b in zip(before.marks, after.marks, strict=True))
