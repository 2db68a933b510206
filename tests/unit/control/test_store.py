"""The store on SQLite: group commit, errors that meet only their caller, readers that cannot write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from control import group_commit
from control.store import Store
from core.errors import Conflict, HostFault, Invalid, Unreachable

T = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(f"sqlite:///{tmp_path}/deep/state.db")
    found.write_now(T.metadata.create_all)
    yield found
    found.close_now()


def put(number: int, text: str = "") -> Callable[[sa.Connection], int]:
    def change(c: sa.Connection) -> int:
        c.execute(sa.insert(T).values(id=number, text=text))
        return number

    return change


def numbers(store: Store) -> list[int]:
    return store.read_now(lambda c: list(c.scalars(sa.select(T.c.id).order_by(T.c.id))))


async def test_changes_that_wait_together_are_committed_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "HOLD_S", 60)
    commits: list[int] = []
    engine = store._write_engine
    sa.event.listen(engine, "commit", lambda c: commits.append(1))
    gate = threading.Event()
    first = asyncio.create_task(store.write(lambda c: gate.wait(10) and None))
    await asyncio.sleep(0.05)  # the writer is busy with the first, the others queue up
    others = [asyncio.create_task(store.write(put(n))) for n in range(50)]
    await asyncio.sleep(0.05)
    gate.set()
    assert await first is None
    assert await asyncio.gather(*others) == list(range(50))
    assert numbers(store) == list(range(50))
    assert len(commits) == 2, "the first alone, then all that waited"


async def test_an_error_undoes_and_meets_only_its_caller(store: Store) -> None:
    def half(c: sa.Connection) -> None:
        put(1)(c)
        raise Invalid("no")

    async def clash() -> object:
        return await store.write(put(5))

    results = await asyncio.gather(store.write(half), clash(), clash(), return_exceptions=True)
    kinds = [type(one) for one in results]
    assert kinds == [Invalid, int, Conflict]
    assert numbers(store) == [5]


async def test_a_bug_stays_what_it_is(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        await store.write(lambda c: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await store.read(lambda c: 1 // 0)


async def test_readers_see_what_was_written_and_cannot_write(store: Store) -> None:
    await store.write(put(7))
    assert await store.read(lambda c: c.execute(sa.select(T.c.id)).scalar_one()) == 7
    with pytest.raises(Exception, match="cannot be written"):
        await store.read(put(8))


async def test_a_caller_that_gave_up_before_its_turn_changes_nothing(store: Store) -> None:
    gate = threading.Event()
    first = asyncio.create_task(store.write(lambda c: gate.wait(10)))
    await asyncio.sleep(0.05)
    gone = asyncio.create_task(store.write(put(9)))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    assert numbers(store) == []


def test_a_change_that_waits_for_another_is_refused(store: Store) -> None:
    with pytest.raises(RuntimeError, match="itself"):
        store.write_now(lambda c: store.write_now(put(1)))


def test_a_full_disk_is_told_and_nothing_of_it_is_kept(store: Store) -> None:
    store.write_now(put(1))
    pages = store.write_now(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    store.write_now(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}"))
    with pytest.raises(HostFault, match="cannot be written"):
        store.write_now(put(2, "x" * 100_000))
    assert numbers(store) == [1]
    store.write_now(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000"))
    store.write_now(put(2, "x" * 100_000))
    assert numbers(store) == [1, 2]


def test_two_processes_take_turns(store: Store, tmp_path: Path) -> None:
    other = Store(f"sqlite:///{tmp_path}/deep/state.db")
    failed: list[BaseException] = []

    def work(mine: Store, start: int) -> None:
        try:
            for n in range(start, start + 100):
                mine.write_now(put(n))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(s, 1000 * i)) for i, s in enumerate((store, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close_now()
    assert failed == []
    assert len(numbers(store)) == 200


def test_what_was_committed_is_there_after_the_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    first = Store(url)
    first.migrate()
    first.write_now(lambda c: c.exec_driver_sql("CREATE TABLE kept (x)"))
    first.close_now()
    second = Store(url)
    assert second.read_now(lambda c: c.exec_driver_sql("SELECT count(*) FROM kept").scalar_one()) == 0
    mode = second.write_now(lambda c: (c.exec_driver_sql("PRAGMA synchronous").scalar_one(),
                                       c.exec_driver_sql("PRAGMA journal_mode").scalar_one()))  # fmt: skip
    assert mode == (2, "wal")  # FULL
    second.close_now()


def test_a_database_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    gone = Store(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(Unreachable):
        gone.write_now(lambda c: None)
    with pytest.raises(Unreachable):
        gone.read_now(lambda c: None)
    gone.close_now()
