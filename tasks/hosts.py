"""Enrollment over SSH: pin the key, look at the machine, bring it to a usable state, record it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from prefect import task

from control import datastores, hosts
from control.hosts import HostRecord
from control.operations import Operation
from core.errors import Conflict, CredentialRejected, HostFault
from core.states import HostState, OperationState, Verb
from drivers import registry
from drivers.facts import gather_facts
from drivers.hosts import Host, HostFacts
from drivers.hypervisor.base import Capabilities, Capacity
from drivers.identity import show
from drivers.network.base import NetworkSpec
from drivers.transport.base import Way
from tasks.ledger import Seen, finish, load, run_step
from tasks.reconcile import look_at
from tasks.runtime import Runtime, runtime
from tasks.settle import each

PREPARE_DEADLINE_S = 300.0
# that may use the daemon's sockets, for users other than root
GROUPS = {"kvm": ("libvirt", "kvm"), "lxd": ("lxd",), "firecracker": ("kvm",)}


class Enrollment:
    """The steps for one host; what one step saw is kept for the next, and looked at again after a crash."""

    def __init__(self, rt: Runtime, op: Operation, record: HostRecord) -> None:
        # It holds instances and has another address or key: nothing of that is written before it was found the same.
        self.becomes: dict[str, Any] = op.parameters.get("becomes") or {}
        self.rt, self.op = rt, op
        self.record = replace(record, **self.becomes, host_key="") if self.becomes else record
        self.facts: HostFacts | None = None
        self.seen: tuple[Capabilities, Capacity] | None = None
        self.driver = record.spec.get("driver") or ""
        self.is_simulated = self.driver == "fake"  # shows no key: whatever fingerprint is asked for will do

    async def pin(self, _: Operation) -> Seen:
        """Compare the host key, or the API's certificate, with the fingerprint asked for, then pin it."""
        before = self.record.host_key
        if before and not self.record.spec.get("fingerprint"):
            return Seen(False)
        fingerprint = await self._compare()
        key = self.record.host_key
        if key and not self.becomes:
            await self.rt.store.write(lambda c: hosts.pin_key(c, self.op, self.record.id, key))
        return Seen(before != key, {"fingerprint": fingerprint or None})

    async def _compare(self) -> str:
        """Take the host's key and return its fingerprint. Raise CredentialRejected when another one was asked for."""
        record = self.record
        way = Way.of(record.spec, record.address, self.rt.settings.paths.ssh_key)
        key = await show(self.driver, record.address, record.port, way)
        wanted = self.record.spec.get("fingerprint")
        if wanted and wanted != key.fingerprint and not self.is_simulated:
            raise CredentialRejected(
                f"the host key of {self.record.address} is {key.fingerprint or 'not shown'}, not {wanted}",
                f"host/{self.record.name}",
                {"seen": key.fingerprint, "wanted": wanted},
                "find out why it changed before you trust it",
            )
        self.record = replace(self.record, host_key=key.public)
        return key.fingerprint

    async def look(self, _: Operation) -> Seen:
        """Gather facts and settle which driver it gets."""
        facts = await self._facts()
        if self.becomes:
            return self._same(facts)
        return Seen(False, {"cpus": facts.cpus, "memory_mib": facts.memory_mib, "os": facts.os, "kinds": facts.kinds})

    def _same(self, facts: HostFacts) -> Seen:
        """Return what writes its new address and key. Raise Conflict when it is another machine."""
        wanted = self.op.parameters["machine_id"]
        if not wanted or facts.machine_id != wanted:
            raise Conflict(
                f"the machine at {self.record.address} is not host {self.record.name}, which holds instances",
                f"host/{self.record.name}", {"machine_id": facts.machine_id, "wanted": wanted},
                "look which machine that is; nothing was changed",
            )  # fmt: skip
        values = {**self.becomes, "host_key": self.record.host_key}
        return Seen(True, {"machine_id": facts.machine_id, "address": self.record.address},
                    lambda c: hosts.record_moved(c, self.op, self.record.id, values))  # fmt: skip

    async def prepare(self, _: Operation) -> Seen:
        """Initialise hypervisor, bridges and datastores."""
        await self._facts()
        bridges = [(b["name"], b.get("address", "")) for b in self.record.spec.get("bridges", [])]
        changes = await self._groups(await self.rt.host(self.record))
        host = await self.rt.host(self.record)  # a new connection when groups were joined
        changes += await host.hypervisor.prepare(bridges=bridges)
        for name, cidr in bridges:
            spec = NetworkSpec(name, "bridge", name, cidr, create=True)
            if await host.network.ensure(spec):
                changes.append(f"bridge {name}")
        stores = await self.rt.store.read(lambda c: datastores.on_cluster(c, self.record.cluster))
        for store in stores:
            if await host.storage(store.path).prepare():
                changes.append(f"datastore {store.path}")
        return Seen(bool(changes), {"changes": changes})

    async def measure(self, _: Operation) -> Seen:
        """Ask for capabilities and capacity; the host is ready afterwards."""
        await self._facts()
        host = await self.rt.host(self.record)
        self.seen = (await host.hypervisor.capabilities(), await host.hypervisor.capacity())
        capabilities, capacity = self.seen
        return Seen(True, {"driver": capabilities.driver, "domain_type": capabilities.domain_type or None,
                           "cpus": capacity.cpus, "memory_mib": capacity.memory_mib})  # fmt: skip

    def ready(self, c: Any, _: Seen) -> None:
        """Write what was found; the declared capacity goes before the one found."""
        assert self.facts is not None
        assert self.seen is not None
        capabilities, capacity = self.seen
        hosts.record_enrolled(
            c,
            self.op,
            self.record.id,
            driver=self.record.driver,
            host_key=self.record.host_key,
            facts=asdict(self.facts),
            capabilities=asdict(capabilities),
            cpus=float(self.record.spec.get("cpus") or capacity.cpus),
            memory_mib=int(self.record.spec.get("memory_mib") or capacity.memory_mib),
        )

    async def _facts(self) -> HostFacts:
        if self.facts is None:
            if self.becomes and not self.record.host_key:
                await self._compare()  # an earlier run did, and wrote nothing
            if registry.has_own_transport(self.driver):
                transport = (await self.rt.pool.get(self.driver, self.rt.endpoint(self.record))).transport
            else:
                transport = await self.rt.pool.transport(self.rt.endpoint(self.record))
            self.facts = await gather_facts(transport)
            self.record = replace(self.record, driver=self.record.driver or self._choose(self.facts))
        return self.facts

    @staticmethod
    def _is_brought(wanted: str | None) -> bool:
        """Say whether a driver that a package brings is asked for: it knows what it needs. Raise as its loading."""
        return bool(wanted) and wanted not in registry.OWN and bool(registry.load(str(wanted)))

    def _choose(self, facts: HostFacts) -> str:
        wanted = self.record.spec.get("driver")
        if wanted in facts.kinds or (not wanted and facts.kinds) or self._is_brought(wanted):
            return str(wanted or facts.kinds[0])
        raise HostFault(
            f"{self.record.name} cannot be a host of kind {wanted or 'kvm, lxd or firecracker'}: "
            + "; ".join(facts.missing),
            f"host/{self.record.name}", {"missing": facts.missing, "versions": facts.versions},
            "install what is missing there, then enroll it again",
        )  # fmt: skip

    async def _groups(self, host: Host) -> list[str]:
        """Let a user other than root reach the daemon's socket; the new groups count from the next login on."""
        user = self.record.user
        if user == "root" or self.record.driver not in GROUPS:
            return []
        mine = (await host.transport.run(["id", "-nG"])).stdout.split()
        known = (await host.transport.run(["getent", "group"])).stdout
        groups = [g for g in GROUPS[self.record.driver] if g not in mine and f"\n{g}:" in f"\n{known}"]
        if groups:
            await host.transport.run(["usermod", "-aG", ",".join(groups), user], sudo=True)
            await self.rt.locks.drop(self.record.name)
            await self.rt.pool.drop(self.record.name)
        return [f"user {user} joined {g}" for g in groups]


@task(name="enroll", task_run_name="enroll hosts", persist_result=False)
async def enroll_hosts(ids: Sequence[str]) -> list[str]:
    """Enroll the hosts of a batch, side by side."""
    rt = runtime()
    ops, records = await _load(rt, ids, Verb.ENROLL)

    async def work(op: Operation) -> bool:
        record = records[op.subject_id]
        job = Enrollment(rt, op, record)
        name = record.name
        went = (
            await run_step(op, 1, "pin-key", name, job.pin)
            and await run_step(op, 2, "facts", name, job.look)
            and await run_step(op, 3, "prepare", name, job.prepare, deadline_s=PREPARE_DEADLINE_S)
            and await run_step(op, 4, "capacity", name, job.measure, deadline_s=PREPARE_DEADLINE_S, also=job.ready)
        )
        if went:
            went = await run_step(op, 5, "observe", name, lambda _: look_at(rt, job.record), last=True)
        return went

    return await each("", ops, work)


@task(name="retire", task_run_name="retire hosts", persist_result=False)
async def retire_hosts(ids: Sequence[str]) -> list[str]:
    """Take hosts out of the record; they must hold no instance."""
    rt = runtime()
    ops, records = await _load(rt, ids, Verb.RETIRE)

    async def work(op: Operation) -> bool:
        record = records[op.subject_id]

        async def forget(_: Operation) -> Seen:
            await rt.locks.drop(record.name)
            await rt.pool.drop(record.name)
            return Seen(True)

        def gone(c: Any, _: Seen) -> None:
            hosts.set_state(c, record.id, HostState.RETIRED)
            finish(c, op, OperationState.DONE)

        return await run_step(op, 1, "retire", record.name, forget, also=gone)

    return await each("", ops, work)


async def _load(rt: Runtime, ids: Sequence[str], verb: Verb) -> tuple[list[Operation], dict[str, HostRecord]]:
    """Return the operations of a batch that have a verb, and their hosts by id."""
    ops = [op for op in await load(ids) if op.verb is verb]
    return ops, await rt.store.read(lambda c: hosts.by_id(c, {op.subject_id for op in ops}))
