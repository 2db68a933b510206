"""Eight processes place and delete at the same time: nothing is given away twice, and nothing is lost."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait as wait_for

import pytest
import sqlalchemy as sa

from control import tables
from control.store import Store
from core.states import UNFINISHED
from tests.databases.placers import place_and_delete
from tests.rig import Rig

PROCESSES = 8
HOSTS, MEMORY_MIB, DISK_MIB, CPUS = 4, 6144, 2048, 4  # what 8 x (4 + a few) instances do not all find room in
INST, H, L, OP = tables.instance, tables.host, tables.lease, tables.operation


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as found:
        yield found


@pytest.fixture
def cloud(rig: Rig) -> Rig:
    rig.network(ranges=[{"first": "10.9.0.10", "last": "10.9.0.59"}])  # fewer addresses than there is room
    rig.image()
    for n in range(HOSTS):
        rig.host(f"h{n}", cpus=CPUS, memory_mib=MEMORY_MIB, disk_mib=DISK_MIB)
    return rig


def over(c: sa.Connection) -> list[sa.Row[tuple[str]]]:
    """Return hosts of which more is reserved than there is. CPUs are given away four times."""
    held = sa.select(H.c.name).join(INST, INST.c.host_id == H.c.id).group_by(H.c.name, H.c.cpus, H.c.memory_mib)
    return list(c.execute(held.having(sa.or_(
        sa.func.sum(INST.c.memory_mib) > H.c.memory_mib, sa.func.sum(INST.c.cpu) > 4 * H.c.cpus,
        sa.func.sum(INST.c.disk_mib) > DISK_MIB,
    ))))  # fmt: skip


def ill_leased(c: sa.Connection) -> list[sa.Row[tuple[str]]]:
    """Return instances on a host with another number of leases than one, and those on none that have any."""
    leases = sa.select(sa.func.count()).where(L.c.instance_id == INST.c.id).scalar_subquery()
    return list(c.execute(sa.select(INST.c.name).where(leases != sa.case((INST.c.host_id.is_not(None), 1), else_=0))))


def twice(c: sa.Connection) -> list[sa.Row[tuple[str | None]]]:
    """Return addresses that two hold."""
    return list(c.execute(sa.select(L.c.address).group_by(L.c.address).having(sa.func.count() > 1)))


def run(pool: ProcessPoolExecutor, url: str, store: Store, rounds: int) -> Counter[str]:
    """Let all processes work, and look at the record again and again meanwhile; return what came out how often."""
    jobs = [pool.submit(place_and_delete, url, number, rounds) for number in range(PROCESSES)]
    left = set(jobs)
    while left:
        left = wait_for(left, timeout=0.2).not_done
        for look in (over, ill_leased, twice):
            assert store.read_now(look) == [], look.__name__
    said = sum((job.result() for job in jobs), Counter[str]())
    assert said["placed"] > 0
    assert set(said) <= {"operations", "placed", "no-capacity-now", "busy"}
    return said


def check_nothing_is_left(store: Store, asked: int) -> None:
    """All room and all addresses are back, and every operation that was asked for has ended."""
    def count(c: sa.Connection, table: sa.Table, *which: sa.ColumnElement[bool]) -> int:
        return int(c.execute(sa.select(sa.func.count()).select_from(table).where(*which)).scalar_one())

    held = sa.or_(INST.c.host_id.is_not(None), INST.c.live_name.is_not(None), INST.c.other_host_id.is_not(None))
    assert store.read_now(lambda c: (count(c, INST, held), count(c, L))) == (0, 0)
    about = OP.c.subject.like("instance/%")
    assert store.read_now(lambda c: count(c, OP, about, OP.c.state.in_(UNFINISHED))) == 0
    assert store.read_now(lambda c: count(c, OP, about)) == asked


def test_eight_processes_place_and_delete(pool: ProcessPoolExecutor, url: str, store: Store, cloud: Rig) -> None:
    said = run(pool, url, store, rounds=3)
    check_nothing_is_left(store, said["operations"])
    names = [f"again-{n}" for n in range(HOSTS * MEMORY_MIB // 512)]
    ops = cloud.ask(*names, memory=512, disk=64)
    claimed = cloud.claim()
    assert len(claimed) == len(ops)
    assert [outcome.error for outcome in cloud.place(claimed)] == [None] * len(ops)  # no room was lost on the way


@pytest.mark.slow
def test_eight_processes_place_and_delete_for_long(
    pool: ProcessPoolExecutor, url: str, store: Store, cloud: Rig
) -> None:
    said = run(pool, url, store, rounds=60)
    check_nothing_is_left(store, said["operations"])
    assert said["no-capacity-now"] > 0
