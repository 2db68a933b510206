"""What a look at a whole data centre costs when nothing is wrong: little CPU, and no writes about instances."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path

import pytest_asyncio

from control import datastores, hosts, operations, sql, tables
from core.clock import now
from core.ids import new_id, on_host
from core.states import InstanceKind, InstanceState, OperationState, PowerState, Verb
from drivers.fake_things import FakeInstance
from drivers.fake_world import world
from drivers.hypervisor.base import InstanceSpec
from tasks.runtime import set_runtime
from tests.integration.line import Line, make_line, without_prefect

HOSTS, EACH = 100, 50
CPU_S = 5.0


@pytest_asyncio.fixture
async def wide(tmp_path: Path) -> AsyncIterator[Line]:
    """A hundred simulated hosts of fifty running VMs each, written down without being deployed."""
    with without_prefect():
        line = await make_line(tmp_path, HOSTS)
        line.runtime.claim_until = inf
        _fill(line)
        yield line
        await line.runtime.pool.close()
        await line.store.close()
    set_runtime(None)
    world.reset()


def _fill(line: Line) -> None:
    at, rows = now(), []
    records = line.store.read_now(hosts.records)
    store = line.store.read_now(lambda c: datastores.by_name(c, ["local"]))["local"].id
    for record in records:
        for number in range(EACH):
            row_id = new_id()
            name = f"{record.name}-{number}"
            rows.append({
                "id": row_id, "name": name, "live_name": name, "kind": InstanceKind.VM, "owner": "admin",
                "state": InstanceState.RUNNING, "cpu": 0.1, "memory_mib": 64, "disk_mib": 64, "image_id": None,
                "host_id": record.id, "datastore_id": store, "spec": {"name": name, "image": "vm"}, "labels": {},
                "blueprint": "", "epoch": 0, "reason": "", "created_at": at, "updated_at": at, "deleted_at": None,
            })  # fmt: skip
            spec = InstanceSpec(row_id, on_host(row_id), name, InstanceKind.VM, 0.1, 64, (), ())
            there = FakeInstance(spec.name, InstanceKind.VM, spec, PowerState.RUNNING, active=spec)
            world.hosts[record.name].instances[spec.name] = there
    line.store.write_now(lambda c: sql.insert(c, tables.instance, rows))


async def _sweep(line: Line) -> tuple[float, int, int]:
    """Look at all hosts; return CPU seconds, instances seen, findings."""
    before = time.process_time()
    (op,) = await line.run(Verb.RECONCILE, {"hosts": []}, rounds=1)
    used = time.process_time() - before
    assert op.state is OperationState.DONE, (op.error, op.reason)
    steps = line.store.read_now(lambda c: operations.steps_of(c, [op.id]))[op.id]
    seen = [step.evidence or {} for step in steps]
    return used, sum(one["instances"] for one in seen), sum(len(one["findings"]) for one in seen)


async def test_a_look_at_a_hundred_hosts_is_cheap(wide: Line) -> None:
    await _sweep(wide)  # connections are made once
    outbox = wide.store.read_now(lambda c: c.execute(tables.outbox.select()).all())
    used, seen, findings = min([await _sweep(wide) for _ in range(2)])
    print(f"{HOSTS} hosts, {seen} instances: {used:.2f} CPU s")
    assert (seen, findings) == (HOSTS * EACH, 0)
    assert used < CPU_S
    after = wide.store.read_now(lambda c: c.execute(tables.outbox.select()).all())
    assert {row.kind for row in after[len(outbox):]} == {"step", "operation"}
    assert wide.store.read_now(lambda c: c.execute(tables.drift.select()).all()) == []
