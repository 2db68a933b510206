"""Steps of an adoption: describe, write down, mark; and what undoes it. None of them touches what runs."""

from __future__ import annotations

from typing import Any

from control import adoption, hosts
from control.adoption import Foreigner
from control.hosts import HostRecord
from control.operations import Operation, steps_of
from core.errors import Unsupported
from core.ids import new_id
from core.states import PowerState
from drivers.hosts import Host
from drivers.hypervisor.powers import Adopts
from tasks.ledger import Seen
from tasks.runtime import Runtime


class Adoption:
    """The steps for some instances of one host."""

    def __init__(self, rt: Runtime, op: Operation, record: HostRecord) -> None:
        self.rt, self.op, self.record = rt, op, record

    async def describe(self, _: Operation) -> Seen:
        """Look at them. Raise Conflict with every reason why some cannot be adopted; nothing is changed then."""
        found = await self._found()
        await self.rt.store.read(lambda c: adoption.check(c, self.record, found))
        return Seen(False, {"instances": {one.on_host: {
            "name": one.name, "kind": one.kind, "cpu": one.cpu, "memory_mib": one.memory_mib,
            "disks": [list(disk) for disk in one.disks], "nics": [list(nic) for nic in one.nics],
        } for one in found}})  # fmt: skip

    async def write(self, _: Operation) -> Seen:
        """Make their rows, with reservations and leases."""
        found = await self._found()
        ids = {one.on_host: new_id() for one in found}
        return Seen(True, {"ids": ids}, lambda c: adoption.record(c, self.op, self.record, found, ids))

    async def mark(self, _: Operation) -> Seen:
        """Mark them as ours on the host; then they are as they were seen."""
        host, driver = await self._driver()
        powers: dict[str, PowerState] = {}
        changed = False
        for name, row_id in (await self.ids()).items():
            changed = await driver.adopt(name, row_id) or changed
            powers[row_id] = (await host.hypervisor.observe(name)).power
        over = await self.rt.store.read(lambda c: adoption.overbooked(c, self.record))
        return Seen(changed, {"powers": powers, "overbooked": over}, lambda c: adoption.complete(c, self.op, powers))

    async def undo(self) -> None:
        """Take marks and rows away again. Raise Unreachable: then it is tried later."""
        ids = await self.ids()
        if not ids:
            return
        host, driver = await self._driver()
        for name, row_id in ids.items():
            if (await host.hypervisor.observe(name)).instance_id == row_id:  # not the mark of another one
                await driver.disown(name)
        await self.rt.store.write(lambda c: adoption.take_back(c, self.op, list(ids.values())))

    async def ids(self) -> dict[str, str]:
        """Return name on the host -> id, of those that were written down."""
        steps = (await self.rt.store.read(lambda c: steps_of(c, [self.op.id])))[self.op.id]
        done = [step.evidence for step in steps if step.name == "record" and step.evidence]
        return dict(done[-1]["ids"]) if done else {}

    async def _driver(self) -> tuple[Host, Any]:
        host = await self.rt.host(self.record)
        if not isinstance(host.hypervisor, Adopts):
            raise Unsupported(f"{host.kind} on {host.name} cannot hand over instances", self.op.subject)
        return host, host.hypervisor

    async def _found(self) -> list[Foreigner]:
        host, driver = await self._driver()
        names = self.op.parameters.get("names", {})
        return [await _described(host, driver, name, names.get(name, name)) for name in self._wanted()]

    def _wanted(self) -> list[str]:
        return list(dict.fromkeys(self.op.parameters["instances"]))


async def _described(host: Host, driver: Adopts, on_host: str, name: str) -> Foreigner:
    """Return what one of them is. Raise NotFound."""
    found = await driver.describe(on_host)
    seen = await host.hypervisor.observe(on_host)
    return Foreigner(
        on_host, name, found.kind, found.cpu, found.memory_mib, tuple((d.name, d.size_mib) for d in found.disks),
        tuple((nic.mac, nic.bridge) for nic in found.nics), seen.addresses, found.problems,
    )  # fmt: skip


async def undo(rt: Runtime, op: Operation) -> None:
    """Undo an adoption that was given up, as far as it had come."""
    await Adoption(rt, op, await rt.store.read(lambda c: hosts.get(c, op.subject_id))).undo()
