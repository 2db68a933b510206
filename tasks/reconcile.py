"""Look at hosts: who is there, what runs, what it uses; drift is repaired by a new operation, or reported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import task

from control import access, datastores, drift, hosts, requests
from control import reconcile as rows
from control.hosts import HostRecord
from control.operations import Operation
from core.clock import now
from core.errors import CredentialRejected, RackflowError, Unreachable
from core.ids import on_host
from core.states import HostState, OperationState, PowerState
from drivers.hosts import Host
from drivers.hypervisor.base import Capacity, ObservedInstance
from tasks.ledger import Seen, finish, load, run_step
from tasks.runtime import Runtime, runtime

RECONCILER = "reconciler"  # the identity that repairs act for
HOSTS_AT_ONCE = 32


@task(name="reconcile", task_run_name="reconcile hosts", persist_result=False)
async def reconcile_hosts(ids: Sequence[str]) -> list[str]:
    """Look at the hosts of each operation of the batch, many at a time."""
    rt = runtime()
    ops = await load(ids)
    await asyncio.gather(*(_sweep(rt, op) for op in ops))
    return [op.id for op in ops]


async def _sweep(rt: Runtime, op: Operation) -> None:
    """Look at the hosts that an operation names, or at all; one that is still being enrolled is left to that."""
    records = await rt.store.read(lambda c: hosts.records(c, op.parameters.get("hosts") or None))
    slots = asyncio.Semaphore(HOSTS_AT_ONCE)

    async def one(sequence: int, record: HostRecord) -> bool:
        async with slots:
            return await run_step(op, sequence, "observe", record.name, lambda _: look_at(rt, record))

    enrolled = [r for r in records if r.driver and r.state is not HostState.ENROLLING]
    went = await asyncio.gather(*(one(sequence, record) for sequence, record in enumerate(enrolled, 1)))
    if all(went):
        await rt.store.write(lambda c: finish(c, op, OperationState.DONE))


async def look_at(rt: Runtime, record: HostRecord) -> Seen:
    """Observe one host and write what was seen; one that does not answer is marked, which is a result too."""
    expected = await rt.store.read(lambda c: rows.expected_on(c, record.id))
    try:
        host = await rt.host(record)
        seen = await host.hypervisor.instances()
        stores = await rt.store.read(lambda c: datastores.on_cluster(c, record.cluster))
        room = [(s.id, await host.storage(s.path).capacity()) for s in stores]
        bridges = {b.name: (b.addresses[0] if b.addresses else "") for b in await host.network.bridges()}
        capacity = await host.hypervisor.capacity()
    except (Unreachable, CredentialRejected) as error:
        problem = error
        state = HostState.UNREACHABLE if isinstance(error, Unreachable) else HostState.FAULTY
        await rt.store.write(lambda c: hosts.set_state(c, record.id, state, error=problem))
        return Seen(False, {"state": state.value, "reason": str(error)})
    stores_seen = [(store_id, r.total_mib, r.free_mib) for store_id, r in room]

    def write(c: Any) -> list[rows.Finding]:
        hosts.mark_seen(c, record.id, datastores=stores_seen, bridges=bridges)
        findings = rows.compare(expected, [(o.name, o.power) for o in seen])
        return rows.record_findings(c, record.id, record.name, findings)

    findings = await rt.store.write(write)
    await _usage(rt, record, _memory_used_mib(record, capacity, seen), stores_seen, seen)
    repaired = [await _repair(rt, finding) for finding in findings]
    repaired += await _clear_residue(rt, record, host)
    return Seen(
        any(repaired), {"instances": len(seen), "findings": [f.kind for f in findings], "repaired": sum(repaired)}
    )


async def _repair(rt: Runtime, finding: rows.Finding) -> bool:
    """Set off the operation that repairs a finding, if its policy says so."""
    if finding.policy != "repair" or finding.verb is None:
        return False
    verb = finding.verb

    def submit(c: Any) -> None:
        requests.submit(
            c, access.named(c, RECONCILER, role="admin"), verb, {"instances": [finding.instance_id]}, source="reconcile"
        )

    try:
        await rt.store.write(submit)
    except RackflowError:
        return False  # somebody is changing it already
    rt.wake()
    return True


async def _clear_residue(rt: Runtime, record: HostRecord, host: Host) -> list[bool]:
    """Take away what compensation had to leave on a host that did not answer then."""
    owed = await rt.store.read(lambda c: drift.residues(c, record.name))
    done = []
    for row in owed:  # only what the record says is not (or no longer) on this host
        name = on_host(row.instance_id)
        if await _is_there(host, name):
            await host.hypervisor.stop(name, grace_s=0)
        await host.hypervisor.undefine(name)
        for store in await rt.store.read(lambda c: datastores.on_cluster(c, record.cluster)):
            await host.storage(store.path).delete_volumes(row.instance_id)
        await rt.store.write(lambda c, r=row: drift.close(c, r.id, "repaired"))  # type: ignore[misc]
        done.append(True)
    return done


async def _is_there(host: Host, name: str) -> bool:
    return (await host.hypervisor.observe(name)).power not in (PowerState.ABSENT, PowerState.STOPPED)


def _memory_used_mib(record: HostRecord, capacity: Capacity, seen: Sequence[ObservedInstance]) -> int:
    """Return what counts as used of the host's declared memory.

    A host that was given to rackflow in part only (declared smaller than found) is measured by its instances: what the
    machine does beside them is not rackflow's to share out.
    """
    if record.memory_mib >= capacity.memory_mib:
        return capacity.memory_used_mib
    on = [o for o in seen if o.power is PowerState.RUNNING]
    return sum(o.memory_mib if o.memory_used_mib is None else o.memory_used_mib for o in on)


async def _usage(
    rt: Runtime,
    record: HostRecord,
    memory_used_mib: int,
    stores: list[tuple[str, int, int]],
    seen: Sequence[ObservedInstance],
) -> None:
    """Send usage samples to the history's owner; they may be lost."""
    if rt.analytics is None:
        return
    at = now()
    base: dict[str, Any] = {"at": at, "host": record.name, "disk_total_mib": None, "disk_free_mib": None}
    samples = [
        {**base, "instance_id": o.instance_id, "cpus": o.cpus, "cpu_used": rt.cpu_used(o.name, o.cpu_seconds, at),
         "memory_mib": o.memory_mib, "memory_used_mib": o.memory_used_mib}
        for o in seen if o.instance_id
    ]  # fmt: skip
    used = [float(s["cpu_used"]) for s in samples if s["cpu_used"] is not None]
    whole = {
        **base,
        "instance_id": None,
        "cpus": record.cpus,
        "cpu_used": sum(used) if used else None,
        "memory_mib": record.memory_mib,
        "memory_used_mib": memory_used_mib,
        "disk_total_mib": sum(total for _, total, _ in stores),
        "disk_free_mib": sum(free for _, _, free in stores),
    }
    try:
        await asyncio.to_thread(rt.analytics.put_usage, [*samples, whole])
    except RackflowError:
        return
