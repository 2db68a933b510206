"""Enrollment of a machine by its BMC: is it ours to command, what is it made of, what is it good for, is it sound?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any, TypeVar

from control import machine_rules, machines
from control.machines import MachineRecord
from control.operations import Operation
from core.errors import HostFault, Unreachable, Unsupported
from drivers.baremetal import ssh
from drivers.baremetal.facets import Inspects, facets
from drivers.baremetal.inventory import Inventory
from tasks.install import endpoint_of
from tasks.ledger import Seen
from tasks.machine_hardware import ssh_of
from tasks.machine_power import POWER_S, bmc_of, register
from tasks.runtime import Runtime

T = TypeVar("T")
INSPECT_S = 1800.0
REGISTER_S = 150.0
SPARE_S = 5.0  # that a driver gets to clean up after its deadline
NOTHING_LOST = "nothing-lost"


class MachineEnrollment:
    """The steps for one machine. They name no host: what a BMC does is no trouble of a host of the same name."""

    def __init__(self, rt: Runtime, op: Operation, record: MachineRecord) -> None:
        self.rt, self.op, self.record = rt, op, record

    async def power(self, _: Operation) -> Seen:
        """Read the power, which shows that the BMC answers and takes the password; tell what else it can do."""
        bmc = await bmc_of(self.rt, self.record)
        try:
            registered = await self._within(REGISTER_S, register(self.record, bmc))
            power = await self._within(POWER_S, bmc.power())
        finally:
            await bmc.close()
        return Seen(registered, {"power": power.value, "can": sorted(facets(bmc))})

    async def inspect(self, _: Operation) -> Seen:
        """Look what it is made of; that is kept as the step ends, unless another machine is the same.

        One whose operating system is taken over is asked by SSH: its BMC would start it from the network. So is one
        whose BMC tells nothing, where something runs.
        """
        if self.record.spec.get("host") and not self.record.spec.get("install"):
            t = await self.rt.pool.transport(await endpoint_of(self.rt, self.op, self.record))
            return self._told(await ssh.inventory(t))
        bmc = await bmc_of(self.rt, self.record)
        try:
            if not isinstance(bmc, Inspects) and self.record.spec.get("ssh"):
                return self._told(await ssh.inventory(await ssh_of(self.rt, self.op, self.record)))
            if not isinstance(bmc, Inspects):
                raise Unsupported(
                    f"the BMC of {self.record.name} cannot tell what the machine is made of", self._subject, {},
                    "enroll it by Redfish, through Ironic, or with ssh: the address of what runs on it",
                )  # fmt: skip
            seen = await self._within(INSPECT_S + SPARE_S, bmc.inspect(timeout_s=INSPECT_S))
        finally:
            await bmc.close()
        return self._told(seen)

    def _told(self, seen: Inventory) -> Seen:
        told = {"cpus": seen.cpu.count, "memory_mib": seen.memory_mib, "disks": len(seen.disks), "serial": seen.serial}
        return Seen(
            True, told, lambda c: machines.record_inventory(c, self.op, self.record.id, asdict(seen))
        )

    async def classify(self, _: Operation) -> Seen:
        """Let the rules say what it is good for."""
        rules, (subject, _lost) = await self._read()
        found = machine_rules.classify(rules.classify, subject)
        return Seen(
            found != self.record.classified, found,
            lambda c: machines.record_classified(c, self.op, self.record.id, found),
        )  # fmt: skip

    async def check(self, _: Operation) -> Seen:
        """Hold it against the checks; what failed is recorded as well. Raise HostFault naming it."""
        rules, (subject, lost) = await self._read()
        found = machine_rules.check(rules.checks, subject)
        whole = {"name": NOTHING_LOST, "passed": not lost, "figure": float(len(lost)), "require": "losses == 0"}
        checks = [whole, *found]
        await self.rt.store.write(lambda c: machines.record_checks(c, self.op, self.record.id, "rule", checks))
        failed = [one for one in checks if not one["passed"]]
        if failed:
            raise HostFault(
                f"machine {self.record.name} failed: " + ", ".join(map(_words, failed)), self._subject,
                {"failed": failed, "lost": lost},
                "mend it; then, or to take it as it is now, enroll it again",
            )  # fmt: skip
        return Seen(False, {"passed": [one["name"] for one in checks]})

    @property
    def _subject(self) -> str:
        return f"machine/{self.record.name}"

    async def _read(self) -> Any:
        return await self.rt.store.read(lambda c: (machines.rules(c), machines.subject(c, self.record.id)))

    async def _within(self, seconds: float, action: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await action
        except TimeoutError as error:
            raise Unreachable(
                f"the BMC of {self.record.name} did not answer in {seconds:.0f} s", self._subject, {},
                f"see whether {self.record.spec['bmc']} is reached from here",
            ) from error  # fmt: skip


def _words(check: dict[str, Any]) -> str:
    figure = "" if check["figure"] is None else f", found {check['figure']:g}"
    return f"{check['name']} ({check['require']}{figure})"
