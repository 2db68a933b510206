"""Eight processes place, delete, and put hosts to sleep at once: nothing is given away twice or to a host that is off,
and in the end all of it is there again.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from control import hosts, instances_on, tables
from control.store import Store
from core.states import HostState, InstanceState, OperationState, Verb
from tests.databases import placers
from tests.rig import Rig

PROCESSES = 8
HOSTS, CPUS, MEMORY_MIB, DISK_MIB = 4, 6, 4096, 1200  # cores, memory, disk and addresses all run out at times
ADDRESSES = 24
OFF = (HostState.FALLING_ASLEEP, HostState.ASLEEP, HostState.WAKING)
ENDED = (OperationState.DONE, OperationState.FAILED, OperationState.COMPENSATED, OperationState.CANCELLED)


@pytest.fixture
def cloud(rig: Rig) -> Rig:
    rig.network(ranges=[{"first": "10.9.0.10", "last": f"10.9.0.{10 + ADDRESSES - 1}"}])
    rig.network(name="wire", bridge="br1", addressing="dhcp", subnet=None, gateway=None, ranges=[], default_for=[])
    rig.image()
    seen = {"br0": "10.9.0.1/24", "br1": ""}
    for n in range(HOSTS):
        size = {"cpus": CPUS, "memory_mib": MEMORY_MIB, "disk_mib": DISK_MIB, "cpu_overcommit": 1}
        rig.host(f"h{n}", **size, bridges=seen, bmc={"address": f"fake://h{n}"})
    return rig


@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_nothing_is_given_twice_and_nothing_is_lost(cloud: Rig, store: Store, url: str, rounds: int) -> None:
    seen = together(store, url, rounds)
    assert seen["placed"] > PROCESSES
    assert seen["NoCapacityNow"] > 0, "it was never full: nothing was shown"
    assert min(seen[one] for one in ("sleep", "sleep refused", "wake")) > 0, seen
    rest = placers.Placer(store, "rest", 0)
    while rest.work():
        pass
    for name in placers.DOZERS:
        rest.switch(Verb.WAKE, name)
    while rest.work():
        pass
    assert {host.state for host in store.read_now(hosts.records)} == {HostState.READY}
    assert unfinished(store) == {}
    assert told(store) == (seen["asked"], seen["deleted"])
    left = names(store)
    if left:
        rest.delete(left)
    while rest.work():
        pass
    assert (unfinished(store), names(store)) == ({}, [])
    assert held(store) == ({}, 0)
    fills_up_again(cloud, store)


def together(store: Store, url: str, rounds: int) -> Counter[str]:
    """Run the processes, look at the record again and again meanwhile; return what they saw in all."""
    kind = multiprocessing.get_context("forkserver")
    kind.set_forkserver_preload(["tests.databases.placers"])
    ready, report = kind.Barrier(PROCESSES), kind.Queue()
    crowd = [kind.Process(target=placers.run, args=(url, f"p{n}", n, rounds, ready, report)) for n in range(PROCESSES)]
    for one in crowd:
        one.start()
    looks = 0
    while any(one.is_alive() for one in crowd) and report.qsize() < PROCESSES:
        looks += nothing_twice(store)
        crowd[0].join(timeout=0.05)
    reports = [report.get(timeout=60) for _ in crowd]
    for one in crowd:
        one.join(timeout=60)
    assert [one for one in reports if isinstance(one, str)] == []
    assert looks > 5
    total: Counter[str] = Counter()
    for one in reports:
        total.update(one)
    return total


def nothing_twice(store: Store) -> bool:
    """Assert that no host holds more than it has, or anything while it is off, and that whoever is placed has one
    address of its own.
    """
    i, lease = tables.instance, tables.lease
    where = sa.select(
        i.c.host_id, sa.func.sum(i.c.cpu).label("cpu"), sa.func.sum(i.c.memory_mib).label("memory"),
        sa.func.sum(i.c.disk_mib).label("disk"),
    ).where(i.c.host_id.is_not(None)).group_by(i.c.host_id)  # fmt: skip
    for row in store.read_now(lambda c: c.execute(where).mappings().all()):
        found = float(row["cpu"]), int(row["memory"]), int(row["disk"])
        assert all(one <= limit for one, limit in zip(found, (CPUS, MEMORY_MIB, DISK_MIB), strict=True)), found
    off = sa.select(i.c.name, tables.host.c.state).join(tables.host, tables.host.c.id == i.c.host_id)
    assert store.read_now(lambda c: c.execute(off.where(tables.host.c.state.in_(OFF))).all()) == []
    per = sa.select(i.c.id, sa.func.count(lease.c.id).label("n")).outerjoin(lease, lease.c.instance_id == i.c.id)
    counts = per.where(i.c.host_id.is_not(None)).group_by(i.c.id)
    assert {row.n for row in store.read_now(lambda c: c.execute(counts).all())} <= {1}
    fixed = sa.select(lease.c.address).where(lease.c.address.is_not(None))
    addresses = store.read_now(lambda c: list(c.scalars(fixed)))
    assert len(set(addresses)) == len(addresses) <= ADDRESSES
    return True


def unfinished(store: Store) -> Mapping[str, int]:
    """Return the states of operations that have not ended."""
    t = tables.operation
    states = store.read_now(lambda c: list(c.scalars(sa.select(t.c.state))))
    return Counter(state for state in states if state not in ENDED)


def told(store: Store) -> tuple[int, int]:
    """Return how many operations there are that deploy instances, and that delete them."""
    t = tables.operation
    verbs = Counter(store.read_now(lambda c: list(c.scalars(sa.select(t.c.verb)))))
    return verbs["deploy"], verbs["delete"]


def names(store: Store) -> list[str]:
    """Return the names of the instances that are there."""
    t = tables.instance
    return store.read_now(lambda c: list(c.scalars(sa.select(t.c.name).where(t.c.live_name.is_not(None)))))


def held(store: Store) -> tuple[dict[str, Any], int]:
    """Return what is reserved by host, and how many leases there are."""
    ids = [host.id for host in store.read_now(hosts.records)]
    leases = store.read_now(lambda c: c.scalar(sa.select(sa.func.count()).select_from(tables.lease)))
    return dict(store.read_now(lambda c: instances_on.reserved(c, ids))), int(leases or 0)


def fills_up_again(cloud: Rig, store: Store) -> None:
    """Place as much as the hosts have in all, to the last core."""
    cloud.ask(*(f"all-{n}" for n in range(HOSTS * CPUS)), cpu=1, memory=512)
    ops = cloud.claim()
    assert [one.error for one in cloud.place(ops)] == [None] * (HOSTS * CPUS)
    cloud.end(ops, InstanceState.RUNNING)
    nothing_twice(store)
