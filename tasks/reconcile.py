"""Look at hosts: who is there, what runs, what it uses; drift is repaired by a new operation, or reported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from prefect import task

from control import access, drift, failover, fencing, host_facts, hosts, requests, sleeping
from control import reconcile as rows
from control.datastores import DatastoreRecord
from control.drift import Residue
from control.hosts import HostRecord
from control.operations import Operation
from core.clock import now
from core.errors import Conflict, CredentialRejected, HostFault, NotFound, RackflowError, Unreachable
from core.ids import on_host
from core.states import HostState, OperationState, PowerState
from drivers.facts import gather_again
from drivers.hosts import Host, HostFacts
from drivers.hypervisor.base import Capacity, ObservedInstance
from drivers.hypervisor.powers import Sweeps
from tasks.configured import missing_on
from tasks.host_power import look_asleep
from tasks.images import sweep_store
from tasks.ledger import Seen, finish, load, run_step
from tasks.look_writes import Before, Look
from tasks.runtime import Runtime, runtime
from tasks.sweep import sweep_vaults
from tasks.told import take_events
from tasks.watch import RECONCILER, watch

HOSTS_AT_ONCE = 32
_IN_HAND = (HostState.ENROLLING, HostState.FALLING_ASLEEP, HostState.WAKING)  # their operations look at them


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

    enrolled = [r for r in records if r.driver and r.state not in _IN_HAND]
    went = await asyncio.gather(*(one(sequence, record) for sequence, record in enumerate(enrolled, 1)))
    await watch(rt)
    await sweep_store(rt)
    await sweep_vaults(rt)
    if all(went):
        await rt.store.write(lambda c: finish(c, op, OperationState.DONE))


async def look_at(rt: Runtime, record: HostRecord) -> Seen:
    """Observe one host and write what was seen; one that does not answer is marked, which is a result too.

    What is left there of instances that the record has elsewhere goes first: only then may anything be placed there.
    """
    if record.state is HostState.ASLEEP:
        return await look_asleep(rt, record)
    before: Before = await rt.befores.add(record)
    try:
        host = await rt.host(record)
        cleared, problem = await _clear(rt, host, before.owed, before.stores)
        if record.state is HostState.FENCED:
            return await _fenced(rt, record, answers=True)
        if problem is not None and record.state in (HostState.UNREACHABLE, HostState.FAULTY):
            return await _faulty(rt, record, problem)
        return await _look(rt, record, host, before, cleared)
    except CredentialRejected as error:
        return await _faulty(rt, record, error)
    except Unreachable as error:
        return await _silent(rt, record, error)


async def _look(rt: Runtime, record: HostRecord, host: Host, before: Before, cleared: int) -> Seen:
    repairs = record.state is not HostState.MAINTENANCE
    if before.stranded and repairs:
        await rt.store.write(lambda c: fencing.unstrand(c, record))
        before = await rt.befores.add(record)
    seen = await host.hypervisor.instances()
    bridges = {b.name: (b.addresses[0] if b.addresses else "") for b in await host.network.bridges()}
    capacity = await host.hypervisor.capacity()
    stores_seen = await _rooms(host, before)
    facts = await _facts(host, record, before.at)
    missing = await missing_on(rt, record, host) if facts is not None else None
    findings: list[rows.Finding] = await rt.looks.add(Look(
        record, before.at, stores_seen, bridges, {"cpus": float(capacity.cpus), "memory_mib": capacity.memory_mib},
        facts, _differs(before, seen) if repairs else None, missing,
    ))  # fmt: skip
    await _usage(rt, record, _memory_used_mib(record, capacity, seen), stores_seen, seen)
    repaired = sum([await _repair(rt, finding) for finding in findings])
    if any(f.kind == drift.RESIDUE for f in findings):
        owed = await rt.store.read(lambda c: drift.residues(c, record.name))
        cleared += (await _clear(rt, host, owed, before.stores))[0]
    if repairs and isinstance(host.hypervisor, Sweeps):
        cleared += await host.hypervisor.sweep()
    await take_events(rt, record, host)
    told = [f.kind for f in findings if f.policy != drift.IGNORE]
    return Seen(bool(repaired + cleared), {"instances": len(seen), "findings": told, "repaired": repaired + cleared})


def _differs(before: Before, seen: Sequence[ObservedInstance]) -> list[rows.Finding]:
    """Return where what was seen is not what the record has."""
    marks = {o.name: o.instance_id for o in seen if o.instance_id}
    reasons = {o.name: o.reason for o in seen}
    return rows.compare(before.expected, [(o.name, o.power) for o in seen], marks, reasons)


async def _facts(host: Host, record: HostRecord, at: datetime) -> HostFacts | None:
    """Return what the machine is made of, where it may be something else by now: it was booted, or a day is over."""
    known = str(record.facts.get("boot_id") or "")
    try:
        return await gather_again(host.transport, known, anyway=host_facts.due(record.facts, at))
    except HostFault:  # all else that a look sees is worth as much without
        return None


async def _rooms(host: Host, before: Before) -> list[tuple[str, int, int]]:
    """Return id, size and free MiB of each datastore there; one that is new is prepared, one that is gone left out."""
    found: list[tuple[str, int, int]] = []
    for store in before.stores:
        storage = host.storage(store.path)
        try:
            if store.id not in before.known:
                await storage.prepare()
            room = await storage.capacity()
        except (NotFound, HostFault):
            continue
        found.append((store.id, room.total_mib, room.free_mib))
    return found


async def _faulty(rt: Runtime, record: HostRecord, problem: RackflowError) -> Seen:
    await rt.store.write(lambda c: hosts.set_state(c, record.id, HostState.FAULTY, error=problem))
    return Seen(False, {"state": HostState.FAULTY.value, "reason": str(problem)})


async def _silent(rt: Runtime, record: HostRecord, problem: Unreachable) -> Seen:
    """Write that a host does not answer; one in maintenance is expected to, one that is fenced is known to."""
    if record.state is HostState.FENCED:
        return await _fenced(rt, record, answers=False)
    if record.state is HostState.MAINTENANCE or sleeping.is_stuck(record):
        return Seen(False, {"state": record.state.value, "reason": str(problem)})
    said = failover.noted(record, problem, now())

    def write(c: Any) -> None:
        hosts.set_state(c, record.id, HostState.UNREACHABLE, error=said)
        rows.note_silence(c, record.id, record.name, str(said.evidence["since"]))

    await rt.store.write(write)
    return Seen(False, {"state": HostState.UNREACHABLE.value, "reason": str(said)})


async def _fenced(rt: Runtime, record: HostRecord, *, answers: bool) -> Seen:
    """Go on with what is still recorded on a fenced host; if it answers, it waits for somebody to enable it."""

    def pursue(c: Any) -> dict[str, list[str]]:
        return fencing.pursue(c, record, RECONCILER)

    try:
        done = await rt.store.write(pursue)
    except Conflict:
        return Seen(False, {"state": "not fenced any more"})
    if done["elsewhere"]:
        rt.wake()
    return Seen(bool(done["elsewhere"]), {"state": record.state.value, "answers": answers, **done})


async def _repair(rt: Runtime, finding: rows.Finding) -> bool:
    """Set off the operation that repairs a finding, if its policy says so."""
    if finding.policy != drift.REPAIR or finding.verb is None:
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


async def _clear(
    rt: Runtime, host: Host, owed: Sequence[Residue], stores: Sequence[DatastoreRecord]
) -> tuple[int, RackflowError | None]:
    """Take away what the record does not have on this host; return of how many, and what went wrong with the rest."""
    done, problem = 0, None
    for one in owed:
        try:
            await _clear_one(host, one, stores)
            await rt.store.write(lambda c, r=one: drift.close(c, r.id, drift.REPAIRED))  # type: ignore[misc]
            done += 1
        except Unreachable:
            raise
        except RackflowError as error:
            problem = error
    return done, problem


async def _clear_one(host: Host, one: Residue, stores: Sequence[DatastoreRecord]) -> None:
    """Stop and undefine a leftover; its disks go too, but not from where the instance has them now."""
    name = one.host_name or on_host(one.instance_id)
    if await _is_there(host, name):
        await host.hypervisor.stop(name, grace_s=0)
    await host.hypervisor.undefine(name)
    for store in stores:
        if store.id not in one.kept:
            await host.storage(store.path).delete_volumes(one.instance_id)


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
        await rt.usage.add([*samples, whole])
    except RackflowError:
        return
