"""Two writers at once, each with a store of its own, as two processes have: nothing is given away twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from control import access, hosts, instances_on, moving, networks, operations, placing, requests, tables
from control.access import Principal
from control.hardware_offered import offered
from control.operations import Operation
from control.placement import engine
from control.store import Store
from core.errors import Conflict, NoCapacityNow
from core.ids import new_id
from core.states import HostState, OperationState, Verb
from tests.rig import Rig

T = TypeVar("T")
Opened = Callable[[str], Store]


def at_once(*jobs: Callable[[], T]) -> list[T | Exception]:
    """Run jobs in threads that start together; return what each returned or raised."""
    ready = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)

    def run(index: int, job: Callable[[], T]) -> None:
        ready.wait()
        try:
            results[index] = job()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(i, job)) for i, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    return results


@pytest.fixture
def writers(url: str, store: Store, opened: Opened) -> list[Store]:
    """Two stores over the same database."""
    return [store, opened(url)]


@pytest.fixture
def cloud(rig: Rig) -> Rig:
    rig.network()
    rig.image()
    return rig


def submit(who: Principal, verb: Verb, body: dict[str, Any], key: str | None = None) -> Callable[[sa.Connection], Any]:
    return lambda c: requests.submit(c, who, verb, body, source="test", idempotency_key=key)


def body(*names: str, **spec: Any) -> dict[str, Any]:
    return {"instances": [{"name": n, "image": "tiny", "memory": 256, "cpu": 1, **spec} for n in names]}


def both(writers: Sequence[Store], *changes: Callable[[sa.Connection], Any]) -> list[Any]:
    """Run one change on each store, at the same time."""
    return at_once(*(partial(w.write_now, change) for w, change in zip(writers, changes, strict=True)))


def placer(store: Store, ops: Sequence[Operation], size: int) -> Callable[[], list[placing.Outcome]]:
    """Return a job that places operations, a few at a time."""

    def job() -> list[placing.Outcome]:
        found: list[placing.Outcome] = []
        for start in range(0, len(ops), size):
            part = ops[start : start + size]
            found += store.write_now(lambda c, part=part: placing.place(c, part, {}))  # type: ignore[misc]
        return found

    return job


def errors(results: Sequence[Any]) -> list[Exception]:
    return [one for one in results if isinstance(one, Exception)]


def test_a_name_is_given_once(writers: list[Store], cloud: Rig) -> None:
    for n in range(10):
        change = submit(cloud.admin, Verb.DEPLOY, body(f"a-{n}"))
        results = both(writers, change, change)
        (lost,) = errors(results)
        assert isinstance(lost, Conflict)
        assert "exists already" in lost.message
    assert len(cloud.claim()) == 10


def test_the_same_key_gives_one_answer(writers: list[Store], cloud: Rig) -> None:
    for n in range(10):
        change = submit(cloud.admin, Verb.DEPLOY, body(f"a-{n}"), key=f"key-{n}")
        results = both(writers, change, change)
        assert errors(results) == []
        assert sorted(r.repeated for r in results) == [False, True]
        assert len({r.request_id for r in results}) == 1


def test_one_verb_at_a_time_on_a_subject(writers: list[Store], cloud: Rig) -> None:
    cloud.host("h1", cpus=64, memory_mib=65536)
    cloud.deploy(*(f"a-{n}" for n in range(8)))
    for n in range(8):
        changes = [submit(cloud.admin, verb, {"instances": [f"a-{n}"]}) for verb in (Verb.SHUTDOWN, Verb.START)]
        results = both(writers, *changes)
        (lost,) = errors(results)
        assert isinstance(lost, Conflict)
        assert "is busy" in lost.message


def test_a_quota_holds_against_requests_at_once(writers: list[Store], cloud: Rig) -> None:
    eve = cloud.user("eve")
    t = tables.user
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.name == "eve").values(max_instances=5)))
    jobs = [submit(eve, Verb.DEPLOY, body(f"a-{n}", f"b-{n}")) for n in range(6)]
    at_once(*(partial(writers[i % 2].write_now, job) for i, job in enumerate(jobs)))
    assert cloud.run(lambda c: instances_used(c, "eve")) == 4


def instances_used(c: sa.Connection, owner: str) -> int:
    t = tables.instance
    return int(c.execute(sa.select(sa.func.count()).where(t.c.owner == owner)).scalar_one())


def test_operations_are_claimed_by_one_worker_each(writers: list[Store], cloud: Rig) -> None:
    cloud.ask(*(f"a-{n}" for n in range(60)))
    workers = [new_id(), new_id()]
    for worker in workers:
        cloud.run(lambda c, w=worker: operations.renew_claim(c, w, "test", 3600))  # type: ignore[misc]

    def claim_all(index: int) -> list[Operation]:
        found: list[Operation] = []
        for _ in range(12):
            found += writers[index].write_now(lambda c: operations.claim_pending(c, workers[index], limit=7))
        return found

    results = at_once(lambda: claim_all(0), lambda: claim_all(1))
    assert errors(results) == []
    taken = [op.id for ops in results if not isinstance(ops, Exception) for op in ops]
    assert len(taken) == len(set(taken)) == 60
    for worker, ops in zip(workers, results, strict=True):
        held = cloud.run(lambda c, w=worker: operations.active_of(c, w))  # type: ignore[misc]
        assert not isinstance(ops, Exception)
        assert {op.id for op in held} == {op.id for op in ops}


def halves(cloud: Rig, count: int, **spec: Any) -> list[list[Operation]]:
    """Claim `count` deploys and deal them out to two placers."""
    cloud.ask(*(f"i-{n}" for n in range(count)), **spec)
    ops = cloud.claim()
    return [ops[0::2], ops[1::2]]


@pytest.mark.parametrize("nics", [[{"network": "lan"}], [{"network": "wire"}]], ids=["pool", "dhcp"])
def test_hosts_are_not_overcommitted_by_two_placers(
    writers: list[Store], cloud: Rig, nics: list[dict[str, str]]
) -> None:
    """4 hosts with room for 5 each, 30 instances: 20 are placed, whoever places them; the others wait.

    With a pool, its lock keeps the placers apart; with DHCP only the hosts' versions do.
    """
    cloud.network(name="wire", bridge="br1", addressing="dhcp", subnet=None, gateway=None, ranges=[], default_for=[])
    for n in range(4):
        cloud.host(f"h{n}", cpus=5, memory_mib=5 * 256, bridges={"br0": "10.9.0.1/24", "br1": ""})
    shares = halves(cloud, 30, nics=nics)
    results: list[Any] = at_once(*(placer(w, ops, 4) for w, ops in zip(writers, shares, strict=True)))
    assert errors(results) == []
    outcomes = [one for share in results for one in share]
    assert Counter(type(one.error) for one in outcomes) == {type(None): 20, NoCapacityNow: 10}
    held = cloud.run(lambda c: instances_on.reserved(c, [h.id for h in hosts.records(c)]))
    assert [(one.instances, one.memory_mib) for one in held.values()] == [(5, 1280)] * 4


FACTS = {
    "cells": [{"cpus": [0, 1, 2, 3], "memory_mib": 8192}, {"cpus": [4, 5, 6, 7], "memory_mib": 8192}],
    "hugepages": {"2048": 8 * 256},
    "pci": [{"address": f"0000:0{n}:00.0", "id": "10de:1eb8", "class": "0302", "iommu_group": n} for n in range(6)],
}
OFFER = {"pinned_cpus": "1-3,5-7", "pci": ["10de:*"]}


WIRES = {"br1": "", "br2": ""}


def wires(cloud: Rig) -> list[list[dict[str, str]]]:
    """Make a network for each bridge of WIRES; return the NICs in each."""
    for bridge in WIRES:
        cloud.network(name=bridge, bridge=bridge, addressing="dhcp", subnet=None, gateway=None, ranges=[],
                      default_for=[])  # fmt: skip
    return [[{"network": bridge}] for bridge in WIRES]


def equip(cloud: Rig, host_id: str) -> None:
    """Let a host offer 6 cores, 6 cards and 2 GiB in huge pages."""
    values = {
        "hardware": offered(FACTS, OFFER),
        "capabilities": {"kinds": ["vm"], "grants": ["pci", "pinning", "numa", "hugepages"]},
    }
    t = tables.host
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.id == host_id).values(**values)))


def assert_granted_once(cloud: Rig) -> int:
    """Assert that no core, card or page of a host is granted twice; return how many have something."""
    t = tables.instance
    rows = cloud.run(lambda c: c.execute(sa.select(
        t.c.host_id, t.c.granted, t.c.other_host_id, t.c.other_granted
    )).all())  # fmt: skip
    taken: Counter[tuple[str, Any]] = Counter()
    pages_mib: Counter[str] = Counter()
    for host_id, one in [pair for row in rows for pair in (row[:2], row[2:]) if pair[1]]:
        taken.update((host_id, what) for what in (*one.get("cpus", ()), *one.get("pci", ())))
        pages_mib[host_id] += one["memory_mib"] if one.get("page_kib") else 0
    assert not [what for what, times in taken.items() if times > 1]
    assert all(mib <= 2048 for mib in pages_mib.values())
    return sum(row.granted is not None for row in rows)


@pytest.mark.parametrize(
    ("spec", "fitting"),
    [
        ({"pci": {"gpu": 1}}, 12), ({"cpu_pinning": True}, 12), ({"hugepages": "2MiB"}, 16),
        ({"cpu_pinning": True, "numa": "single", "cpu": 2, "pci": {"gpu": 1}}, 4),
    ],
    ids=["cards", "cores", "pages", "cores of a cell and cards"],
)  # fmt: skip
def test_what_is_one_instances_alone_is_granted_once_by_two_placers(
    writers: list[Store], cloud: Rig, spec: dict[str, Any], fitting: int
) -> None:
    """Two hosts, more instances than there is for; each placer has a network of its own: no lock keeps them apart."""
    nics = wires(cloud)
    for n in range(2):
        equip(cloud, cloud.host(f"h{n}", cpus=64, memory_mib=65536, bridges=WIRES))
    for n in range(2):
        cloud.ask(*(f"i-{n}-{i}" for i in range(fitting // 2 + 3)), nics=nics[n], **spec)
    ops = cloud.claim()
    shares = [[op for op in ops if op.subject_name.startswith(f"i-{n}")] for n in range(2)]
    results: list[Any] = at_once(*(placer(w, ops, 2) for w, ops in zip(writers, shares, strict=True)))
    assert errors(results) == []
    outcomes = [one for share in results for one in share]
    assert Counter(type(one.error) for one in outcomes) == {type(None): fitting, NoCapacityNow: 6}
    assert assert_granted_once(cloud) == fitting


def test_a_move_and_a_deploy_at_once_do_not_get_the_same_card(writers: list[Store], cloud: Rig) -> None:
    """Six come from the other host while six are placed, and there are six cards."""
    nics = wires(cloud)
    first, second = (cloud.host(f"h{n}", cpus=64, memory_mib=65536, bridges=WIRES) for n in range(2))
    equip(cloud, first)
    names = [f"old-{n}" for n in range(6)]
    cloud.deploy(*names, pci={"gpu": 1}, nics=nics[0])
    equip(cloud, second)
    cloud.submit(Verb.MIGRATE, {"instances": names, "live": False})
    cloud.ask(*(f"new-{n}" for n in range(6)), pci={"gpu": 1}, nics=nics[1])
    ops = cloud.claim()

    def move() -> list[str]:
        found: list[str] = []
        for op in ops:
            if op.verb is Verb.MIGRATE:
                with suppress(NoCapacityNow):
                    found.append(writers[0].write_now(partial(moving.reserve, op=op)))
        return found

    deploys = [op for op in ops if op.verb is Verb.DEPLOY]
    results: list[Any] = at_once(move, placer(writers[1], deploys, 1))
    assert errors(results) == []
    assert [*results[0], *(one.host for one in results[1] if one.host)] == ["h1"] * 6
    assert_granted_once(cloud)


def test_addresses_are_leased_once_by_two_placers(writers: list[Store], cloud: Rig) -> None:
    """20 addresses, 30 instances, plenty of hosts."""
    cloud.network(ranges=[{"first": "10.9.0.100", "last": "10.9.0.119"}])
    for n in range(3):
        cloud.host(f"h{n}", cpus=64, memory_mib=65536)
    results = at_once(*(placer(w, ops, 3) for w, ops in zip(writers, halves(cloud, 30), strict=True)))
    assert errors(results) == []
    t = tables.lease
    leased = cloud.run(lambda c: list(c.scalars(sa.select(t.c.address))))
    assert sorted(leased) == [f"10.9.0.{n}" for n in range(100, 120)]
    shown = cloud.run(lambda c: networks.show(c, cloud.admin, "lan"))
    assert (shown["leased"], shown["free"]) == (20, 0)


def test_a_host_that_changes_between_look_and_choice_is_lost_to_its_loser_only(
    writers: list[Store], cloud: Rig, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process disables the chosen host after this one looked: the instances go elsewhere."""
    if backend == "sqlite":
        pytest.skip("SQLite: nobody else writes while a transaction places")
    first = cloud.host("h1")
    cloud.host("h2")
    cloud.network(name="wire", bridge="br0", addressing="dhcp", subnet=None, gateway=None, ranges=[], default_for=[])
    cloud.ask("a", "b", nics=[{"network": "wire"}])
    ops = cloud.claim()
    real = engine.choose
    rounds: list[list[str]] = []

    def choose(view: Any, wanted: Any, features: Any = None, **how: Any) -> Any:
        choices = real(view, wanted, features, **how)
        rounds.append([view.names[one.host] for one in choices])
        if len(rounds) == 1:
            writers[1].write_now(lambda c: hosts.set_state(c, first, HostState.DISABLED))
        return choices

    monkeypatch.setattr(engine, "choose", choose)
    outcomes = writers[0].write_now(lambda c: placing.place(c, ops, {}))
    assert rounds == [["h1", "h1"], ["h2", "h2"]]
    assert [one.host for one in outcomes] == ["h2", "h2"]


def test_a_stale_placer_writes_nothing(writers: list[Store], cloud: Rig) -> None:
    cloud.host("h1")
    cloud.ask("a")
    (old,) = cloud.claim()
    cloud.run(lambda c: operations.release(c, [old.id]))
    (new,) = cloud.claim()
    (outcome,) = writers[1].write_now(lambda c: placing.place(c, [old], {}))
    assert (outcome.host, type(outcome.error)) == (None, operations.Stale)
    assert cloud.show("a")["host"] is None
    (outcome,) = writers[0].write_now(lambda c: placing.place(c, [new], {}))
    assert outcome.host == "h1"


def test_finish_and_delete_at_once_leave_one_way_on(writers: list[Store], cloud: Rig) -> None:
    """A deploy ends while its instance is deleted: the delete runs after it, or at once; it is never stuck."""
    cloud.host("h1", cpus=64, memory_mib=65536)
    cloud.ask(*(f"a-{n}" for n in range(8)))
    ops = cloud.claim()
    cloud.place(ops)
    for op in ops:
        finish = partial(operations.finish, op=op, state=OperationState.DONE)
        results = both(writers, finish, submit(cloud.admin, Verb.DELETE, {"instances": [op.subject_name]}))
        assert errors(results) == []
    deletes = cloud.claim()
    assert sorted(op.subject_name for op in deletes) == [f"a-{n}" for n in range(8)]


def test_an_account_is_made_once(writers: list[Store], cloud: Rig) -> None:
    for n in range(10):
        change = partial(access.named, name=f"u{n}")
        results = both(writers, change, change)
        assert errors(results) == []
        assert results[0] == results[1]
